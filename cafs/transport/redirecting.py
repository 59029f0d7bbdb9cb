"""Redirecting: follows redirects, but not to where they must not lead.

A source that a person named may send a reader elsewhere on the public network. It may not send it
to this machine, to the machines around it or to the metadata service of a cloud: the answer would
be shown to whoever reads the mount.

Names are resolved and checked before anything is sent, and the address of the connection is checked
after, since a name can mean another address a moment later.

Where a redirect leads is not remembered. Still it may be stale when it is used: a cache before the
source can hand out a signed URL that has expired. A target that forbids is asked for anew, once,
past the caches.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urljoin

import msgspec
from typing_extensions import override

from cafs.errors import InvalidReferenceError, PolicyError, RefusedError
from cafs.model.address import shown
from cafs.transport.addresses import Reach, literal, reach_of, resolve
from cafs.transport.answers import BadRequestError, ChallengeError, RedirectError
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.urls import Origin, scheme_of

_PUBLIC_HEADERS: Final = frozenset({"accept", "cache-control"})
"""What another origin may see. A credential helper may have given headers of any name."""
_PAST_CACHES: Final = ("Cache-Control", "no-cache")
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403


def _never(url: str) -> bool:  # noqa: ARG001 - the shape of a predicate
    return False


class Start(msgspec.Struct, frozen=True):
    """Where a chain of redirects began: the first URL, and whom its address reaches."""

    url: str
    reach: frozenset[Reach]


class RedirectPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Where a redirect may lead.

    ``limit`` redirects are followed for one request (R-30). ``resolve`` gives all addresses of a
    host and port. ``proxied`` says that a URL is reached through a proxy: its name means what the
    proxy says, so only addresses that are spelled out can be checked.
    """

    limit: int = 10
    resolve: Callable[[str, int], Awaitable[tuple[str, ...]]] = resolve
    proxied: Callable[[str], bool] = _never

    async def start(self, url: str, peer: str) -> Start:
        """Note where a chain begins.

        Args:
            url: the first URL.
            peer: the address that answered for it; empty when that is not known.

        Raises:
            UnreachableError: the peer is not known, and the host has no address.
        """
        if peer:
            return Start(url, frozenset({reach_of(peer)}))
        return Start(url, frozenset(map(reach_of, await self._addresses(url))))

    async def check(self, start: Start, source: str, target: str) -> None:
        """Refuse a target that a redirect may not lead to; nothing is sent to it.

        Args:
            start: where the chain began.
            source: the URL that names the target.
            target: the absolute URL of the target.

        Raises:
            PolicyError: another scheme than http(s), https to http, credentials in the URL, or
                an address that is neither public nor of the first URL's own kind.
            UnreachableError: the target's host has no address.
        """
        if scheme_of(target) not in {"http", "https"}:
            raise PolicyError(f"{shown(source)}: redirects to {shown(target)}, which is no http(s)")
        if scheme_of(source) == "https" and scheme_of(target) != "https":
            raise PolicyError(f"{shown(source)}: redirects to {shown(target)}, which is not secure")
        try:
            addresses = await self._addresses(target)
        except InvalidReferenceError as error:
            raise PolicyError(f"{shown(source)}: redirects to an improper URL") from error
        for address in addresses:
            self.check_address(start, target, address)

    def check_address(self, start: Start, target: str, address: str) -> None:
        """Refuse an address that is neither public nor of the first URL's own kind.

        Raises:
            PolicyError: it is refused.
        """
        reach = reach_of(address)
        if reach is not Reach.PUBLIC and reach not in start.reach:
            raise PolicyError(
                f"{shown(start.url)}: redirects to {shown(target)}, a {reach} address ({address})",
                hint="only a source at such an address itself may redirect to one",
            )

    async def _addresses(self, url: str) -> tuple[str, ...]:
        origin = Origin.of(url)
        spelled = literal(origin.host)
        if spelled:
            return (spelled,)
        if self.proxied(url):
            return ("127.0.0.1",) if _names_this_machine(origin.host) else ()
        return await self.resolve(origin.host, origin.port)


class Redirecting(Transport):
    """Follows the redirects of another transport. Heads have the URL that was reached at last.

    Headers that may prove who asks stay behind when scheme, host or port change, and a question
    with a body, which may do so too, is not asked anywhere else.
    """

    def __init__(self, transport: Transport, policy: RedirectPolicy) -> None:
        self._transport = transport
        self._policy = policy

    @override
    async def open(self, request: Request) -> Response:
        try:
            return await self._transport.open(request)
        except RedirectError as error:
            if request.body:
                raise
            redirect = error
        try:
            return await self._follow(request, redirect)
        except (ChallengeError, BadRequestError) as error:
            if not _expired(error):
                raise
        anew = replace(request, headers=(*request.headers, _PAST_CACHES))
        try:
            return await self._transport.open(anew)
        except RedirectError as error:
            return await self._follow(anew, error)

    @override
    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _follow(self, request: Request, first: RedirectError) -> Response:
        start = await self._policy.start(request.url, first.peer)
        redirect = first
        for _ in range(self._policy.limit):
            target = _target(redirect)
            await self._policy.check(start, redirect.url, target)
            request = _redirected(request, target)
            try:
                response = await self._transport.open(request)
            except RedirectError as error:
                self._check_peer(start, target, error.peer)
                redirect = error
                continue
            except ChallengeError as error:
                self._check_peer(start, target, error.peer)
                raise
            try:
                self._check_peer(start, target, response.head.peer)
            except PolicyError:
                await response.aclose()
                raise
            return response
        raise RefusedError(
            f"{shown(start.url)}: more than {self._policy.limit} redirects",
            hint=f"the last one was to {shown(_target(redirect))}",
        ) from redirect

    def _check_peer(self, start: Start, target: str, peer: str) -> None:
        if peer:
            self._policy.check_address(start, target, peer)


def _expired(error: ChallengeError | BadRequestError) -> bool:
    """Whether a target refuses, and names no proof that would help: so does an expired URL."""
    if isinstance(error, BadRequestError):
        return True
    return error.status == _FORBIDDEN or (error.status == _UNAUTHORIZED and not error.challenge)


def _target(redirect: RedirectError) -> str:
    if not redirect.location:
        raise RefusedError(f"{shown(redirect.url)}: redirects to nowhere") from redirect
    try:
        target = urljoin(redirect.url, redirect.location).partition("#")[0]
    except ValueError as error:
        raise RefusedError(f"{shown(redirect.url)}: redirects to an improper URL") from error
    if not target.isprintable():
        raise RefusedError(f"{shown(redirect.url)}: redirects to an improper URL") from redirect
    return target


def _redirected(request: Request, target: str) -> Request:
    headers = request.headers
    if Origin.of(request.url) != Origin.of(target):
        headers = tuple(line for line in headers if line[0].lower() in _PUBLIC_HEADERS)
    return replace(request, url=target, headers=headers)


def _names_this_machine(host: str) -> bool:
    """RFC 6761 §6.3: these names are loopback, whatever a resolver says."""
    name = host.rstrip(".")
    return name == "localhost" or name.endswith(".localhost")
