"""Answers that libfuse could not send are asked for again."""

import logging
import os
import socket
import struct

import pytest
import trio
from trio.testing import MockClock

from cafs.fuse.channel import open_channel
from cafs.fuse.losses import answering, recovered

THEIRS = logging.getLogger("pyfuse3")
CONTENT = "fuse_read(): fuse_reply_* failed with %s"
NAMES = "fuse_readdirplus(): fuse_reply_* failed with %s"


def heard(keeper: socket.socket) -> list[tuple[bytes, int, int]]:
    """What the worker has said on its channel."""
    found = []
    while message := keeper.recv(4096):
        found.append(struct.unpack("=cQQ", message))
    return found


async def answer(node: int, offset: int, lines: list[str]) -> None:
    """A task that answers a request, of which pyfuse3 logs these lines."""
    answering(node, offset)
    await trio.lowlevel.checkpoint()
    for line in lines:
        THEIRS.error(line, "No buffer space available")


@pytest.mark.expects_log("fuse_read")
async def test_each_task_loses_its_own_answer(autojump_clock: MockClock) -> None:
    keeper, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    others = ["fuse_readlink(): fuse_reply_* failed with %s", "fuse_read is well: %s"]
    with keeper:
        async with open_channel(worker.detach()) as channel, trio.open_nursery() as nursery:
            with recovered(channel, nursery):
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(answer, 7, 2**40, [CONTENT])
                    tasks.start_soon(answer, 2**64 - 1, 3, [NAMES])
                    tasks.start_soon(answer, 8, 0, others)
            THEIRS.error(CONTENT, "nobody listens any more")
        assert sorted(heard(keeper)) == [(b"A", 7, 2**40), (b"A", 2**64 - 1, 3)]


@pytest.mark.expects_log("fuse_read")
async def test_a_keeper_that_has_gone_is_told_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    keeper, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caplog.set_level(logging.DEBUG, "cafs.fuse")
    async with open_channel(worker.detach()) as channel, trio.open_nursery() as nursery:
        with recovered(channel, nursery):
            keeper.close()
            await answer(1, 2, [CONTENT])
    (record,) = [each for each in caplog.records if each.name == "cafs.fuse"]
    assert record.getMessage() == f"fuse.losses.unheard: [Errno 32] {os.strerror(32)}"
