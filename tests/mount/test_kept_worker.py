"""A worker as its keeper sees it; every message is written and read by the test.

Nothing is mounted. The test is the keeper: it sends requests, reads the replies late or not at all,
says who has gone, and goes itself.
"""

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from cafs.testing.fake_kernel import FakeKernel
from cafs.testing.fuse_wire import (
    InitIn,
    Opcode,
    Reply,
    Request,
    name_body,
    read_body,
)
from tests.mount.fuse_world import BIG, SLOW, STALLED, Levers

ROOT: Final = Path(__file__).parents[2]
HEARTBEAT: Final = 1 << 63
_WAIT_S: Final = 60.0


@dataclass
class Worker:
    """A running worker, and the ends of its sockets that a keeper would hold."""

    kernel: FakeKernel
    channel: socket.socket
    process: subprocess.Popen[str]
    levers: Levers
    log: Path

    def walk(self, path: str) -> int:
        """The inode of a path."""
        inode = 1
        for name in path.split("/"):
            reply = self.kernel.ask(Opcode.LOOKUP, name_body(name), nodeid=inode)
            assert reply.error == 0, path
            (inode,) = struct.unpack_from("=Q", reply.body)
        return inode

    def read(self, inode: int, offset: int = 0, size: int = 4096) -> Request:
        """Begin to read."""
        body = read_body(fh=inode, offset=offset, size=size)
        return self.kernel.send(Opcode.READ, body, nodeid=inode)

    def gone(self, request: Request) -> None:
        """Say that nobody waits for a request any more."""
        self.channel.send(b"G" + request.encode())

    def wait_until(self, stalled: int) -> None:
        """Wait until so many requests stall."""
        limit = time.monotonic() + _WAIT_S
        while self.levers.status()["stalled"] != stalled:
            assert time.monotonic() < limit

    def ended(self) -> str:
        """Wait until it has ended in order; what it said last."""
        assert self.process.wait(_WAIT_S) == 0, self.log.read_text()
        assert self.process.stdout is not None
        return self.process.stdout.read()


