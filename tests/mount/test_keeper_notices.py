"""Notifications to a real kernel that holds them up: requests go through meanwhile.

The kernel lets a notification wait for the locks that a lookup or a read under way has, and these
go when their replies come. So a keeper that wrote notifications where it writes replies would wait
for itself. The worker is played here, step by step.
"""

import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

import pytest
from typing_extensions import override

from cafs.testing.fuse_wire import (
    Flag,
    InitOut,
    Notice,
    Opcode,
    Request,
    delete_body,
    inval_entry_body,
    inval_inode_body,
)
from cafs.testing.hand_worker import DEADLINE_S, HandWorker
from cafs.testing.keeping import RunningKeeper, find_keeper, running_keeper
from tests.conftest import lacking

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="mount(2) is for root"),
]

Result = TypeVar("Result")
MS_RDONLY_NOSUID_NODEV: Final = 1 | 2 | 4
MNT_FORCE_DETACH: Final = 1 | 2
CONTENT: Final = b"content\n"
NODES: Final = {b"slow": 2, b"fast": 3, b"other": 4, b"child": 5}
YEAR_S: Final = 31_536_000
ANSWER: Final = InitOut(flags=Flag.ASYNC_READ | Flag.MAX_PAGES | Flag.NO_OPEN_SUPPORT)


def attributes(node: int) -> bytes:
    """struct fuse_attr."""
    mode, size = (0o040755, 0) if node == 1 else (0o100644, len(CONTENT))
    return struct.pack("=6Q10I", node, size, 1, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def entry(node: int) -> bytes:
    """struct fuse_entry_out, good for a year."""
    return struct.pack("=QQQQII", node, 0, YEAR_S, YEAR_S, 0, 0) + attributes(node)


def answer(worker: HandWorker, request: Request) -> None:
    """Answer what nobody holds up."""
    match request.opcode:
        case Opcode.LOOKUP:
            worker.reply(request, entry(NODES[request.body[:-1]]))
        case Opcode.GETATTR:
            worker.reply(request, struct.pack("=QII", YEAR_S, 0, 0) + attributes(request.nodeid))
        case Opcode.READ:
            worker.reply(request, CONTENT)
        case _:
            raise AssertionError(f"not expected: {request}")


class Doing(threading.Thread, Generic[Result]):
    """Something that a reader does in a thread of its own; when it fails there is no result."""

    def __init__(self, act: Callable[[], Result]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._found: Result | None = None
        self.start()

    @override
    def run(self) -> None:
        with suppress(OSError):
            self._found = self._act()

    def served_by(self, worker: HandWorker) -> Result:
        """Its result, while the worker answers."""
        limit = time.monotonic() + DEADLINE_S
        while self.is_alive() and time.monotonic() < limit:
            for request in worker.waiting():
                answer(worker, request)
            self.join(0.005)
        assert not self.is_alive()
        assert self._found is not None
        return self._found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors that are closed once the mount has gone: to close one asks the keeper."""
    found: list[int] = []
    yield found
    for fd in found:
        with suppress(OSError):  # it is closed, though nobody is there who could be told
            os.close(fd)


@pytest.fixture
def keeper(opened: list[int], tmp_path: Path, place: Path) -> Iterator[RunningKeeper]:
    """A keeper on a real mount."""
    program = find_keeper()
    if program is None:
        lacking("cafs-keeper")
        raise AssertionError
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    words = (b"test", os.fsencode(place), b"fuse.test", MS_RDONLY_NOSUID_NODEV, options.encode())
    assert libc.mount(*words) == 0, os.strerror(ctypes.get_errno())
    with running_keeper(program, tmp_path, device=device) as running:
        os.close(device)
        try:
            yield running
        finally:
            # By force: a keeper that waits for its own reply could not even be killed. By the call:
            # a child would close the descriptors that it inherits, and ask that keeper.
            assert libc.umount2(os.fsencode(place), MNT_FORCE_DETACH) == 0


def held(worker: HandWorker, opcode: int) -> Request:
    """The next request of a kind, which stays unanswered; others are answered."""
    while (request := worker.receive()).opcode != opcode:
        answer(worker, request)
    return request


def test_both_kinds_of_invalidation_freeze_nothing_while_a_lookup_and_a_read_are_stalled(
    keeper: RunningKeeper, place: Path, opened: list[int]
) -> None:
    worker = keeper.workers.next()
    worker.begin(ANSWER)
    openings = [Doing(partial(os.open, place / name, os.O_RDONLY)) for name in ("fast", "other")]
    opened += [opening.served_by(worker) for opening in openings]
    fast, other = opened
    stat = Doing(lambda: os.stat(place / "slow"))
    lookup = held(worker, Opcode.LOOKUP)
    read = Doing(lambda: os.pread(fast, 4096, 0))
    reading = held(worker, Opcode.READ)
    for name in ("slow", "fast"):
        worker.notify(Notice.INVAL_ENTRY, inval_entry_body(1, name))
    worker.notify(Notice.INVAL_INODE, inval_inode_body(NODES[b"fast"]))
    worker.notify(Notice.DELETE, delete_body(1, NODES[b"child"], "child"))
    # The kernel holds the first of them, and everything else goes on.
    assert Doing(lambda: os.pread(other, 4096, 0)).served_by(worker) == CONTENT
    assert keeper.status().waiting == 2
    assert stat.is_alive()
    assert read.is_alive()
    worker.reply(lookup, entry(NODES[b"slow"]))
    worker.reply(reading, CONTENT)
    assert stat.served_by(worker).st_size == len(CONTENT)
    assert read.served_by(worker) == CONTENT
    keeper.wait_until(lambda now: now.notices == 4 and now.waiting == 0)
    assert keeper.status().notices_dropped == 0


def test_what_was_invalidated_is_asked_for_again(keeper: RunningKeeper, place: Path) -> None:
    worker = keeper.workers.next()
    worker.begin(ANSWER)

    def read() -> bytes:
        return (place / "fast").read_bytes()

    def asked(act: Callable[[], bytes]) -> int:
        before = keeper.status().relayed
        Doing(act).served_by(worker)
        return keeper.status().relayed - before

    assert asked(read) > 0
    assert asked(read) == 0
    worker.notify(Notice.INVAL_INODE, inval_inode_body(NODES[b"fast"]))
    keeper.wait_until(lambda now: now.notices == 1)
    assert asked(read) > 0
    assert asked(read) == 0
    worker.notify(Notice.INVAL_ENTRY, inval_entry_body(1, "fast"))
    keeper.wait_until(lambda now: now.notices == 2)
    assert asked(read) > 0
