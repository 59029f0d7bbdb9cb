"""Scratch: what a process has for itself goes with it, however it ends."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from cafs.errors import StorageError
from cafs.store.disk.scratch import FOLDER, left, remove, scratch
from cafs.store.space.findings import Kind, Terms
from cafs.store.space.purging import Outcome
from cafs.store.store import Store

CHILD = """
import signal, sys
from pathlib import Path
from cafs.store.disk.scratch import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "some").mkdir()
    (folder / "some/index").write_bytes(b"index")
    print(folder, flush=True)
    signal.pause()
"""


def killed(root: Path) -> Path:
    """What a process has made that was killed with no warning."""
    command = [sys.executable, "-c", CHILD, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        assert (list(left(root)), remove(folder)) == ([], False)  # of one that lives
        child.send_signal(signal.SIGKILL)
    assert (folder / "some/index").read_bytes() == b"index"
    return folder


def test_it_goes_with_the_block_and_nobody_takes_it_away_before(tmp_path: Path) -> None:
    with scratch(tmp_path) as one, scratch(tmp_path) as other:
        (one / "a").write_bytes(b"a")
        assert one != other
        assert not remove(one)
        assert list(left(tmp_path)) == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_a_killed_process_has_left_goes_with_the_next_one(tmp_path: Path) -> None:
    folder = killed(tmp_path)
    assert list(left(tmp_path)) == [folder]
    with scratch(tmp_path) as mine:
        assert list((tmp_path / FOLDER).iterdir()) == [mine]


@pytest.mark.parametrize("dry", [True, False])
async def test_what_a_killed_process_has_left_goes_with_gc(store: Store, dry: bool) -> None:
    folder = await trio.to_thread.run_sync(killed, store.path)
    taken = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    with_us = store.path / FOLDER / ("ab" * 8)
    (store.path / FOLDER / "not ours").mkdir()
    with_us.mkdir()
    descriptor = os.open(with_us, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    told: list[Outcome] = []
    try:
        await store.housekeeping.collect(Terms(dry=dry, now_ns=time.time_ns()), told.extend)
    finally:
        os.close(descriptor)
    (found,) = told
    assert (found.finding.kind, found.finding.name) == (Kind.FILE, f"{FOLDER}/{folder.name}")
    assert found.finding.size == taken
    assert folder.exists() is dry
    assert with_us.exists()
    assert (store.path / FOLDER / "not ours").exists()


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_bytes(b"")
    with pytest.raises(StorageError, match=FOLDER), scratch(tmp_path):
        pass


EXHAUSTED = """
import os, resource, signal, sys
from pathlib import Path
from cafs.errors import StorageError
from cafs.store.disk import scratch
root = Path(sys.argv[1])
if sys.argv[2] == "making":
    scratch.left = lambda _: iter(())  # it needs a descriptor, too
spare = os.open("/", os.O_RDONLY)
os.close(spare)
resource.setrlimit(resource.RLIMIT_NOFILE, (spare, spare))
signal.alarm(5)
try:
    with scratch.scratch(root):
        print("made")
except StorageError as error:
    print(error.line)
"""


@pytest.mark.parametrize("at", ["looking", "making"])
def test_without_descriptors_it_ends_with_why_and_leaves_nothing(tmp_path: Path, at: str) -> None:
    (tmp_path / FOLDER).mkdir()
    command = [sys.executable, "-c", EXHAUSTED, str(tmp_path), at]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / FOLDER}: cannot be used: Too many open files")
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_what_cannot_be_locked_is_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, *, exclusive: bool, wait: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("cafs.store.disk.scratch.flock", no_locks)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StorageError, match="No locks available"), scratch(tmp_path):
        pass
    assert os.listdir("/proc/self/fd") == before
    assert list((tmp_path / FOLDER).iterdir()) == []