@contextmanager
def serving(tmp_path: Path, levers: Levers) -> Iterator[Worker]:
    """A worker that has answered INIT."""
    kernel = FakeKernel()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    requests = kernel.keepers_end.fileno()
    os.set_blocking(requests, False)
    log = tmp_path / "log"
    command = [sys.executable, "-m", "tests.mount.fuse_child", str(tmp_path)]
    command += [str(tmp_path / "store"), "--kept", "--levers", str(tmp_path)]
    command += ["--requests", str(requests), "--channel", str(theirs.fileno())]
    with log.open("a") as errors, Path(os.devnull).open("w") as word:
        process = subprocess.Popen(
            [*command, "--word", str(word.fileno())],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            pass_fds=[requests, theirs.fileno(), word.fileno()],
        )
    theirs.close()
    kernel.keepers_end.close()
    try:
        assert kernel.ask(Opcode.INIT, InitIn().encode()).error == 0
        yield Worker(kernel, ours, process, levers, log)
    finally:
        kernel.close()
        ours.close()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def levers(tmp_path: Path) -> Levers:
    return Levers(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker for all tests that leave it as it was."""
    directory = tmp_path_factory.mktemp("shared")
    with serving(directory, Levers(directory)) as found:
        yield found


@pytest.fixture
def worker(tmp_path: Path, levers: Levers) -> Iterator[Worker]:
    with serving(tmp_path, levers) as found:
        yield found


def test_requests_are_answered(shared: Worker) -> None:
    inode = shared.walk("ref/gcc/big")
    reply = shared.kernel.reply_to(shared.read(inode, 1 << 20, 128 << 10))
    assert (reply.error, reply.body) == (0, BIG[1 << 20 : (1 << 20) + (128 << 10)])
    assert shared.levers.status()["fuse.open"] == 0


def names_in(reply: Reply) -> list[bytes]:
    """The names that READDIRPLUS told."""
    names, at = [], 0
    while at < len(reply.body):
        # struct fuse_direntplus: an entry of 128 bytes, then ino, off, namelen, type, name.
        (length,) = struct.unpack_from("=I", reply.body, at + 128 + 16)
        start = at + 128 + 24
        names.append(reply.body[start : start + length])
        at = start + (length + 7) // 8 * 8
    return names


def test_a_ref_is_listed_though_nobody_opens_directories(shared: Worker) -> None:
    inode = shared.walk("ref/gcc")
    body = read_body(fh=inode, size=4096)
    reply = shared.kernel.ask(Opcode.READDIRPLUS, body, nodeid=inode)
    assert reply.error == 0
    assert names_in(reply) == [
        b".",
        b"..",
        b"big",
        b"bin",
        b"empty",
        b"many",
        b"noted",
        b"sparse",
        b"su",
    ]


@pytest.mark.parametrize(
    ("name", "number"), [("broken", errno.EHOSTUNREACH), ("missing", errno.ENXIO)]
)
def test_a_listing_that_fails_does_not_look_like_its_end(
    shared: Worker, name: str, number: int
) -> None:
    inode = shared.walk(f"ref/{name}")
    reply = shared.kernel.ask(Opcode.READDIRPLUS, read_body(fh=inode), nodeid=inode)
    assert reply.error == number


def test_no_reply_is_lost_while_the_keeper_is_slow(shared: Worker) -> None:
    inode = shared.walk("ref/gcc/big")
    before = shared.levers.status()["fuse.read"]
    sent: list[Request] = []
    for number in range(300):
        request = shared.kernel.make(
            Opcode.READ,
            read_body(fh=inode, offset=number * 8192, size=128 << 10),
            nodeid=inode,
        )
        limit = time.monotonic() + _WAIT_S
        while not shared.kernel.push(request):
            # Both directions are full: the worker waits for room, and must not give up.
            assert time.monotonic() < limit
            sent.remove(_take(shared, sent))
        sent.append(request)
    while sent:
        sent.remove(_take(shared, sent))
    assert shared.kernel.unanswered == ()
    assert shared.levers.status()["fuse.read"] - before == 300


def _take(worker: Worker, sent: list[Request]) -> Request:
    """Take one reply, which is right; its request."""
    reply = worker.kernel.receive()
    (request,) = (each for each in sent if each.unique == reply.unique)
    _, offset, size = struct.unpack_from("=QQI", request.body)
    assert (reply.error, reply.body) == (0, BIG[offset : offset + size])
    return request


def test_a_heartbeat_is_answered_whatever_stalls_and_is_not_counted(worker: Worker) -> None:
    worker.levers.stall()
    inode = worker.walk("ref/file-stalled")
    for _ in range(500):
        worker.read(inode)
    beat = Request(Opcode.STATFS, HEARTBEAT | 2)
    limit = time.monotonic() + _WAIT_S
    while not worker.kernel.push(beat):
        assert time.monotonic() < limit
    assert worker.kernel.reply_to(beat, _WAIT_S).error == 0
    assert worker.levers.status()["fuse.statfs"] == 0
    assert worker.kernel.ask(Opcode.STATFS).error == 0
    assert worker.levers.status()["fuse.statfs"] == 1


def test_who_has_gone_is_dropped_and_nobody_else(worker: Worker) -> None:
    worker.levers.stall()
    inode = worker.walk("ref/file-stalled")
    parent = worker.walk("ref/gcc")
    looking = worker.kernel.send(Opcode.LOOKUP, name_body(STALLED + b"bin"), nodeid=parent)
    first, second, third = (worker.read(inode, 0), worker.read(inode, 0), worker.read(inode, 4096))
    worker.wait_until(stalled=4)
    worker.gone(looking)
    assert worker.kernel.reply_to(looking).error == errno.EINTR
    worker.gone(first)
    worker.gone(third)
    assert worker.kernel.reply_to(third).error == errno.EINTR
    # One of the two that ask the same is still waited for; it cannot be known which.
    assert worker.levers.status()["stalled"] == 2
    worker.levers.go_on()
    for request in (first, second):
        assert worker.kernel.reply_to(request).body == SLOW[:4096]


def test_the_next_worker_knows_the_inodes_of_the_last(tmp_path: Path, levers: Levers) -> None:
    paths = ["ref/gcc/bin/cc", "ref/file-stalled", "ref/gcc/many/0999"]
    with serving(tmp_path, levers) as worker:
        before = [worker.walk(path) for path in paths]
        message, leases, _, _ = socket.recv_fds(worker.channel, 16, 2)
        assert (message, len(leases)) == (b"L", 1)
        worker.process.kill()
    with serving(tmp_path, levers) as worker:
        reply = worker.kernel.reply_to(worker.read(before[0]))
        assert reply.body == b"#!cc"
        assert [worker.walk(path) for path in paths] == before
    for lease in leases:
        os.close(lease)


def test_a_worker_ends_with_its_keeper_and_says_no_more_than_that(worker: Worker) -> None:
    worker.levers.stall()
    worker.read(worker.walk("ref/file-stalled"))
    worker.wait_until(stalled=1)
    worker.kernel.close()
    worker.channel.close()
    assert worker.ended().endswith("ended\n")
    # libfuse has a line of its own for the end of a socket, in one of two wordings.
    said = worker.log.read_text().splitlines()
    assert all("short" in line and "fuse device" in line for line in said)


def test_a_worker_ends_when_only_the_requests_end(worker: Worker) -> None:
    worker.kernel.close()
    assert worker.ended().endswith("ended\n")


def test_a_worker_ends_when_only_the_channel_ends(worker: Worker) -> None:
    worker.walk("ref/gcc/bin")
    worker.channel.close()
    assert worker.ended().endswith("ended\n")


def test_the_end_of_the_mount_is_heard_before_the_signal_to_end(worker: Worker) -> None:
    worker.walk("ref/gcc/bin")
    worker.channel.send(b"E")
    assert worker.process.stdout is not None
    assert worker.process.stdout.readline() == "ready\n"
    assert worker.process.stdout.readline() == "over\n"
    worker.process.send_signal(signal.SIGTERM)
    assert worker.ended() == "ended\n"
    assert worker.log.read_text() == ""


def test_a_worker_that_is_to_end_answers_what_it_can(worker: Worker) -> None:
    worker.levers.stall()
    reading = worker.read(worker.walk("ref/file-stalled"))
    worker.wait_until(stalled=1)
    worker.process.send_signal(signal.SIGTERM)
    worker.levers.go_on()
    assert worker.kernel.reply_to(reading).body == SLOW[:4096]
    assert worker.ended().endswith("ended\n")
