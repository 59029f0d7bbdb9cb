"""The table of exit codes is total."""

from cafs import errors
from cafs.cli.exits import EPILOG, FAMILIES, exit_code


def test_every_error_class_below_the_root_has_an_exit_code() -> None:
    pending = list(errors.CafsError.__subclasses__())
    seen = 0
    while pending:
        kind = pending.pop()
        pending.extend(kind.__subclasses__())
        assert 2 <= exit_code(kind) <= 9
        seen += 1
    assert seen >= len(FAMILIES)


def test_the_epilog_tells_every_code() -> None:
    for code in FAMILIES.values():
        assert f"{code} " in EPILOG
