"""The error family: one line a failure, with its causes and the hint."""

from cafs.errors import CafsError, DeadlineError, DigestMismatchError, UnreachableError


def subclasses(of: type[CafsError]) -> list[type[CafsError]]:
    return [of, *(each for child in of.__subclasses__() for each in subclasses(child))]


def test_the_line_names_causes_and_hint() -> None:
    cause = UnreachableError("connect to 127.0.0.1:1: refused")
    error = DeadlineError("read of a.bin: no bytes for 3 s", hint="is the server up?")
    error.__cause__ = cause
    assert error.line == (
        "read of a.bin: no bytes for 3 s: connect to 127.0.0.1:1: refused (is the server up?)"
    )


def test_a_name_that_a_cause_begins_with_too_is_said_once() -> None:
    error = CafsError("base: never resolved here")
    error.__cause__ = CafsError("base: nobody may be asked")
    assert error.line == "base: never resolved here: nobody may be asked"


def test_a_line_is_one_line() -> None:
    assert "\n" not in CafsError("two\nlines", hint="").line


def test_what_to_do_about_other_content_holds_whoever_said_what_it_must_be() -> None:
    error = DigestMismatchError("gcc", expected="sha256:1", actual="sha256:2")
    for each in ("cafs lock --upgrade where cafs.lock says", "integrity where cafs.toml", "pushed"):
        assert each in error.hint


def test_codes_are_unique() -> None:
    # Elsewhere a class may refine one of the family, and be the same to those who look at codes.
    family = [each for each in subclasses(CafsError) if each.__module__ == CafsError.__module__]
    codes = [each.code for each in family]
    assert len(set(codes)) == len(codes)


def test_only_what_may_pass_is_transient() -> None:
    transient = {each.code for each in subclasses(CafsError) if each.transient}
    assert transient == {"crowded", "deadline", "unreachable"}
