"""HTTP transports as tests want them, and short ways to use one."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cafs.transport.http import HttpLimits, HttpTransport, tls_context
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies


@asynccontextmanager
async def opened(
    *,
    proxies: Proxies | None = None,
    tls: ssl.SSLContext | None = None,
    connections: int = 64,
    idle: int = 16,
    patience_s: float = 5.0,
) -> AsyncIterator[HttpTransport]:
    """A transport that waits so long for connections and for heads."""
    limits = HttpLimits(connect_s=patience_s, head_s=patience_s, connections=connections, idle=idle)
    trust = tls_context if tls is None else lambda: tls
    transport = HttpTransport(limits=limits, proxies=proxies, tls=trust)
    try:
        yield transport
    finally:
        await transport.aclose()


async def read(transport: HttpTransport, request: Request) -> bytes:
    """Ask, and read the body."""
    pieces = []
    async with await transport.open(request) as response:
        while piece := await response.receive():
            pieces.append(piece)
    return b"".join(pieces)


def local(heads: list[bytes], scheme: str = "http") -> str:
    """A URL at a server that was begun by ``saying``."""
    return f"{scheme}://127.0.0.1:{heads[0].decode()}/a"
