"""What whoever starts a keeper may have left behind in it: signals that are ignored, open files."""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import Opcode
from cafs.testing.keeping import RunningKeeper

Wrapper = Callable[[str], Path]


@pytest.fixture
def wrapped(program: Path, tmp_path: Path) -> Wrapper:
    """Makes a program that runs some Python and becomes the keeper."""

    def wrap(statements: str) -> Path:
        path = tmp_path / "wrapper"
        text = f"import os, signal, sys; {statements}; os.execv(sys.argv[1], sys.argv[1:])"
        words = shlex.join([sys.executable, "-I", "-S", "-c", text, str(program)])
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(0o755)
        return path

    return wrap


def test_a_worker_that_dies_is_seen_though_the_end_of_children_was_ignored(
    wrapped: Wrapper, tmp_path: Path
) -> None:
    with RunningKeeper(
        wrapped("signal.signal(signal.SIGCHLD, signal.SIG_IGN)"), tmp_path
    ) as keeper:
        keeper.expect_log("worker")
        worker = keeper.begin()
        request = keeper.kernel.send(Opcode.GETATTR)
        worker.kill()
        keeper.wait_for_log(f"worker {worker.pid} was killed by signal 9")
        second = keeper.workers.next()
        second.take_over()
        assert second.receive() == request


@pytest.mark.parametrize(("action", "ends"), [("DFL", True), ("IGN", False)])
def test_a_hangup_ends_it_unless_it_was_to_be_ignored(
    wrapped: Wrapper, tmp_path: Path, action: str, ends: bool
) -> None:
    program = wrapped(f"signal.signal(signal.SIGHUP, signal.SIG_{action})")
    with RunningKeeper(program, tmp_path) as keeper:
        worker = keeper.begin()
        keeper.signal(signal.SIGHUP)
        if ends:
            assert worker.told() == b"E"
            assert keeper.wait() == 0
        else:
            request = keeper.kernel.send(Opcode.GETATTR)
            assert worker.receive() == request
            assert keeper.status().state == "serving"


def test_what_was_open_is_held_by_neither_keeper_nor_worker(
    wrapped: Wrapper, tmp_path: Path
) -> None:
    path = tmp_path / "inherited"
    path.touch()
    program = wrapped(f"os.dup2(os.open({str(path)!r}, os.O_RDONLY), 8); os.close(0)")
    with RunningKeeper(program, tmp_path) as keeper:
        worker = keeper.begin()
        for pid in (keeper.pid, worker.pid):
            links = {entry.name: os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            assert str(path) not in links.values()
            assert links["0"] == "/dev/null"
