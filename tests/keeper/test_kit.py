"""The kit itself: its numbers are the header's, and it notices what a kernel would not accept."""

import errno
import fcntl
import os
import re
import socket
from contextlib import closing
from enum import IntEnum
from pathlib import Path

import pytest

from cafs.testing.fake_kernel import FakeKernel
from cafs.testing.fuse_wire import (
    IN_HEADER,
    OUT_HEADER,
    Flag,
    InitIn,
    InitOut,
    MalformedMessageError,
    Notice,
    Opcode,
    Reply,
    Request,
    handle_of,
    read_body,
)
from cafs.testing.hand_worker import Ending, HandWorkers
from tests.conftest import lacking

HEADER = Path("/usr/include/linux/fuse.h")


@pytest.fixture
def header() -> str:
    if not HEADER.exists():
        lacking(str(HEADER))
    return HEADER.read_text()


@pytest.mark.parametrize(
    ("kind", "prefix"), [(Opcode, "FUSE_"), (Notice, "FUSE_NOTIFY_")], ids=["opcodes", "notices"]
)
def test_numbers_are_those_of_the_header(header: str, kind: type[IntEnum], prefix: str) -> None:
    found = dict(re.findall(rf"^\t{prefix}([A-Z0-9_]+)\s*= (\d+),", header, re.MULTILINE))
    assert {item.name: item.value for item in kind}.items() <= {
        name: int(value) for name, value in found.items()
    }.items()


def test_flags_are_those_of_the_header(header: str) -> None:
    found = re.findall(r"^#define FUSE_(\w+)\s+\((1(?:ULL)?) << (\d+)\)", header, re.MULTILINE)
    bits = {name: 1 << int(bit) for name, _, bit in found}
    bits["IOCTL_DIR"] = bits.pop("HAS_IOCTL_DIR")
    same = [flag for flag in Flag if flag.name in bits]
    assert len(same) > 30
    assert [flag.value for flag in same] == [bits[str(flag.name)] for flag in same]


def test_messages_have_the_kernels_lengths() -> None:
    assert (IN_HEADER.size, OUT_HEADER.size) == (40, 16)
    assert (len(InitIn().encode()), len(InitOut().encode())) == (64, 64)
    assert len(read_body()) == 40


def test_what_is_written_is_read_again() -> None:
    request = Request(Opcode.READ, 6, 7, read_body(fh=3, offset=4, size=5), 8, 9, 10)
    assert Request.decode(request.encode()) == request
    assert handle_of(request.body) == 3
    for reply in (Reply(2, 0, b"body"), Reply(2, errno.EIO)):
        assert Reply.decode(reply.encode()) == reply
    notice = Reply.pack(0, Notice.DELETE, b"body")
    assert Reply.decode(notice) == Reply(0, Notice.DELETE, b"body")
    offer = InitIn(minor=1, max_readahead=2, flags=Flag.SECURITY_CTX | Flag.ASYNC_READ)
    assert InitIn.decode(offer.encode()) == offer
    answer = InitOut(max_background=1, congestion_threshold=2, max_pages=3, map_alignment=4)
    assert InitOut.decode(answer.encode()) == answer


@pytest.mark.parametrize(
    "message",
    [
        b"",
        bytes(15),
        Reply.pack(2, 0, b"body", length=16),
        Reply.pack(2, 0, b"", length=20),
        Reply.pack(2, 5),
        Reply.pack(2, -512),
        Reply.pack(2, -5, b"body"),
    ],
    ids=["empty", "short", "less", "more", "positive", "far", "data"],
)
def test_a_reply_that_linux_refuses_is_refused(message: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        Reply.decode(message)


def test_the_kernel_accepts_one_reply_to_each_request() -> None:
    kernel = FakeKernel()
    with closing(kernel), closing(kernel.keepers_end):
        request = kernel.send(Opcode.GETATTR)
        assert Request.decode(kernel.keepers_end.recv(100)) == request
        assert kernel.unanswered == (request,)
        kernel.keepers_end.send(Reply(request.unique).encode())
        assert kernel.reply_to(request) == Reply(request.unique)
        kernel.keepers_end.send(Reply(request.unique).encode())
        with pytest.raises(AssertionError, match="nobody waits"):
            kernel.receive()


def test_the_kernel_keeps_replies_for_their_askers_and_notices_apart() -> None:
    kernel = FakeKernel()
    with closing(kernel), closing(kernel.keepers_end):
        first, second = kernel.send(Opcode.GETATTR), kernel.send(Opcode.GETATTR)
        for message in (Reply(second.unique, 2), Reply(first.unique, 1)):
            kernel.keepers_end.send(message.encode())
        kernel.keepers_end.send(Reply.pack(0, Notice.INVAL_INODE, bytes(24)))
        assert kernel.reply_to(first).error == 1
        assert kernel.reply_to(second).error == 2
        assert kernel.notice().error == Notice.INVAL_INODE
        with pytest.raises(TimeoutError):
            kernel.receive(0.0)


def test_the_kernel_says_when_it_cannot_send() -> None:
    kernel = FakeKernel()
    with closing(kernel), closing(kernel.keepers_end):
        count = 0
        while kernel.push(kernel.make(Opcode.FORGET, bytes(8))):
            count += 1
        assert count > 10
        assert kernel.unanswered == ()


def test_a_worker_that_is_killed_closes_its_sockets() -> None:
    workers = HandWorkers()
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    pid = os.fork()
    if pid == 0:
        # First out of the way of 3 and 4, then there.
        high = [fcntl.fcntl(theirs, fcntl.F_DUPFD, 100) for _, theirs in pairs]
        for number, descriptor in enumerate([*high, 2], start=3):
            os.dup2(descriptor, number)
        os.execv(workers.command[0], list(workers.command))  # noqa: S606 - nothing to quote
    for _, theirs in pairs:
        theirs.close()
    worker = workers.next()
    ending = Ending(pid)
    assert worker.pid == pid
    assert not ending.has_come()
    worker.send(b"hello")
    assert pairs[0][0].recv(100) == b"hello"
    worker.kill()
    assert ending.has_come()
    assert [ours.recv(100) for ours, _ in pairs] == [b"", b""]
    for ours, _ in pairs:
        ours.close()
    ending.close()
    workers.close()
    os.waitpid(pid, 0)
