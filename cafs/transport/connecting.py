"""Connecting: the connections that HTTP is spoken over, in httpcore's words.

httpcore brings such a module for trio. This one differs in what a killed reader needs: a connection
that is given up in the middle of its TLS handshake is closed at once, and not by the garbage
collector; and host names are looked up in threads of their own, since a name that nobody answers
for stays in the C library for half a minute, and the store must not wait for that thread.
"""

import math
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Literal, TypeAlias

import httpcore
import trio
from typing_extensions import override

LOOKUPS: Final = 64
"""Host names that are looked up at once."""
RECEIVED: Final = 512 << 10
"""Bytes taken from a socket at once, at most. With the 64 KiB that httpcore asks for, a body costs
twice the CPU: each piece goes through a dozen layers."""

_Found: TypeAlias = (
    tuple[Literal[socket.AddressFamily.AF_INET], socket.SocketKind, int, str, tuple[str, int]]
    | tuple[
        Literal[socket.AddressFamily.AF_INET6],
        socket.SocketKind,
        int,
        str,
        tuple[str, int, int, int] | tuple[int, bytes],
    ]
)
"""An address, as trio wants it from who looks names up."""
_Option: TypeAlias = (
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
)


class Lookups(trio.abc.HostnameResolver):
    """Looks host names up in threads that nothing else waits for.

    Concurrency: any number of tasks; those above the number of threads wait.
    """

    def __init__(self, threads: int = LOOKUPS) -> None:
        self._threads = trio.CapacityLimiter(threads)

    @override
    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[_Found]:
        ask = partial(socket.getaddrinfo, host, port, family, type, proto, flags)
        return await trio.to_thread.run_sync(ask, limiter=self._threads, abandon_on_cancel=True)

    @override
    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        ask = partial(socket.getnameinfo, sockaddr, flags)
        return await trio.to_thread.run_sync(ask, limiter=self._threads, abandon_on_cancel=True)


class Network(httpcore.AsyncNetworkBackend):
    """Connects by TCP.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self) -> None:
        self._lookups = Lookups()

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_Option] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect; the timeout bounds the look-up of the name too.

        Raises:
            httpcore.ConnectTimeout: it took too long.
            httpcore.ConnectError: it failed.

        Cancellation: nothing stays open.
        """
        trio.socket.set_custom_hostname_resolver(self._lookups)
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError, timeout):
            return Connection(await trio.open_tcp_stream(_bare(host), port))


class Connection(httpcore.AsyncNetworkStream):
    """A TCP connection, perhaps with TLS over it: once, or twice, to an https proxy and through it.

    Concurrency: one task reads, one writes.
    """

    def __init__(
        self, wire: trio.SocketStream, tls: trio.SSLStream[trio.abc.Stream] | None = None
    ) -> None:
        self._wire = wire
        self._tls = tls
        self._stream: trio.abc.Stream = wire if tls is None else tls

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next bytes, empty at the end: more than httpcore asks for, where more are there."""
        with _translated(httpcore.ReadTimeout, httpcore.ReadError, timeout):
            return bytes(await self._stream.receive_some(max(max_bytes, RECEIVED)))

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            # The body of a GET: waiting here could leave the generator that yields it unfinished.
            return
        with _translated(httpcore.WriteTimeout, httpcore.WriteError, timeout):
            await self._stream.send_all(buffer)

    @override
    async def aclose(self) -> None:
        await self._stream.aclose()

    @override
    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Go on with TLS.

        Raises:
            httpcore.ConnectTimeout: the handshake took too long.
            httpcore.ConnectError: it failed. In both cases the connection is closed.

        Cancellation: the connection is closed.
        """
        try:
            tls = trio.SSLStream(
                self._stream,
                ssl_context,
                # A name may end in its root's dot; certificates, and RFC 6066 §3, know none.
                server_hostname=_bare(server_hostname or "").removesuffix("."),
                https_compatible=True,
            )
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError, timeout):
                await tls.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(self._wire)
            raise
        return Connection(self._wire, tls)

    @override
    def get_extra_info(self, info: str) -> object:
        match info:
            case "ssl_object":
                return self._tls
            case "server_addr":
                return self._wire.socket.getpeername()
            case "is_readable":
                # Nothing is to come on an idle connection but its end.
                return self._wire.socket.is_readable()
            case _:
                return None


def _bare(host: str) -> str:
    """A host as sockets and certificates have it: httpcore has IPv6 addresses as URLs do."""
    return host.removeprefix("[").removesuffix("]")


@contextmanager
def _translated(
    late: type[Exception], broken: type[Exception], timeout: float | None
) -> Iterator[None]:
    """Bound the block in time, and say what went wrong in httpcore's words."""
    try:
        with trio.fail_after(math.inf if timeout is None else timeout):
            yield
    except trio.TooSlowError as error:
        raise late(error) from error
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise broken(error) from error
