"""Pooling: connections that were made are used again, by one request at a time.

httpcore has a pool too. This one differs in what a killed reader needs: a connection that was given
up, at whatever moment, is closed and gives its place back. There, one that is given up right after
its TLS handshake, or during the one behind a proxy, or whose handshake fails behind a proxy, keeps
its place for ever, and in the end nobody gets another.
"""

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Final, TypeAlias
from urllib.parse import unquote

import httpcore
import trio

from cafs.transport.connecting import Network
from cafs.transport.urls import split

_LOOKED_AT: Final = 2
"""Idle connections that are looked at each time that one more becomes idle."""
Make: TypeAlias = Callable[[httpcore.Origin], httpcore.AsyncConnectionInterface]


class Pool:
    """Connections, by origin.

    Args:
        make: makes a connection to an origin; it connects with its first request.
        places: how many are used at once.
        idle: how many are kept that nobody uses.

    Concurrency: any number of tasks of one trio run; those that find no place wait, first come,
    first served.
    """

    def __init__(self, make: Make, *, places: int, idle: int) -> None:
        self._make = make
        self._places = trio.Semaphore(places)
        self._most_idle = idle
        self._idle: list[httpcore.AsyncConnectionInterface] = []
        self._used: set[httpcore.AsyncConnectionInterface] = set()

    @property
    def busy(self) -> bool:
        """Whether a connection is in use."""
        return bool(self._used)

    async def send(self, message: httpcore.Request) -> "Reply":
        """Send a request, and return once the head of the response has come.

        Raises:
            Exception: what httpcore raises; then there is nothing to close.

        Cancellation: the connection is closed.
        """
        try:
            self._places.acquire_nowait()  # where none has to be waited for, no other task runs
        except trio.WouldBlock:
            await self._places.acquire()
        connection = self._take(message.url.origin)
        try:
            sent = await connection.handle_async_request(message)
        except BaseException:
            await self.release(connection)
            raise
        return Reply(self, connection, sent)

    async def aclose(self) -> None:
        """Close all connections, those in use too.

        Cancellation: closes all the same.
        """
        idle, self._idle = self._idle, []
        await _close([*idle, *self._used])

    async def retire(self) -> None:
        """Keep no connection any more; those in use are closed when they are not.

        Cancellation: carried through.
        """
        self._most_idle = 0
        idle, self._idle = self._idle, []
        await _close(idle)

    async def release(self, connection: httpcore.AsyncConnectionInterface) -> None:
        """Use a connection no more: keep it for others where that is possible, else close it.

        Cancellation: carried through.
        """
        self._used.discard(connection)
        self._places.release()
        # Looking at a connection costs a system call: those that wait longest are looked at here,
        # a few each time, others when they are wanted.
        oldest, rest = self._idle[:_LOOKED_AT], self._idle[_LOOKED_AT:]
        known = [*oldest, *rest, connection]
        useful = [*filter(_useful, oldest), *rest, *filter(_useful, [connection])]
        self._idle = useful[max(len(useful) - self._most_idle, 0) :]
        await _close([each for each in known if each not in self._idle])

    def _take(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """The connection to an origin that was used last, or a new one."""
        for each in reversed(self._idle):
            if each.can_handle_request(origin) and _useful(each):
                self._idle.remove(each)
                connection = each
                break
        else:
            connection = self._make(origin)
        self._used.add(connection)
        return connection


class Reply:
    """The head of a response, and its body; whoever is done with it closes it.

    Concurrency: one task reads; any may close.
    """

    def __init__(
        self, pool: Pool, connection: httpcore.AsyncConnectionInterface, sent: httpcore.Response
    ) -> None:
        self.status = sent.status
        self.headers = sent.headers
        self._pool = pool
        self._connection = connection
        self._sent = sent
        self._closed = False

    def peer(self) -> object:
        """The address of the other end of the connection.

        Raises:
            OSError: there is none any more.
        """
        return self._sent.extensions["network_stream"].get_extra_info("server_addr")

    def pieces(self) -> AsyncIterator[bytes]:
        """The body, to be read once: a stack of async generators."""
        stream = self._sent.stream
        if not isinstance(stream, AsyncIterable):
            raise TypeError("a synchronous body")
        return aiter(stream)

    async def aclose(self) -> None:
        """Let go of the connection; a second call does nothing.

        Cancellation: once begun it is carried through.
        """
        if self._closed:
            return
        self._closed = True
        try:
            await self._sent.aclose()
        finally:
            await self._pool.release(self._connection)


def _useful(connection: httpcore.AsyncConnectionInterface) -> bool:
    """Whether another request may be sent over a connection that nobody uses."""
    # One that never came about calls itself idle too.
    return connection.is_idle() and not (connection.is_closed() or connection.has_expired())


async def _close(connections: list[httpcore.AsyncConnectionInterface]) -> None:
    with trio.CancelScope(shield=True):
        for each in connections:
            await each.aclose()


def maker(
    network: Network,
    tls: ssl.SSLContext | None,
    proxy: str,
    proxy_tls: ssl.SSLContext | None,
    *,
    idle_s: float | None,
) -> Make:
    """What makes connections.

    Args:
        network: what they are made over.
        tls: for https; None where that is not spoken.
        proxy: the URL of the proxy that all of them go through; empty for none.
        proxy_tls: for a proxy that is spoken to by https.
        idle_s: for how long they are kept unused.
    """
    # httpcore's pool knows how one behind a proxy is made; nothing else of it is used.
    return httpcore.AsyncConnectionPool(
        ssl_context=tls,
        proxy=_proxy(proxy, proxy_tls) if proxy else None,
        keepalive_expiry=idle_s,
        network_backend=network,
    ).create_connection


def _proxy(url: str, tls: ssl.SSLContext | None) -> httpcore.Proxy:
    """A proxy in httpcore's words: its credentials are no part of its URL there."""
    parts = split(url)
    host, port = parts.hostname or "", parts.port
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return httpcore.Proxy(
        httpcore.URL(scheme=parts.scheme, host=host, port=port, target="/"),
        auth=(user.encode(), password.encode()) if user or password else None,
        ssl_context=tls if parts.scheme == "https" else None,
    )
