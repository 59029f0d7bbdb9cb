"""The lease of a mount: a locked file that the keeper holds for as long as the mount lives."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import Opcode, Reply
from cafs.testing.hand_worker import HandWorker
from cafs.testing.keeping import RunningKeeper


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor of a file that is locked by it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def is_held(keeper: RunningKeeper, path: Path) -> bool:
    links = Path(f"/proc/{keeper.pid}/fd").iterdir()
    return str(path) in map(os.readlink, links)


def settle(keeper: RunningKeeper, worker: HandWorker) -> None:
    """Return once the keeper has handled what lay on the channel."""
    for _ in range(2):
        request = keeper.kernel.send(Opcode.GETATTR)
        worker.receive()
        worker.reply(request)
        keeper.kernel.reply_to(request)


def test_a_lease_stays_locked_when_the_worker_that_took_it_dies(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path
) -> None:
    keeper.expect_log("worker")
    path = tmp_path / "lease"
    with locked(path) as descriptor:
        worker.lease(descriptor)
    settle(keeper, worker)
    worker.kill()
    second = keeper.workers.next()
    second.take_over()
    assert is_locked(path)
    settle(keeper, second)
    keeper.kernel.close()
    assert keeper.wait() == 0
    assert not is_locked(path)


def test_a_later_lease_replaces_the_former(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path
) -> None:
    settle(keeper, worker)
    before = keeper.open_files()
    for name in ("first", "second", "third"):
        with locked(tmp_path / name) as descriptor:
            worker.lease(descriptor)
    settle(keeper, worker)
    assert [is_locked(tmp_path / name) for name in ("first", "second", "third")] == [
        False,
        False,
        True,
    ]
    assert keeper.open_files() == before + 1


def test_the_same_lease_again_is_never_free_in_between(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path
) -> None:
    path = tmp_path / "lease"
    settle(keeper, worker)
    before = keeper.open_files()
    with locked(path) as descriptor:
        for _ in range(50):
            worker.lease(descriptor)
    for _ in range(20):
        assert is_locked(path)
    settle(keeper, worker)
    assert is_locked(path)
    assert keeper.open_files() == before + 1


@pytest.mark.parametrize("count", [0, 2, 3, 16, 253])
def test_a_lease_without_exactly_one_descriptor_is_refused_and_leaks_nothing(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path, count: int
) -> None:
    keeper.expect_log("lease|channel|worker")
    path = tmp_path / "lease"
    with locked(path) as descriptor:
        worker.lease(descriptor)
        settle(keeper, worker)
        before = keeper.open_files()
        with locked(tmp_path / "other") as other:
            worker.lease(*[other] * count)
    keeper.wait_for_log("lease|channel|worker")
    settle(keeper, worker)
    assert keeper.open_files() == before
    assert is_locked(path)
    assert not is_locked(tmp_path / "other")


def test_other_messages_with_descriptors_leak_nothing(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path
) -> None:
    keeper.expect_log("lease|channel|worker")
    settle(keeper, worker)
    before = keeper.open_files()
    with locked(tmp_path / "other") as other:
        for text in (b"X", b"LL", b"L" * 100, b"E", b"A", bytes(17), b"A" * 16, b"A" * 18):
            worker.lease(other, other, other, text=text)
    keeper.wait_for_log("lease|channel|worker")
    settle(keeper, worker)
    assert keeper.open_files() == before
    assert not is_locked(tmp_path / "other")


def test_a_descriptor_with_an_empty_message_leaks_nothing(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path
) -> None:
    settle(keeper, worker)
    with locked(tmp_path / "other") as other:
        worker.lease(other, text=b"")
    # It looks like the end of the channel, which the keeper then closes.
    assert worker.told() == b""
    settle(keeper, worker)
    assert not is_locked(tmp_path / "other")


def test_descriptors_among_replies_leak_nothing(
    keeper: RunningKeeper, worker: HandWorker, tmp_path: Path
) -> None:
    settle(keeper, worker)
    before = keeper.open_files()
    with locked(tmp_path / "other") as other:
        request = keeper.kernel.send(Opcode.GETATTR)
        worker.receive()
        socket.send_fds(worker.requests, [Reply(request.unique).encode()], [other])
        assert keeper.kernel.reply_to(request).error == 0
    settle(keeper, worker)
    assert keeper.open_files() == before
    assert not is_locked(tmp_path / "other")


def test_workers_that_come_and_go_leak_nothing(keeper: RunningKeeper, worker: HandWorker) -> None:
    settle(keeper, worker)
    before = keeper.open_files()
    for _ in range(10):
        old = worker
        worker = keeper.reload()
        old.wait()
    settle(keeper, worker)
    keeper.wait_until(lambda status: keeper.open_files() <= before + 1)
    # The connection that asks is one.
    assert keeper.open_files() <= before + 1
