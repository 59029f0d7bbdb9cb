"""HTTP and HTTPS: one request, one response, over pooled connections.

No redirects, no retries, no cookies, no credentials: wrappers do what of these is wanted. httpcore
speaks HTTP/1.1; its doors are here, in ``asking``, ``connecting``, ``pooling`` and ``receiving``.

- ``asking`` puts the request into its words.
- ``answers`` checks the head against the request before anyone sees it.
- What comes after the head is for ``receiving``, with ``stalling`` and ``digests``.
"""

import logging
import ssl
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

import msgspec
import trio
from typing_extensions import override

from cafs import __version__
from cafs.errors import DeadlineError, InvalidReferenceError, SettingsError, UnreachableError
from cafs.model.address import shown
from cafs.model.login import HostLogin
from cafs.model.pacing import Pacing
from cafs.transport.answers import ANSWERS, failure, head_of, headers_of
from cafs.transport.asking import message
from cafs.transport.connecting import Network
from cafs.transport.digests import Checking, told
from cafs.transport.heads import content_length
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
from cafs.transport.stalling import Stalls
from cafs.transport.trusting import Trust
from cafs.transport.urls import Origin, scheme_of

_LOG: Final = logging.getLogger("cafs.transport")

_WHOLE: Final = 200
_UNSATISFIABLE: Final = 416
_ASKED: Final = "http11.send_request_headers.complete"
"""What httpcore calls the moment from which an answer is waited for."""


class HttpLimits(msgspec.Struct, frozen=True):
    """Patience and numbers of an HttpTransport.

    ``connect_s`` bounds making a connection, ``head_s`` the wait for a complete head after the
    request was sent. The wait between bytes of a body is bounded by what the host's own past says,
    at least ``stall_floor_s`` and at most ``stall_s``. ``connections`` are used at once, and
    ``idle`` more are kept for another request, for at most ``idle_s``: so many by each way,
    directly or by a proxy, plainly or with TLS.
    """

    connect_s: float = 10.0
    head_s: float = 30.0
    stall_s: float = 20.0
    stall_floor_s: float = 2.0
    connections: int = 64
    idle: int = 16
    idle_s: float = 30.0

    @classmethod
    def of(cls, pacing: Pacing) -> Self:
        """Those of the settings; a connection that was useful at once is kept."""
        return cls(
            connect_s=pacing.connect_s,
            head_s=pacing.first_byte_s,
            stall_s=pacing.stall_s,
            stall_floor_s=pacing.stall_floor_s,
            connections=pacing.connections,
            idle=max(pacing.per_host, pacing.prefetch_connections),
        )


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
        tls: says what is trusted; called in a thread, when TLS is first wanted.
        logins: of the settings; they name the certificates that are shown to hosts.
        user_agent: what servers are told.

    Concurrency: any number of tasks; those above the number of connections wait.
    """

    def __init__(
        self,
        *,
        limits: HttpLimits | None = None,
        proxies: Proxies | None = None,
        tls: Callable[[], ssl.SSLContext] = tls_context,
        logins: Sequence[HostLogin] = (),
        user_agent: str = f"cafs/{__version__}",
    ) -> None:
        self._limits = limits or HttpLimits()
        self._proxies = proxies or Proxies()
        self._trust = Trust(tls, logins)
        self._user_agent = user_agent
        self._stalls = Stalls(floor_s=self._limits.stall_floor_s, cap_s=self._limits.stall_s)
        self._network = Network()
        self._pools: dict[tuple[str, ssl.SSLContext | None], Pool] = {}
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
            headers = headers_of(sent.headers)
            peer = self._peer(request, sent)
            if sent.status in ANSWERS:
                return await self._response(
                    request, sent, head_of(request, sent.status, headers, peer)
                )
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
        sent = message(request, number=number, user_agent=self._user_agent)
        pool = await self._pool(request.url)
        _LOG.debug("transport.request.sent %s span=%s id=%s", name, request.span, number)
        began = trio.current_time()
        asked = False
        try:
            # This bounds a head that dribbles; the timeout for reading restarts at each byte.
            with trio.fail_after(limits.connect_s + limits.head_s) as scope:

                async def trace(event: str, _: dict[str, object]) -> None:
                    if event == _ASKED:
                        nonlocal asked, began
                        asked, began = True, trio.current_time()
                        scope.deadline = began + limits.head_s

                sent.extensions = {"timeout": self._timeouts(), "trace": trace}
                reply = await pool.send(sent)
        except trio.TooSlowError as error:
            raise DeadlineError(f"{name}: no answer within {limits.head_s:g} s") from error
        except trio.Cancelled:
            if asked and request.failed is not None:
                # Who waits no more for it may say why: a source that is there, and is silent.
                request.failed(
                    DeadlineError(f"{name}: it took the request, and did not answer to the end")
                )
            raise
        except FAILURES as error:
            raise translated(name, error, proxied=self.proxied(request.url)) from error
        except UnicodeError as error:
            # From looking the host up: an empty label, or one of more than 63 letters.
            raise InvalidReferenceError(f"{name}: there can be no such host: {error}") from error
        self._stalls.note(_host(request.url), trio.current_time() - began)
        _LOG.debug("transport.request.answered %s status=%d id=%s", name, reply.status, number)
        return reply

    def _timeouts(self) -> dict[str, float]:
        """What httpcore gives up by itself: the last resort, but for connecting."""
        limits = self._limits
        rest_s = max(limits.connect_s + limits.head_s, limits.stall_s)
        return {"connect": limits.connect_s, "read": rest_s, "write": rest_s}

    async def _pool(self, url: str) -> Pool:
        """The pool for a URL: one for each proxy, and one more for each TLS context."""
        proxy = self._proxies.proxy_for(url)
        secure, through = scheme_of(url) == "https", scheme_of(proxy) == "https"
        tls = await self._trust.context(url) if secure else None
        # A certificate of ours is for the host, not for the proxy before it.
        proxy_tls = await self._trust.context() if through else None
        pool = self._pools.get((proxy, tls))
        if pool is None:
            limits = self._limits
            make = maker(self._network, tls, proxy, proxy_tls, idle_s=limits.idle_s)
            pool = self._pools[proxy, tls] = Pool(make, places=limits.connections, idle=limits.idle)
            await self._retire()
        return pool

    async def _retire(self) -> None:
        """Make no more connections with certificates of ours that have been replaced."""
        for key, pool in list(self._pools.items()):
            if not self._trust.uses(key[1]):
                await pool.retire()
                if not pool.busy:
                    self._pools.pop(key, None)

    async def _response(self, request: Request, sent: Reply, head: Head) -> Response:
        if head.unchanged or request.method == "HEAD":
            await discard(sent, 0)
            return Bodiless(head)
        name = f"{request.method} {shown(request.url)}"
        expected = told(head.headers, whole=head.status == _WHOLE)
        return HttpResponse(
            name,
            head,
            sent,
            self._stalls.watch(_host(request.url), resumable=head.status != _WHOLE),
            length=None if head.span is None else head.span.length,
            checking=Checking(name, expected) if expected else None,
        )

    def _peer(self, request: Request, sent: Reply) -> str:
        if self.proxied(request.url):
            return ""
        try:
            address = sent.peer()
        except OSError as error:
            raise UnreachableError(f"{shown(request.url)}: the connection broke") from error
        return str(address[0]) if isinstance(address, tuple) else ""


def _host(url: str) -> str:
    """Whose habits are learned."""
    return Origin.of(url).authority
