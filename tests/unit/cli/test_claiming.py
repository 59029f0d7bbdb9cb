"""Claiming a mount point, so that one command mounts there at a time."""

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cafs.cli.mounts import live
from cafs.cli.mounts.claiming import claimed
from cafs.errors import MountError

PLACE = Path("/somewhere/cafs")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the files, with nothing in it."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return live.directory()


def refused() -> bool:
    try:
        with claimed(PLACE):
            return False
    except MountError as error:
        return "about to mount" in error.what and error.hint.endswith(f"cafs status {PLACE}")


def test_who_claims_it_claims_it_alone_and_leaves_nothing(runtime: Path) -> None:
    with claimed(PLACE), claimed(PLACE.with_name("other")):
        assert refused()
        assert len(list(runtime.iterdir())) == 2
    assert list(runtime.iterdir()) == []
    assert not refused()


def test_who_inherits_the_descriptor_goes_on_claiming(runtime: Path) -> None:
    lock = live.lock_path(PLACE)
    held = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert refused()
    assert list(runtime.iterdir()) == [lock]
    os.close(held)
    assert not refused()


def test_a_file_that_its_owner_has_removed_meanwhile_claims_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock, flock = live.lock_path(PLACE), fcntl.flock
    tries: list[int] = []

    def late(descriptor: int, how: int) -> None:
        tries.append(descriptor)
        if len(tries) == 1:
            lock.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with claimed(PLACE) as claim:
        assert os.path.samestat(os.fstat(claim), lock.stat())
    assert len(tries) == 2


def test_however_many_try_there_is_one_at_a_time() -> None:
    inside, most = threading.Semaphore(1), []

    def enter(_number: int) -> None:
        try:
            with claimed(PLACE):
                most.append(inside.acquire(blocking=False))
                inside.release()
        except MountError:
            pass

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enter, range(400)))
    assert most
    assert all(most)
