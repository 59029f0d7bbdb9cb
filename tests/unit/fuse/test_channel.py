"""The channel: what a keeper says is heard, and a lease is lent."""

import os
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs.fuse.channel import open_channel
from cafs.fuse.interests import Key, key_of


class Heard:
    """What a worker heard, in order."""

    def __init__(self) -> None:
        self.said: list[bytes | None] = []

    def gone(self, request: bytes) -> None:
        self.said.append(request)

    def end(self) -> None:
        self.said.append(None)


def pair() -> tuple[socket.socket, int]:
    """The keeper's end, and the worker's as a descriptor that is to be taken over."""
    keeper, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return keeper, worker.detach()


async def test_what_the_keeper_says_is_heard_in_order_until_it_goes() -> None:
    keeper, fd = pair()
    heard = Heard()
    with keeper:
        keeper.send(b"G" + b"a request")
        keeper.send(b"G")
        keeper.send(b"E")
    async with open_channel(fd) as channel:
        with trio.fail_after(60):
            await channel.listen(heard.gone, heard.end)
    assert heard.said == [b"a request", b"", None]


async def test_messages_that_come_while_listening_are_heard() -> None:
    keeper, fd = pair()
    heard = Heard()
    async with open_channel(fd) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(channel.listen, heard.gone, heard.end)
        await wait_all_tasks_blocked()
        keeper.send(b"Ga")
        await wait_all_tasks_blocked()
        assert heard.said == [b"a"]
        keeper.close()


@pytest.mark.expects_log("fuse.channel.unknown")
async def test_what_cannot_be_understood_is_told_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper, fd = pair()
    with keeper:
        keeper.send(b"?")
        keeper.send(b"Gno request")
        keeper.send(b"E")
    ended: list[bool] = []
    told: list[Key | None] = []
    async with open_channel(fd) as channel:
        await channel.listen(
            lambda request: told.append(key_of(request)), lambda: ended.append(True)
        )
    assert (ended, told) == ([True], [])
    assert [record.getMessage() for record in caplog.records] == [
        "fuse.channel.unknown: a message of the kind b'?'",
        "fuse.channel.unknown: half a request: b'no request'",
    ]


async def test_a_lease_is_lent_and_stays_the_lenders(tmp_path: Path) -> None:
    keeper, fd = pair()
    lease = tmp_path / "lease"
    lease.write_text("held")
    with keeper, lease.open() as held:
        async with open_channel(fd) as channel:
            await channel.lend(held.fileno())
        message, (lent, *more), _, _ = socket.recv_fds(keeper, 4096, 2)
        assert (message, more) == (b"L", [])
        assert os.fstat(lent).st_ino == os.fstat(held.fileno()).st_ino
        os.close(lent)
        assert keeper.recv(4096) == b""


async def test_lending_to_a_keeper_that_has_gone_fails() -> None:
    keeper, fd = pair()
    keeper.close()
    async with open_channel(fd) as channel:
        with pytest.raises(BrokenPipeError):
            await channel.lend(0)


async def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="socket"):
        async with open_channel(os.dup(file.fileno())):
            raise AssertionError
