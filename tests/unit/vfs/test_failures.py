"""What is remembered of failures."""

import json

import pytest

from cafs.errors import NotFoundError, UnreachableError
from cafs.vfs.control import ControlFiles
from cafs.vfs.failures import Failures


def fail(failures: Failures, inode: int, path: str, what: str) -> None:
    with pytest.raises(NotFoundError), failures.noting(inode, path):
        raise NotFoundError(what, hint="look")


def test_a_failure_is_known_by_inode_and_by_path_and_goes_on() -> None:
    failures = Failures()
    fail(failures, 5, "ref/gcc", "gone")
    assert failures.last(5) == "gone (look)"
    assert failures.last("ref/gcc") == "gone (look)"
    assert failures.last(6) is None


def test_success_notes_nothing() -> None:
    failures = Failures()
    with failures.noting(5, "ref/gcc"):
        pass
    assert failures.last(5) is None
    assert json.loads(failures.as_json()) == []


def test_the_list_is_newest_first_and_bounded() -> None:
    failures = Failures()
    for number in range(150):
        fail(failures, number, "ref/gcc", f"failure {number}")
    told = json.loads(failures.as_json())
    assert len(told) == 100
    assert told[0]["line"] == "failure 149 (look)"
    assert told[0]["code"] == "not-found"
    assert told[0]["path"] == "ref/gcc"


def test_bugs_are_not_failures() -> None:
    failures = Failures()
    with pytest.raises(ZeroDivisionError), failures.noting(5, "x"):
        raise ZeroDivisionError
    assert failures.last(5) is None


def test_control_files_say_what_is_so_now() -> None:
    failures = Failures()
    counts = iter((b"1", b"2"))
    control = ControlFiles(
        version="9.9", status=lambda: next(counts), inflight=lambda: b"[]", failures=failures
    )
    assert control.names == ("README", "errors.json", "inflight.json", "status.json", "version")
    assert control.content("version") == b"9.9\n"
    assert control.content("status.json") == b"1"
    assert control.content("status.json") == b"2"
    assert control.content("inflight.json") == b"[]"
    assert control.content("nothing") is None
    with pytest.raises(UnreachableError), failures.noting(5, "ref/gcc"):
        raise UnreachableError("no answer")
    assert b"no answer" in (control.content("errors.json") or b"")


def test_the_log_is_not_filled_by_who_asks_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    with caplog.at_level("INFO", "cafs.vfs"):
        for _ in range(500):
            fail(failures, 5, "ref/gcc", "gone")
        assert len(caplog.records) == 1
        for number in range(500):
            fail(failures, 6, "digest", f"no {number}")
        assert len(caplog.records) == 100
        now[0] = 61.0
        fail(failures, 5, "ref/gcc", "gone")
    assert len(caplog.records) == 101
    assert len(json.loads(failures.as_json())) == 100
