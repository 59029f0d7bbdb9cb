"""A server that sends exactly the bytes that a test says, for what no proper server does."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio

Stream = trio.abc.Stream
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def server_side(certificate: Path) -> ssl.SSLContext:
    """TLS as a server speaks it, whose key and certificate lie in a file."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


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
    talk: Callable[[Stream], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
    *,
    host: str = "127.0.0.1",
) -> AsyncIterator[int]:
    """Talk on every connection; the port, on 127.0.0.1 if nothing else is said."""

    async def guarded(stream: Stream) -> None:
        async with stream:
            try:
                await talk(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    (listener,) = await trio.open_tcp_listeners(0, host=host)
    served = listener if tls is None else trio.SSLListener(listener, tls, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, guarded, [served]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def greet(stream: Stream) -> None:
    """Answer every request with ``HELLO``."""
    while await head_of(stream):
        await stream.send_all(HELLO)


@asynccontextmanager
async def tunnelling(
    port: int, tls: ssl.SSLContext | None = None, *, heads: list[bytes] | None = None
) -> AsyncIterator[int]:
    """A proxy whose tunnels all lead to a port of this machine; its own port.

    Args:
        port: where they lead.
        tls: what is spoken to the proxy itself.
        heads: the heads of the requests for tunnels are added to it.
    """

    async def tunnel(stream: Stream) -> None:
        head = await head_of(stream)
        if heads is not None:
            heads.append(head)
        async with await trio.open_tcp_stream("127.0.0.1", port) as far:
            await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, stream, far)
                nursery.start_soon(_pump, far, stream)

    async with serving(tunnel, tls) as own:
        yield own


async def _pump(source: Stream, target: Stream) -> None:
    try:
        async for data in source:
            await target.send_all(data)
        await target.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


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
