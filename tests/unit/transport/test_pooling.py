"""Connections: used again where they may be, closed where not, and their places never lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs.errors import RefusedError, UnreachableError
from cafs.testing.faults import Drop, HangBeforeHead, Stall
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies
from tests.unit.transport.clients import opened, read
from tests.unit.transport.raw_server import (
    HELLO,
    Stream,
    greet,
    head_of,
    server_side,
    serving,
    tunnelling,
)

BODY = bytes(range(256)) * 4096


@dataclass
class Counted:
    """A server that greets, and counts its connections."""

    port: int = 0
    made: int = 0
    open: int = 0

    async def talk(self, stream: Stream) -> None:
        self.made += 1
        self.open += 1
        try:
            await greet(stream)
        finally:
            self.open -= 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@asynccontextmanager
async def counting() -> AsyncIterator[Counted]:
    server = Counted()
    async with serving(server.talk) as server.port:
        yield server


async def until_open(server: Counted, count: int) -> None:
    with trio.fail_after(60):
        while server.open != count:  # noqa: ASYNC110 - the sockets have no event
            await trio.sleep(0.005)


async def test_a_connection_whose_body_was_not_read_to_its_end_is_not_used_again(
    origin: Origin,
) -> None:
    url = origin.put("/a", BODY)
    async with opened() as transport:
        async with await transport.open(Request(url)) as response:
            assert await response.receive()
        assert await read(transport, Request(url)) == BODY
        assert origin.connections == 2
        assert await read(transport, Request(url)) == BODY
    assert origin.connections == 2


async def test_a_connection_that_its_server_has_closed_is_not_used_again() -> None:
    async def once(stream: Stream) -> None:
        await head_of(stream)
        await stream.send_all(HELLO)

    async with serving(once) as port, opened() as transport:
        for _ in range(3):
            assert await read(transport, Request(f"http://127.0.0.1:{port}/")) == b"hello"
            await wait_all_tasks_blocked()


async def test_a_connection_is_not_used_again_after_its_time() -> None:
    async with counting() as server:
        transport = HttpTransport(limits=HttpLimits(idle_s=0))
        for _ in range(2):
            assert await read(transport, Request(server.url)) == b"hello"
        assert server.made == 2
        await transport.aclose()


async def test_so_many_connections_are_kept_and_no_more() -> None:
    async with counting() as server, opened(idle=2) as transport:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(read, transport, Request(server.url))
        assert server.made == 5
        await until_open(server, 2)
        assert await read(transport, Request(server.url)) == b"hello"
        assert server.made == 5


async def test_each_origin_has_connections_of_its_own() -> None:
    async with counting() as one, counting() as other, opened(connections=1) as transport:
        for _ in range(2):
            for server in (one, other):
                assert await read(transport, Request(server.url)) == b"hello"
        assert (one.made, other.made) == (1, 1)


async def test_closing_the_transport_closes_connections_in_use_and_unused(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Stall(after_bytes=1000))
    async with counting() as server, opened() as transport:
        assert await read(transport, Request(server.url)) == b"hello"
        async with await transport.open(Request(url)) as response:
            assert await response.receive()
            await transport.aclose()
            with pytest.raises(UnreachableError):
                await response.receive()
        await until_open(server, 0)


async def test_who_waits_for_a_place_gets_it_though_others_have_given_up(origin: Origin) -> None:
    url, stalled = origin.put("/a", BODY), origin.put("/stalled", BODY)
    origin.fault("/stalled", HangBeforeHead())
    async with (
        opened(connections=2) as transport,
        trio.open_nursery() as survivors,
        trio.open_nursery() as killed,
    ):
        for _ in range(9):
            killed.start_soon(transport.open, Request(stalled))
        await trio.to_thread.run_sync(origin.wait_until, lambda all_: len(all_) == 2)
        for _ in range(3):
            survivors.start_soon(read, transport, Request(url))
        await wait_all_tasks_blocked()
        # At once those who have a connection, and those who wait for one.
        killed.cancel_scope.cancel()


@pytest.mark.parametrize("fault", [Drop(), Drop(after_bytes=1000, reset=True)])
async def test_a_connection_that_broke_gives_its_place_back(origin: Origin, fault: Drop) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", fault)
    async with opened(connections=1) as transport:
        for _ in range(3):
            with pytest.raises(UnreachableError):
                await read(transport, Request(url))
        origin.heal()
        assert await read(transport, Request(url)) == BODY


async def test_a_certificate_that_is_refused_behind_a_proxy_gives_its_place_back(
    certificate: Path,
) -> None:
    async with serving(greet, server_side(certificate)) as far, tunnelling(far) as port:
        proxies = Proxies(https=f"http://127.0.0.1:{port}")
        async with opened(proxies=proxies, connections=1) as transport:
            for _ in range(3):
                with pytest.raises(RefusedError, match="certificate"):
                    await transport.open(Request(f"https://127.0.0.1:{far}/"))
