"""The keeper between Linux itself and a worker that is played by hand: what only a kernel can show.

The mount is made here and given to the keeper by its descriptor. Nothing in this process touches
the mount point, since the answer would have to come from this very thread.
"""

import ctypes
import errno
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import (
    InitOut,
    Notice,
    Opcode,
    Request,
    attr_body,
    entry_body,
    inval_entry_body,
    inval_inode_body,
)
from cafs.testing.hand_worker import Ending, HandWorker, readable
from cafs.testing.keeping import RunningKeeper

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="mount(2) wants root"),
]

NOSUID_NODEV = 2 | 4
DETACH = 2
ROOT, FILE = 1, 2
SIZE = 1 << 20
CONTENT = bytes(i % 253 for i in range(4096)) * (SIZE // 4096)
GONE_S = 9.0
"""A second, and what a busy machine needs; a worker that owes an answer is left alone for ten."""
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(device: int, point: Path) -> None:
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,max_read=262144"
    if LIBC.mount(b"test", bytes(point), b"fuse.cafs", NOSUID_NODEV, data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {point}")


@dataclass
class World:
    """A mount with one file, its keeper, and its worker."""

    keeper: RunningKeeper
    worker: HandWorker
    point: Path

    def answer(self, request: Request) -> None:
        match request.opcode:
            case Opcode.GETATTR if request.nodeid == ROOT:
                self.worker.reply(request, attr_body(ROOT, stat.S_IFDIR | 0o755, 0))
            case Opcode.GETATTR:
                self.worker.reply(request, attr_body(FILE, stat.S_IFREG | 0o644, SIZE))
            case Opcode.LOOKUP if request.body == b"file\0":
                self.worker.reply(request, entry_body(FILE, stat.S_IFREG | 0o644, SIZE))
            case Opcode.READ:
                at = int.from_bytes(request.body[8:16], sys.byteorder)
                size = int.from_bytes(request.body[16:20], sys.byteorder)
                self.worker.reply(request, CONTENT[at : at + size])
            case _:
                self.worker.reply(request, error=errno.ENOSYS)

    def until(self, opcode: Opcode) -> Request:
        """Answer whatever comes before the first of these, which is left unanswered."""
        while (request := self.worker.receive()).opcode != opcode:
            self.answer(request)
        return request

    def serve(self, process: "subprocess.Popen[bytes]") -> None:
        """Answer everything until a process has ended."""
        ending = Ending(process.pid)
        while not ending.has_come(0.01):
            for request in self.worker.waiting():
                self.answer(request)
        ending.close()


@contextmanager
def mounted(program: Path, directory: Path) -> Iterator[World]:
    point = directory / "mount"
    point.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount(device, point)
        with RunningKeeper(program, directory, device=device) as keeper:
            os.close(device)
            device = -1
            try:
                worker = keeper.workers.next()
                worker.begin(InitOut())
                yield World(keeper, worker, point)
            finally:
                LIBC.umount2(bytes(point), DETACH)
    finally:
        if device >= 0:
            os.close(device)
            LIBC.umount2(bytes(point), DETACH)


@pytest.fixture
def world(program: Path, tmp_path: Path, fuse: None) -> Iterator[World]:
    with mounted(program, tmp_path) as made:
        yield made


@contextmanager
def running(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ends(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    ending = Ending(process.pid)
    try:
        return ending.has_come(timeout_s)
    finally:
        ending.close()


MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[500_000]
"""
READERS: dict[str, tuple[Sequence[str], Opcode]] = {
    "read": (["cat"], Opcode.READ),
    "fault": ([sys.executable, "-I", "-S", "-c", MAPPED], Opcode.READ),
    "stat": (["stat"], Opcode.LOOKUP),
}


def test_a_file_is_read_whole_and_its_opening_costs_no_message(world: World) -> None:
    with running("cat", str(world.point / "file")) as process:
        seen: list[Request] = []
        while not seen or seen[-1].opcode != Opcode.READ:
            seen.append(world.worker.receive())
            world.answer(seen[-1])
        assert Opcode.OPEN not in {request.opcode for request in seen}
        out = b""
        assert process.stdout is not None
        while len(out) < SIZE:
            for request in world.worker.waiting():
                world.answer(request)
            if readable(process.stdout.fileno(), 0.01):
                out += os.read(process.stdout.fileno(), SIZE)
        assert out == CONTENT


@pytest.mark.parametrize("kind", READERS)
def test_a_reader_that_is_killed_is_gone_soon_and_the_worker_told(world: World, kind: str) -> None:
    command, opcode = READERS[kind]
    with running(*command, str(world.point / "file")) as process:
        request = world.until(opcode)
        process.kill()
        began = time.monotonic()
        assert ends(process, GONE_S)
        assert time.monotonic() - began < GONE_S
        # It is told of each request of the reader, in any order; told() has its limit.
        while world.worker.told() != b"G" + request.encode():
            pass
    # Its late answer harms nobody, and the file can be read by others.
    world.answer(request)
    with running("cat", str(world.point / "file")) as process:
        reader = Ending(process.pid)
        assert process.stdout is not None
        while not reader.has_come(0.0):
            for other in world.worker.waiting():
                world.answer(other)
            if readable(process.stdout.fileno(), 0.01):
                os.read(process.stdout.fileno(), SIZE)
        reader.close()
        assert process.wait() == 0


def test_a_reader_killed_after_another_signal_is_gone_soon(world: World) -> None:
    with running("cat", str(world.point / "file")) as process:
        world.until(Opcode.READ)
        process.send_signal(signal.SIGURG)
        process.send_signal(signal.SIGCONT)
        process.kill()
        began = time.monotonic()
        assert ends(process, GONE_S)
        assert time.monotonic() - began < GONE_S


SIGNALLED = """
import os, signal, sys
signal.signal(signal.SIGURG, lambda *_: None)
signal.siginterrupt(signal.SIGURG, True)
print("ready", flush=True)
file = os.open(sys.argv[1], os.O_RDONLY)
try:
    data = os.pread(file, 4096, 0)
except InterruptedError:
    sys.exit(3)
sys.exit(0 if len(data) == 4096 else 4)
"""


def test_a_reader_that_gets_many_other_signals_reads_on(world: World) -> None:
    command = [sys.executable, "-I", "-S", "-c", SIGNALLED, str(world.point / "file")]
    with running(*command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        request = world.until(Opcode.READ)
        for _ in range(1000):
            process.send_signal(signal.SIGURG)
        assert not ends(process, 0.7)
        world.answer(request)
        world.serve(process)
        assert process.wait() == 0


def test_a_worker_that_dies_under_a_reader_costs_him_nothing(world: World) -> None:
    world.keeper.expect_log("worker")
    with running("cmp", "-n", "4096", str(world.point / "file"), "/dev/zero") as process:
        request = world.until(Opcode.READ)
        world.worker.kill()
        world.worker = world.keeper.workers.next()
        world.worker.take_over(InitOut())
        assert world.worker.receive() == request
        world.answer(request)
        world.serve(process)
        out, _ = process.communicate()
        assert re.search(rb"differ: byte 2,", out)


@pytest.mark.parametrize("opcode", [Opcode.LOOKUP, Opcode.READ], ids=lambda opcode: opcode.name)
def test_invalidations_while_a_request_stalls_freeze_nothing(world: World, opcode: Opcode) -> None:
    with running("cat", str(world.point / "file")) as process:
        request = world.until(opcode)
        for _ in range(10):
            world.worker.notify(Notice.INVAL_ENTRY, inval_entry_body(ROOT, "file"))
            world.worker.notify(Notice.INVAL_INODE, inval_inode_body(FILE))
            world.worker.notify(Notice.INVAL_INODE, inval_inode_body(ROOT))
        with running("stat", "-f", str(world.point)) as other:
            world.answer(world.until(Opcode.STATFS))
            assert ends(other, GONE_S)
        assert world.keeper.status().notices == 30
        world.answer(request)
        out = b""
        assert process.stdout is not None
        while len(out) < SIZE:
            for later in world.worker.waiting():
                world.answer(later)
            if readable(process.stdout.fileno(), 0.01):
                out += os.read(process.stdout.fileno(), SIZE)
        assert out == CONTENT


def test_access_lists_do_no_harm(world: World) -> None:
    """INIT says POSIX_ACL, so that the kernel remembers that there is none."""
    with running("ls", "-l", "--color=never", str(world.point / "file")) as process:
        world.serve(process)
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.startswith(b"-rw-r--r-- 1 ")


def test_an_unmount_ends_keeper_and_worker(world: World) -> None:
    assert LIBC.umount2(bytes(world.point), 0) == 0
    assert world.worker.told() == b"E"
    world.worker.wait()
    assert world.keeper.wait() == 0
    assert not world.keeper.live.exists()
