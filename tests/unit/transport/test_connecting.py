"""Connections: given up at any moment, they are closed at once; names are looked up apart."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from cafs.errors import UnreachableError
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies


@dataclass
class Mute:
    """A server that takes connections, and never says a word."""

    port: int = 0
    spoken_to: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)

    async def hear(self, stream: trio.SocketStream) -> None:
        async for _ in stream:
            self.spoken_to.set()
        self.left.set()


@asynccontextmanager
async def mute_server() -> AsyncIterator[Mute]:
    server = Mute()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.hear, [listener])
        yield server
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("proxied", [False, True])
async def test_who_gives_up_while_connecting_leaves_no_connection_behind(
    scheme: str, *, proxied: bool
) -> None:
    async with mute_server() as server, trio.open_nursery() as nursery:
        proxies = Proxies(
            http=f"http://127.0.0.1:{server.port}", https=f"http://127.0.0.1:{server.port}"
        )
        transport = HttpTransport(proxies=proxies if proxied else None)
        nursery.start_soon(transport.open, Request(f"{scheme}://127.0.0.1:{server.port}/"))
        await server.spoken_to.wait()
        # What only a garbage collector closes must not pass for closed.
        gc.disable()
        try:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(60):
                await server.left.wait()
        finally:
            gc.enable()
            await transport.aclose()


async def test_a_handshake_that_takes_too_long_leaves_no_connection_behind() -> None:
    async with mute_server() as server:
        transport = HttpTransport(limits=HttpLimits(connect_s=0.1))
        with pytest.raises(UnreachableError, match="no connection in time"):
            await transport.open(Request(f"https://127.0.0.1:{server.port}/"))
        with trio.fail_after(60):
            await server.left.wait()
        await transport.aclose()


async def test_a_name_is_looked_up_though_all_other_threads_are_taken(origin: Origin) -> None:
    threads = trio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(threads.total_tokens))]
    url = origin.put("/x", b"x").replace("127.0.0.1", "localhost")
    transport = HttpTransport()
    for holder in holders:
        await threads.acquire_on_behalf_of(holder)
    try:
        with trio.fail_after(60):
            async with await transport.open(Request(url)) as response:
                assert await response.receive() == b"x"
    finally:
        for holder in holders:
            threads.release_on_behalf_of(holder)
        await transport.aclose()
