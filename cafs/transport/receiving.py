"""Receiving: what comes after the head of a response, from httpcore's words into ours.

A body is never shorter, nor longer, than its head said, without an error. Closing never reads what
is left, except for what is so little that keeping the connection is cheaper than making another.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import httpcore
import trio
from typing_extensions import override

from cafs.errors import CafsError, DeadlineError, RefusedError, UnreachableError
from cafs.transport.interfaces import Head, Response
from cafs.transport.pooling import Reply

_SMALL_BODY: Final = 16 << 10
"""A body that nobody wants is read up to this size: less than a new connection costs."""
_SMALL_BODY_S: Final = 0.5
_CLOSE_S: Final = 5.0

FAILURES: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
)
"""Everything that httpcore raises on purpose."""
_TRANSLATIONS: Final[tuple[tuple[type[Exception], type[CafsError], str], ...]] = (
    (httpcore.ConnectTimeout, UnreachableError, "no connection in time"),
    (httpcore.TimeoutException, DeadlineError, "no answer in time"),
    (httpcore.ConnectError, UnreachableError, "no connection"),
    (httpcore.ProxyError, UnreachableError, "the proxy refused"),
    (httpcore.NetworkError, UnreachableError, "the connection broke"),
    (httpcore.RemoteProtocolError, UnreachableError, "the connection ended early, or was no HTTP"),
    (Exception, RefusedError, "not possible"),
)
"""Its errors and ours, the most specific first. What another try may better is transient."""


class Bodiless(Response):
    """A head, and nothing more: the connection is free already."""

    def __init__(self, head: Head) -> None:
        self._head = head

    @property
    @override
    def head(self) -> Head:
        return self._head

    @override
    async def receive(self) -> bytes:
        return b""

    @override
    async def aclose(self) -> None:
        """Nothing is open."""


class HttpResponse(Response):
    """A head, and a body that comes from the socket piece by piece.

    The body is a stack of httpcore's async generators. One that is dropped half way is finished by
    the garbage collector, at any time and in any task; so here they are read to their end, or fail,
    or are made to fail by closing their connection. ``_suspended`` says that they are half way, and
    not running.
    """

    def __init__(
        self, name: str, head: Head, sent: Reply, stall_s: float, *, length: int | None
    ) -> None:
        self._name = name
        self._head = head
        self._sent = sent
        self._stall_s = stall_s
        self._length = length
        self._received = 0
        self._pieces = sent.pieces()
        self._suspended = False
        self._ended = False
        self._closed = False

    @property
    @override
    def head(self) -> Head:
        return self._head

    @override
    async def receive(self) -> bytes:
        if self._ended:
            return b""
        if self._closed:
            raise trio.ClosedResourceError(f"{self._name}: closed")
        try:
            piece = await self._next()
            self._check(piece)
        except BaseException:
            await self.aclose()
            raise
        framed = self._length is not None and "content-length" in self._head.headers
        if piece and framed and self._received == self._length:
            # The end costs no reading here, and only it lets the connection be used again.
            await self._next()
        if not self._suspended:
            self._ended = True
            await self.aclose()
        return piece

    @override
    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        await close(self._sent)
        if self._suspended:
            with trio.CancelScope(shield=True):
                await _run_dry(self._pieces)

    async def _next(self) -> bytes:
        """The next piece; empty at the end."""
        self._suspended = False
        try:
            with trio.fail_after(self._stall_s):
                piece = await anext(self._pieces, b"")
        except trio.TooSlowError as error:
            raise DeadlineError(f"{self._name}: no bytes for {self._stall_s:g} s") from error
        except FAILURES as error:
            if self._closed:
                raise trio.ClosedResourceError(f"{self._name}: closed meanwhile") from error
            raise translated(self._name, error, proxied=False) from error
        self._suspended = bool(piece)
        return piece

    def _check(self, piece: bytes) -> None:
        """Count against what the head announced: nobody else does for a 206 sent in chunks."""
        self._received += len(piece)
        if self._length is None:
            return
        if self._received > self._length:
            raise RefusedError(f"{self._name}: more than the announced {self._length} bytes")
        if not piece and self._received < self._length:
            raise UnreachableError(
                f"{self._name}: ended after {self._received} of {self._length} bytes"
            )


def translated(name: str, error: Exception, *, proxied: bool) -> CafsError:
    """Our error for one of httpcore's.

    Args:
        name: the request, for people.
        error: one of ``FAILURES``.
        proxied: whether a proxy is between, which may be what failed.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RefusedError(
                f"{name}: its certificate is not trusted: {cause.verify_message}",
                hint="if it is right, give its CA as a CA bundle",
            )
        cause = cause.__cause__ or cause.__context__
    family, text = next((f, t) for kind, f, t in _TRANSLATIONS if isinstance(error, kind))
    detail = f"{name}: {text} ({error})" if str(error) else f"{name}: {text}"
    return family(detail, hint="a proxy is in use" if proxied else "")


async def discard(sent: Reply, length: int | None) -> None:
    """Be done with a body that nobody wants; keep the connection when that costs little.

    ``length`` is bytes, None when it is not known.

    Cancellation: the connection is closed.
    """
    if length is not None and length <= _SMALL_BODY:
        with trio.move_on_after(_SMALL_BODY_S):
            await _run_dry(sent.pieces())
    await close(sent)


async def _run_dry(pieces: AsyncIterator[bytes]) -> None:
    """Read to the end, or to the failure that comes of a closed or broken connection.

    Neither the bytes nor the failure matter to anyone any more.
    """
    with suppress(*FAILURES):
        async for _ in pieces:
            pass


async def close(sent: Reply) -> None:
    """Let go of the connection.

    Cancellation: closes all the same.
    """
    with (
        trio.CancelScope(shield=True),
        trio.move_on_after(_CLOSE_S),
        suppress(*FAILURES),  # closing is all that was wanted
    ):
        await sent.aclose()
