"""A server that sends exactly the bytes that a test says, for what no proper server does."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

Stream = trio.abc.Stream


async def head_of(stream: Stream) -> bytes:
    """Read one request's head, up to its empty line; empty when the client is gone."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            more = await stream.receive_some(1)
        except trio.BrokenResourceError:
            return b""
        if not more:
            return b""
        data += more
    return data


@asynccontextmanager
async def serving(
    talk: Callable[[Stream], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Talk on every connection; the port on 127.0.0.1."""

    async def guarded(stream: Stream) -> None:
        async with stream:
            try:
                await talk(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    served = listener if tls is None else trio.SSLListener(listener, tls, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, guarded, [served]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def saying(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[list[bytes]]:
    """Answer the requests of each connection with these bytes in turn, then close it.

    Yields the heads that came; the first item is the port, as text.
    """
    heads: list[bytes] = []

    async def talk(stream: Stream) -> None:
        for answer in answers:
            head = await head_of(stream)
            if not head:
                return
            heads.append(head)
            await stream.send_all(answer)

    async with serving(talk, tls) as port:
        heads.append(str(port).encode())
        yield heads
