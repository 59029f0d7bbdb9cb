"""Requests that nobody waits for any more are dropped, and no others."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs.fuse.interests import Interests, Key, key_of
from cafs.testing.fuse_wire import Opcode, Request, name_body, read_body

READ: Key = ("read", 7, 4096, 512)


def reading(unique: int = 1) -> bytes:
    """The request whose key is ``READ``, as the keeper relays it."""
    return Request(Opcode.READ, unique, 7, read_body(fh=7, offset=4096, size=512)).encode()


@dataclass
class Desk:
    """Interests, and the socket that their requests come from."""

    keeper: socket.socket
    worker: socket.socket
    interests: Interests
    dropped: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)

    async def ask(self, name: str, key: Key = READ, done: trio.Event | None = None) -> None:
        """A request under way: answered when ``done``, unless it is dropped."""
        scope = self.interests.begin(key)
        try:
            with scope:
                await (trio.Event() if done is None else done).wait()
                self.answered.append(name)
        finally:
            self.interests.end(key, scope)
        if scope.cancelled_caught:
            self.dropped.append(name)


@pytest.fixture
def desk() -> Iterator[Desk]:
    keeper, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with keeper, worker:
        yield Desk(keeper, worker, Interests(worker.fileno()))


@pytest.mark.parametrize(
    ("request_", "key"),
    [
        (Request(Opcode.LOOKUP, 1, 5, name_body("name")), ("lookup", 5, b"name")),
        (Request(Opcode.LOOKUP, 1, 5, name_body("n") + b"\1\0\0\0ext"), ("lookup", 5, b"n")),
        (Request(Opcode.GETATTR, 1, 5, bytes(16)), ("getattr", 5)),
        (Request(Opcode.READLINK, 1, 5), ("readlink", 5)),
        (Request(Opcode.OPENDIR, 1, 5, bytes(8)), ("opendir", 5)),
        (Request(Opcode.READ, 1, 5, read_body(offset=1 << 40, size=3)), ("read", 5, 1 << 40, 3)),
        (Request(Opcode.READDIR, 1, 5, read_body(offset=9)), ("readdir", 5, 9)),
        (Request(Opcode.READDIRPLUS, 1, 5, read_body(offset=9)), ("readdir", 5, 9)),
        (Request(Opcode.GETXATTR, 1, 5, bytes(8) + b"user.x\0"), None),
        (Request(Opcode.STATFS, 1, 1), None),
    ],
    ids=lambda value: Opcode(value.opcode).name if isinstance(value, Request) else None,
)
def test_a_request_is_known_by_what_it_asks(request_: Request, key: Key | None) -> None:
    assert key_of(request_.encode()) == key


@pytest.mark.parametrize(
    "message",
    [b"", b"G" * 39, Request(Opcode.LOOKUP, 1, 5, b"name").encode(), reading()[:50]],
    ids=["empty", "short", "a name without an end", "half a body"],
)
def test_what_is_no_request_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"half a request|without an end"):
        key_of(message)


async def test_a_request_that_nobody_waits_for_is_dropped(desk: Desk) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, "gone")
        nursery.start_soon(desk.ask, "other", ("read", 7, 8192, 512))
        await wait_all_tasks_blocked()
        desk.interests.gone(reading())
        await wait_all_tasks_blocked()
        assert desk.dropped == ["gone"]
        nursery.cancel_scope.cancel()
    assert desk.dropped == ["gone"]


async def test_of_two_that_ask_the_same_none_is_dropped_for_the_other(desk: Desk) -> None:
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, "one", READ, done)
        nursery.start_soon(desk.ask, "two", READ, done)
        await wait_all_tasks_blocked()
        desk.interests.gone(reading(1))
        await wait_all_tasks_blocked()
        assert desk.dropped == []
        desk.interests.gone(reading(2))
    assert sorted(desk.dropped) == ["one", "two"]
    assert desk.answered == []


async def test_who_is_answered_may_have_been_the_one_that_is_gone(desk: Desk) -> None:
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, "one", READ, done)
        nursery.start_soon(desk.ask, "two")
        await wait_all_tasks_blocked()
        desk.interests.gone(reading(1))
        done.set()
        await wait_all_tasks_blocked()
        assert desk.answered == ["one"]
        # The one that is left may be anybody's; it takes another word to drop it.
        assert desk.dropped == []
        desk.interests.gone(reading(2))
    assert desk.dropped == ["two"]


async def test_who_asks_again_after_a_drop_is_not_dropped(desk: Desk) -> None:
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, "gone")
        await wait_all_tasks_blocked()
        desk.interests.gone(reading(1))
        nursery.start_soon(desk.ask, "alive", READ, done)
        await wait_all_tasks_blocked()
        assert desk.dropped == ["gone"]
        done.set()
    assert desk.answered == ["alive"]


async def test_one_that_has_been_answered_is_not_missed(desk: Desk) -> None:
    desk.interests.gone(reading())
    done = trio.Event()
    done.set()
    await desk.ask("later", READ, done)
    assert desk.answered == ["later"]


async def test_one_that_was_not_read_yet_is_dropped_when_it_is(desk: Desk) -> None:
    desk.keeper.send(reading())
    desk.interests.gone(reading())
    desk.worker.recv(4096)
    await desk.ask("early")
    assert desk.dropped == ["early"]


async def test_of_two_that_were_not_read_yet_the_one_that_is_wanted_is_answered(desk: Desk) -> None:
    for unique in (1, 2):
        desk.keeper.send(reading(unique))
    desk.interests.gone(reading(1))
    desk.worker.recv(4096)
    await desk.ask("early")
    desk.worker.recv(4096)
    done = trio.Event()
    done.set()
    await desk.ask("alive", READ, done)
    assert desk.dropped == ["early"]
    assert desk.answered == ["alive"]


async def test_nothing_is_expected_any_more_once_all_has_been_read(desk: Desk) -> None:
    desk.keeper.send(b"another request")
    desk.interests.gone(reading())
    desk.worker.recv(4096)
    done = trio.Event()
    done.set()
    await desk.ask("another", ("getattr", 3), done)
    await desk.ask("alive", READ, done)
    assert desk.answered == ["another", "alive"]
    assert desk.dropped == []


def test_what_is_being_read_is_known_until_it_was_answered(desk: Desk) -> None:
    keys: list[Key] = [
        READ,
        ("read", 7, 0, 1),
        ("read", 9, 0, 1),
        ("readdir", 8, 0),
        ("getattr", 5),
    ]
    begun = [(key, desk.interests.begin(key)) for key in keys]
    assert desk.interests.read() == {7, 9}
    for key, scope in begun[1:]:
        desk.interests.end(key, scope)
    assert desk.interests.read() == {7}
