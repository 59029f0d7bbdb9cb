"""What is logged while a verb works: told when, and what of it is not."""

import logging

import pytest

from cafs.cli.withholding import withheld
from cafs.errors import NotFoundError

pytestmark = pytest.mark.expects_log("fetch|store|model")
_LOG = logging.getLogger("cafs.fetch")


def test_it_is_told_at_the_end_each_once_and_in_its_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with withheld(quiet=False):
        for host in ("b", "a", "b"):
            _LOG.warning("fetch.mirror.wrong host=%s", host)
        _LOG.info("fetch.nothing")
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err.splitlines() == [
        "warning: fetch.mirror.wrong host=b",
        "warning: fetch.mirror.wrong host=a",
    ]
    with withheld(quiet=True):
        _LOG.warning("fetch.mirror.wrong host=a")
    assert capsys.readouterr().err == ""


def test_of_a_ref_whose_failure_was_told_nothing_is_told_and_all_of_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with withheld(quiet=False) as failed:
        _LOG.warning("fetch.mirror.doubted host=a: model: wrong in 0-9")
        _LOG.warning("model: index sha256:00 of cafs.lock: is wrong")
        _LOG.warning("fetch.mirror.doubted host=a: supermodel: wrong in 0-9")
        failed.add("model")
    told = capsys.readouterr().err
    assert told == "warning: fetch.mirror.doubted host=a: supermodel: wrong in 0-9\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFoundError("a"), False),
        (ExceptionGroup("two", [NotFoundError("a"), NotFoundError("b")]), False),
        (KeyboardInterrupt(), False),
        (SystemExit(143), False),
        (LookupError("a bug"), True),
        (ExceptionGroup("two", [NotFoundError("a"), LookupError("b")]), True),
    ],
)
def test_beside_a_failure_that_is_told_nothing_is_and_beside_a_bug_all(
    capsys: pytest.CaptureFixture[str], error: BaseException, told: bool
) -> None:
    def fail() -> None:
        with withheld(quiet=True):
            _LOG.warning("store.stream.damaged")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert capsys.readouterr().err == ("warning: store.stream.damaged\n" if told else "")


def test_after_it_what_is_logged_is_not_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with withheld(quiet=False):
        pass
    _LOG.warning("fetch.mirror.wrong host=a")
    assert capsys.readouterr().err == ""
