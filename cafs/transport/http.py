"""HTTP and HTTPS: one request, one response, over pooled connections. httpx's only door.

No redirects, no retries, no cookies, no credentials: wrappers do what of these is wanted. The
client is httpx's transport, not its client, which would keep cookies and log URLs with their
secrets.

- Bytes are taken as they are sent: ``Accept-Encoding: identity``, and nothing is decoded.
- A head is checked against its request before anyone sees it.
- A body is never shorter, nor longer, than its head said, without an error.
- Closing never reads what is left, except for what is so little that keeping the connection is
  cheaper than making another.
"""

import logging
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpcore
import httpx
import trio
from typing_extensions import override

from cafs import __version__
from cafs.errors import (
    CafsError,
    DeadlineError,
    InvalidReferenceError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from cafs.model.address import shown
from cafs.model.span import Span
from cafs.transport.answers import failure
from cafs.transport.heads import (
    answered_range,
    content_length,
    max_age_s,
    validator_of,
)
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.proxies import Proxies
from cafs.transport.urls import Origin

_LOG: Final = logging.getLogger("cafs.transport")
_RECEIVED: Final = 512 << 10
"""Bytes taken from a socket at once, at most. With httpx's own 64 KiB, a body costs twice the CPU:
each piece goes through a dozen layers."""
_SMALL_BODY: Final = 16 << 10
"""A body that nobody wants is read up to this size: less than a new connection costs."""
_SMALL_BODY_S: Final = 0.5
_CLOSE_S: Final = 5.0

_OK: Final = 200
_PARTIAL: Final = 206
_UNCHANGED: Final = 304
_UNSATISFIABLE: Final = 416


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Patience and numbers of an HttpTransport.

    ``connect_s`` bounds making a connection, ``head_s`` the wait for a complete head after it,
    ``stall_s`` the wait between bytes of a body. ``connections`` are open at once, ``idle`` of them
    unused, for at most ``idle_s``.
    """

    connect_s: float = 10.0
    head_s: float = 30.0
    stall_s: float = 20.0
    connections: int = 64
    idle: int = 16
    idle_s: float = 30.0


def tls_context(ca_bundle: Path | None = None) -> ssl.SSLContext:
    """Trust the system's CAs, or those of a PEM file instead.

    Raises:
        SettingsError: the file cannot be read, or holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:
        raise SettingsError(str(ca_bundle), "", f"no CA bundle: {error}") from error


class HttpTransport(Transport):
    """Answers for ``http:`` and ``https:`` URLs.

    Concurrency: any number of tasks; those above the number of connections wait.
    """

    def __init__(
        self,
        *,
        limits: HttpLimits | None = None,
        proxies: Proxies | None = None,
        tls: ssl.SSLContext | None = None,
        user_agent: str = f"cafs/{__version__}",
    ) -> None:
        self._limits = limits or HttpLimits()
        self._proxies = proxies or Proxies()
        self._tls = tls
        self._user_agent = user_agent
        self._pools: dict[str, httpx.AsyncHTTPTransport] = {}
        # It would log the headers of requests and responses: tokens, and URLs that are secrets.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = _RECEIVED

    def proxied(self, url: str) -> bool:
        """Whether the URL is reached through a proxy."""
        return bool(self._proxies.proxy_for(url))

    @override
    async def open(self, request: Request) -> Response:
        Origin.of(request.url)  # refuses what must not reach the network
        if request.span is not None and not request.span.length:
            raise ValueError(f"an empty span cannot be asked for: {request.span}")
        sent = await self._send(request)
        try:
            peer = self._peer(request, sent)
            if sent.status_code in (_OK, _PARTIAL, _UNCHANGED):
                return await self._response(request, sent, peer)
            headers = dict(sent.headers)
            bodiless = request.method == "HEAD"
            await _discard(sent, 0 if bodiless else content_length(headers))
        except BaseException:
            await _close(sent)
            raise
        span = request.span
        if sent.status_code == _UNSATISFIABLE and span is not None and span.start == 0:
            # No range of an empty resource can be had, not even the first byte; all of it can.
            return await self.open(replace(request, span=None, if_range=None))
        raise failure(request.method, request.url, sent.status_code, headers, peer)

    @override
    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            while self._pools:
                _, pool = self._pools.popitem()
                await pool.aclose()

    async def _send(self, request: Request) -> httpx.Response:
        limits = self._limits
        number = str(uuid.uuid4())
        # The scope bounds a head that dribbles; httpx's read timeout would restart at each byte.
        timeout = httpx.Timeout(limits.connect_s + limits.head_s, connect=limits.connect_s)
        name = f"{request.method} {shown(request.url)}"
        _LOG.debug("transport.request.sent %s span=%s id=%s", name, request.span, number)
        try:
            message = httpx.Request(
                request.method,
                request.url.partition("#")[0],
                headers=self._headers(request, number),
                extensions={"timeout": timeout.as_dict()},
            )
            with trio.fail_after(limits.connect_s + limits.head_s):
                response = await self._pool(request.url).handle_async_request(message)
        except trio.TooSlowError as error:
            raise DeadlineError(f"{name}: no answer within {limits.head_s:g} s") from error
        except httpx.InvalidURL as error:
            raise InvalidReferenceError(f"{shown(request.url)}: {error}") from error
        except httpx.TransportError as error:
            raise _translated(name, error, proxied=self.proxied(request.url)) from error
        except UnicodeError as error:
            # From looking the host up: an empty label, or one of more than 63 letters.
            raise InvalidReferenceError(f"{name}: there can be no such host: {error}") from error
        _LOG.debug(
            "transport.request.answered %s status=%d id=%s", name, response.status_code, number
        )
        return response

    def _headers(self, request: Request, number: str) -> list[tuple[str, str]]:
        lines = [
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", self._user_agent),
            ("X-Request-ID", number),
        ]
        names = {name.lower() for name, _ in request.headers}
        lines = [line for line in lines if line[0].lower() not in names]
        return [*lines, *_conditions(request), *request.headers]

    def _pool(self, url: str) -> httpx.AsyncHTTPTransport:
        proxy = self._proxies.proxy_for(url)
        pool = self._pools.get(proxy)
        if pool is None:
            limits = httpx.Limits(
                max_connections=self._limits.connections,
                max_keepalive_connections=self._limits.idle,
                keepalive_expiry=self._limits.idle_s,
            )
            # Reading the system's CAs takes longer than all else that a start does but importing.
            self._tls = self._tls or tls_context()
            pool = self._pools[proxy] = httpx.AsyncHTTPTransport(
                verify=self._tls, trust_env=False, http2=False, limits=limits, proxy=proxy or None
            )
        return pool

    async def _response(self, request: Request, sent: httpx.Response, peer: str) -> Response:
        name = f"{request.method} {shown(request.url)}"
        status, headers = sent.status_code, dict(sent.headers)
        span, total = _extent(name, request, status, headers)
        head = Head(
            url=request.url,
            status=status,
            validator=validator_of(headers),
            span=span,
            total=total,
            unchanged=status == _UNCHANGED,
            ranges=status == _PARTIAL or "bytes" in headers.get("accept-ranges", "").lower(),
            max_age_s=max_age_s(headers.get("cache-control", "")),
            content_type=headers.get("content-type", "").partition(";")[0].strip().lower(),
            headers=headers,
            peer=peer,
        )
        if head.unchanged or request.method == "HEAD":
            await _discard(sent, 0)
            return _HttpResponse(name, head, sent, self._limits.stall_s, length=0)
        length = None if span is None else span.length
        return _HttpResponse(name, head, sent, self._limits.stall_s, length=length)

    def _peer(self, request: Request, sent: httpx.Response) -> str:
        if self.proxied(request.url):
            return ""
        try:
            address: object = sent.extensions["network_stream"].get_extra_info("server_addr")
        except OSError as error:
            raise UnreachableError(f"{shown(request.url)}: the connection broke") from error
        return str(address[0]) if isinstance(address, tuple) else ""


class _HttpResponse(Response):
    """A head, and a body that comes from the socket piece by piece.

    The body is a stack of httpx's async generators. One that is dropped half way is finished by
    the garbage collector, at any time and in any task; so here they are read to their end, or fail,
    or are made to fail by closing their connection. ``_suspended`` says that they are half way, and
    not running.
    """

    def __init__(
        self, name: str, head: Head, sent: httpx.Response, stall_s: float, *, length: int | None
    ) -> None:
        self._name = name
        self._head = head
        self._sent = sent
        self._stall_s = stall_s
        self._length = length
        self._received = 0
        self._pieces = aiter(_stream(sent))
        self._suspended = False
        self._ended = sent.is_closed
        self._closed = sent.is_closed

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
        await _close(self._sent)
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
        except httpx.TransportError as error:
            if self._closed:
                raise trio.ClosedResourceError(f"{self._name}: closed meanwhile") from error
            raise _translated(self._name, error, proxied=False) from error
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


def _extent(
    name: str, request: Request, status: int, headers: Mapping[str, str]
) -> tuple[Span | None, int | None]:
    """Where the body lies in the whole, and how large that is; None for what is not told."""
    if status == _UNCHANGED:
        if request.if_changed is None:
            raise RefusedError(f"{name}: 304, though nothing was compared")
        return None, None
    if status == _PARTIAL:
        if request.span is None:
            raise RefusedError(f"{name}: 206, though all was asked for")
        answer = answered_range(name, request.span, headers)
        return answer.span, answer.total
    length = content_length(headers)
    return (None, None) if length is None else (Span(0, length), length)


def _conditions(request: Request) -> list[tuple[str, str]]:
    """Range and the conditional headers.

    A range of a version that only a weak validator names is not asked for at all: the server could
    not say that the version is another, so it is made to send the whole, which stands alone.

    Source: RFC 9110 §13.1.5, §13.2.2.
    """
    lines: list[tuple[str, str]] = []
    version = request.if_range
    strong = (version.etag or version.last_modified) if version and version.strong else ""
    if request.span is not None and (strong or version is None or not version.text):
        lines.append(("Range", f"bytes={request.span.start}-{request.span.stop - 1}"))
        if strong:
            lines.append(("If-Range", strong))
    if request.if_changed is not None:
        if request.if_changed.etag:
            lines.append(("If-None-Match", request.if_changed.etag))
        if request.if_changed.last_modified:
            lines.append(("If-Modified-Since", request.if_changed.last_modified))
    return lines


_TRANSLATIONS: Final[tuple[tuple[type[httpx.TransportError], type[CafsError], str], ...]] = (
    (httpx.ConnectTimeout, UnreachableError, "no connection in time"),
    (httpx.PoolTimeout, DeadlineError, "all connections are busy"),
    (httpx.TimeoutException, DeadlineError, "no answer in time"),
    (httpx.ConnectError, UnreachableError, "no connection"),
    (httpx.ProxyError, UnreachableError, "the proxy refused"),
    (httpx.NetworkError, UnreachableError, "the connection broke"),
    (httpx.RemoteProtocolError, UnreachableError, "the connection ended early, or was no HTTP"),
    (httpx.TransportError, RefusedError, "not possible"),
)
"""httpx's errors and ours, the most specific first. What another try may better is transient."""


def _translated(name: str, error: httpx.TransportError, *, proxied: bool) -> CafsError:
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


def _stream(sent: httpx.Response) -> httpx.AsyncByteStream:
    if not isinstance(sent.stream, httpx.AsyncByteStream):
        raise TypeError("a synchronous body")
    return sent.stream


async def _discard(sent: httpx.Response, length: int | None) -> None:
    """Be done with a body that nobody wants; keep the connection when that costs little."""
    if length is not None and length <= _SMALL_BODY:
        with trio.move_on_after(_SMALL_BODY_S):
            await _run_dry(aiter(_stream(sent)))
    await _close(sent)


async def _run_dry(pieces: AsyncIterator[bytes]) -> None:
    """Read to the end, or to the failure that comes of a closed or broken connection.

    Neither the bytes nor the failure matter to anyone any more.
    """
    with suppress(httpx.TransportError):
        async for _ in pieces:
            pass


async def _close(sent: httpx.Response) -> None:
    with (
        trio.CancelScope(shield=True),
        trio.move_on_after(_CLOSE_S),
        suppress(httpx.TransportError),  # closing is all that was wanted
    ):
        await sent.aclose()
