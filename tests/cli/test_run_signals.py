"""``run`` and ``mount`` leave no mount behind, whatever signal ends them, and whenever."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Cafs

pytestmark = pytest.mark.fuse
HELD = """\
import os, sys, time
if "worker" in sys.orig_argv:
    until = time.monotonic() + 60
    while not os.path.exists({path!r}) and time.monotonic() < until:
        time.sleep(0.005)
"""
PROJECT = '[mount]\npath = "cafs"\n'


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


def is_mounted(cafs: Cafs) -> bool:
    return f" {cafs.directory / 'cafs'} " in Path("/proc/self/mountinfo").read_text()


def has_worker(cafs: Cafs) -> bool:
    """Whether a process serves, or is about to serve, the project's mount point."""
    place = os.fsencode(cafs.directory / "cafs")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if place in process.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False


def hold_workers_back(cafs: Cafs) -> Path:
    """Let no worker come further than to its first line until a file is there; that file."""
    top = cafs.directory.parent
    goes_on, planted = top / "goes-on", top / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(HELD.format(path=str(goes_on)))
    cafs.environment["PYTHONPATH"] = str(planted)
    return goes_on


def ended(process: "subprocess.Popen[str]") -> int:
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_goes_to_the_command_and_the_mount_ends(cafs: Cafs, number: int) -> None:
    cafs.project(PROJECT)
    running = cafs.directory / "running"
    process = cafs.popen("run", "--", "sh", "-c", f"touch {running}; exec sleep 60")
    until(running.exists)
    process.send_signal(number)
    assert ended(process) == 128 + number
    assert not is_mounted(cafs)


def test_an_interrupt_is_the_commands_to_answer(cafs: Cafs) -> None:
    cafs.project(PROJECT)
    running, done = cafs.directory / "running", cafs.directory / "done"
    script = f"touch {running}; until test -e {done}; do sleep 0.02; done; exit 7"
    process = cafs.popen("run", "--", "sh", "-c", script)
    until(running.exists)
    process.send_signal(signal.SIGINT)
    done.touch()
    assert ended(process) == 7
    assert not is_mounted(cafs)


def test_when_it_is_killed_the_mount_ends_once_its_command_uses_it_no_more(cafs: Cafs) -> None:
    cafs.project(PROJECT)
    running, done = cafs.directory / "running", cafs.directory / "done"
    script = f"cd cafs; touch {running}; until test -e {done}; do sleep 0.02; done"
    process = cafs.popen("run", "--", "sh", "-c", script)
    until(running.exists)
    process.kill()
    process.wait()
    log = next((cafs.directory.parent / "state").rglob("cafs-*.log"))
    until(lambda: "is in use: it is unmounted once it is not" in log.read_text())
    assert is_mounted(cafs)
    done.touch()
    assert ended(process) == -signal.SIGKILL
    until(lambda: not has_worker(cafs))
    assert not is_mounted(cafs)


@pytest.mark.parametrize("verb", [("run", "--", "true"), ("mount",)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_while_it_mounts_leaves_nothing(
    cafs: Cafs, verb: tuple[str, ...], number: int
) -> None:
    cafs.project(PROJECT)
    goes_on = hold_workers_back(cafs)
    process = cafs.popen(*verb)
    until(lambda: has_worker(cafs))
    process.send_signal(number)
    process.wait(60)
    goes_on.touch()
    assert ended(process) in {128 + number, -number}
    until(lambda: not has_worker(cafs))
    assert not is_mounted(cafs)
