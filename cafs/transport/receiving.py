"""Receiving: what comes after the head of a response, from httpcore's words into ours.

A body is never shorter, nor longer, than its head said, nor has it another digest, without an
error; its last bytes are given out when that is settled. Closing never reads what is left, except
for what is so little that keeping the connection is cheaper than making another.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import httpcore
import trio
from typing_extensions import override

from cafs.errors import CafsError, DeadlineError, RefusedError, UnreachableError
from cafs.transport.digests import Checking
from cafs.transport.interfaces import Head, Response
from cafs.transport.pooling import Reply
from cafs.transport.stalling import DRIP, Watch

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

    Args:
        name: the request, for people.
        head: checked.
        sent: the connection.
        watch: says when its bytes come too slowly.
        length: of the body in bytes; None when it is not told.
        checking: checks the body; None when nothing was said of it.
    """

    def __init__(
        self,
        name: str,
        head: Head,
        sent: Reply,
        watch: Watch,
        *,
        length: int | None,
        checking: Checking | None = None,
    ) -> None:
        self._name = name
        self._head = head
        self._sent = sent
        self._watch = watch
        self._length = length
        self._checking = checking
        self._received = 0
        self._pieces = sent.pieces()
        self._suspended = False
        self._drips = False
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
            await self._check(piece)
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
        limit_s, began = self._watch.limit_s, trio.current_time()
        try:
            with trio.fail_after(limit_s):
                piece = await anext(self._pieces, b"")
        except trio.TooSlowError as error:
            self._watch.gave_up()
            raise DeadlineError(f"{self._name}: no bytes for {limit_s:.3g} s") from error
        except FAILURES as error:
            if self._closed:
                raise trio.ClosedResourceError(f"{self._name}: closed meanwhile") from error
            raise translated(self._name, error, proxied=False) from error
        self._suspended = bool(piece)
        self._drips = not self._watch.came(len(piece), trio.current_time() - began)
        return piece

    async def _check(self, piece: bytes) -> None:
        """Count against what the head announced: nobody else does for a 206 sent in chunks.

        With its last bytes, the whole is checked: many a reader asks for no more than these.
        """
        self._received += len(piece)
        last = not piece or self._received == self._length
        if self._length is not None and self._received > self._length:
            raise RefusedError(f"{self._name}: more than the announced {self._length} bytes")
        if self._length is not None and not piece and self._received < self._length:
            raise UnreachableError(
                f"{self._name}: ended after {self._received} of {self._length} bytes"
            )
        if self._checking is not None:
            await self._checking.take(piece)
            if last:
                self._checking.finish()
        if self._drips and not last:
            raise DeadlineError(f"{self._name}: its bytes drip, fewer than {DRIP} a second")


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
