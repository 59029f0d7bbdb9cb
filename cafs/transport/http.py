"""HTTP and HTTPS: one request, one response, over pooled connections.

No redirects, no retries, no cookies, no credentials: wrappers do what of these is wanted. httpcore
speaks HTTP/1.1; its doors are here, in ``connecting``, ``pooling`` and ``receiving``.

- Bytes are taken as they are sent: ``Accept-Encoding: identity``, and nothing is decoded.
- A head is checked against its request before anyone sees it.
- What comes after it is for ``receiving``.
"""

import logging
import ssl
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpcore
import trio
from typing_extensions import override

from cafs import __version__
from cafs.errors import (
    DeadlineError,
    InvalidReferenceError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from cafs.model.address import shown
from cafs.model.span import Span
from cafs.transport.answers import failure
from cafs.transport.connecting import Network
from cafs.transport.heads import (
    answered_range,
    content_length,
    max_age_s,
    validator_of,
)
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.pooling import Pool, Reply, maker
from cafs.transport.proxies import Proxies
from cafs.transport.receiving import (
    FAILURES,
    Bodiless,
    HttpResponse,
    close,
    discard,
    translated,
)
from cafs.transport.urls import Origin, scheme_of, target_of

_LOG: Final = logging.getLogger("cafs.transport")

_OK: Final = 200
_PARTIAL: Final = 206
_UNCHANGED: Final = 304
_UNSATISFIABLE: Final = 416


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Patience and numbers of an HttpTransport.

    ``connect_s`` bounds making a connection, ``head_s`` the wait for a complete head after it,
    ``stall_s`` the wait between bytes of a body. ``connections`` are used at once, and ``idle``
    more are kept for another request, for at most ``idle_s``: so many by each way, directly or by a
    proxy, plainly or with TLS.
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

    Args:
        limits: patience and numbers.
        proxies: which URLs go through a proxy.
        tls: says what is trusted; called once, in a thread, when TLS is first wanted.
        user_agent: what servers are told.

    Concurrency: any number of tasks; those above the number of connections wait.
    """

    def __init__(
        self,
        *,
        limits: HttpLimits | None = None,
        proxies: Proxies | None = None,
        tls: Callable[[], ssl.SSLContext] = tls_context,
        user_agent: str = f"cafs/{__version__}",
    ) -> None:
        self._limits = limits or HttpLimits()
        self._proxies = proxies or Proxies()
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._user_agent = user_agent
        self._network = Network()
        self._pools: dict[tuple[str, bool], Pool] = {}
        # It would log the headers of requests and responses: tokens, and URLs that are secrets.
        logging.getLogger("httpcore").setLevel(logging.WARNING)

    def proxied(self, url: str) -> bool:
        """Whether the URL is reached through a proxy."""
        return bool(self._proxies.proxy_for(url))

    @override
    async def open(self, request: Request) -> Response:
        if request.span is not None and not request.span.length:
            raise ValueError(f"an empty span cannot be asked for: {request.span}")
        sent = await self._send(request)
        try:
            peer = self._peer(request, sent)
            if sent.status in (_OK, _PARTIAL, _UNCHANGED):
                return await self._response(request, sent, peer)
            headers = _headers_of(sent)
            bodiless = request.method == "HEAD"
            await discard(sent, 0 if bodiless else content_length(headers))
        except BaseException:
            await close(sent)
            raise
        span = request.span
        if sent.status == _UNSATISFIABLE and span is not None and span.start == 0:
            # No range of an empty resource can be had, not even the first byte; all of it can.
            return await self.open(replace(request, span=None, if_range=None))
        raise failure(request.method, request.url, sent.status, headers, peer)

    @override
    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            while self._pools:
                _, pool = self._pools.popitem()
                await pool.aclose()

    async def _send(self, request: Request) -> Reply:
        limits = self._limits
        number = str(uuid.uuid4())
        name = f"{request.method} {shown(request.url)}"
        message = self._message(request, number)
        pool = await self._pool(request.url)
        _LOG.debug("transport.request.sent %s span=%s id=%s", name, request.span, number)
        try:
            # This bounds a head that dribbles; the timeout for reading restarts at each byte.
            with trio.fail_after(limits.connect_s + limits.head_s):
                reply = await pool.send(message)
        except trio.TooSlowError as error:
            raise DeadlineError(f"{name}: no answer within {limits.head_s:g} s") from error
        except FAILURES as error:
            raise translated(name, error, proxied=self.proxied(request.url)) from error
        except UnicodeError as error:
            # From looking the host up: an empty label, or one of more than 63 letters.
            raise InvalidReferenceError(f"{name}: there can be no such host: {error}") from error
        _LOG.debug("transport.request.answered %s status=%d id=%s", name, reply.status, number)
        return reply

    def _message(self, request: Request, number: str) -> httpcore.Request:
        """The request in httpcore's words.

        Raises:
            InvalidReferenceError: its URL must not reach the network.
        """
        origin = Origin.of(request.url)
        url = httpcore.URL(
            scheme=origin.scheme,
            host=origin.spelled,
            port=None if origin.usual else origin.port,
            target=target_of(request.url),
        )
        connect_s, rest_s = self._limits.connect_s, self._limits.connect_s + self._limits.head_s
        patience = {"connect": connect_s, "read": rest_s, "write": rest_s}
        return httpcore.Request(
            request.method,
            url,
            headers=[
                (name.encode(), value.encode())
                for name, value in self._lines(request, origin, number)
            ],
            extensions={"timeout": patience},
        )

    def _lines(self, request: Request, origin: Origin, number: str) -> list[tuple[str, str]]:
        lines = [
            ("Host", origin.authority),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", self._user_agent),
            ("X-Request-ID", number),
        ]
        names = {name.lower() for name, _ in request.headers}
        lines = [line for line in lines if line[0].lower() not in names]
        return [*lines, *_conditions(request), *request.headers]

    async def _pool(self, url: str) -> Pool:
        """The pool for a URL: one for each proxy, and one more with TLS."""
        proxy = self._proxies.proxy_for(url)
        secure = "https" in {scheme_of(url), scheme_of(proxy)}
        if secure and self._tls is None:
            # A hundred certificates are read: not in this thread, and not for plain HTTP.
            self._tls = await trio.to_thread.run_sync(self._make_tls)
        pool = self._pools.get((proxy, secure))
        if pool is None:
            limits, tls = self._limits, self._tls if secure else None
            make = maker(self._network, tls, proxy, idle_s=limits.idle_s)
            pool = self._pools[proxy, secure] = Pool(
                make, places=limits.connections, idle=limits.idle
            )
        return pool

    async def _response(self, request: Request, sent: Reply, peer: str) -> Response:
        name = f"{request.method} {shown(request.url)}"
        status, headers = sent.status, _headers_of(sent)
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
            await discard(sent, 0)
            return Bodiless(head)
        length = None if span is None else span.length
        return HttpResponse(name, head, sent, self._limits.stall_s, length=length)

    def _peer(self, request: Request, sent: Reply) -> str:
        if self.proxied(request.url):
            return ""
        try:
            address = sent.peer()
        except OSError as error:
            raise UnreachableError(f"{shown(request.url)}: the connection broke") from error
        return str(address[0]) if isinstance(address, tuple) else ""


def _headers_of(sent: Reply) -> dict[str, str]:
    """Its headers; those that come several times are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in sent.headers:
        name, value = raw_name.decode("ascii").lower(), _text(raw_value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _text(value: bytes) -> str:
    """A header's value: UTF-8 where it is that, as some servers send Location."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


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
