"""Authenticating: anonymous bearer tokens for registries.

A registry answers 401 and names a token server; a token is got there and shown to the registry,
which then answers. Tokens are kept until they expire, for each (realm, service, scope), and are in
no repr, log or error.

Source: the token authentication of the OCI distribution project; RFC 6750.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
import trio
from cachetools import LRUCache
from typing_extensions import override

from cafs.concurrency import Flights
from cafs.errors import CredentialsError, NotFoundError, RefusedError
from cafs.model.address import shown
from cafs.transport.answers import ChallengeError
from cafs.transport.challenges import parse_challenges
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.redirecting import RedirectPolicy, Start
from cafs.transport.urls import Origin

_REMEMBERED: Final = 256
_ANSWER_LIMIT: Final = 1 << 20
_USUAL_LIFE_S: Final = 60.0
"""How long a token lives that does not say: the protocol's default."""
_SAFE_LIFE: Final = 0.9
"""The part of a token's life in which it is used: it may take a while to get there."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_PLACE: Final = re.compile(r"(.*?)/(manifests|blobs|tags|referrers)/")


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a token is asked for."""

    realm: str
    service: str
    scope: str

    @property
    def url(self) -> str:
        words = [("service", self.service)] if self.service else []
        words += [("scope", each) for each in self.scope.split()]
        mark = "&" if urlsplit(self.realm).query else "?"
        return f"{self.realm}{mark}{urlencode(words)}" if words else self.realm


@dataclass(frozen=True, slots=True)
class _Demand:
    """What a part of a registry wants, and where that registry is."""

    grant: _Grant
    start: Start


@dataclass(frozen=True, slots=True, eq=False)
class _Token:
    value: str = field(repr=False)
    expires: float


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class BearerAuth(Transport):
    """Gets and shows anonymous tokens where a registry asks for them.

    A token that is refused is renewed once. Requests that have an Authorization of their own pass
    untouched.

    Args:
        transport: what is asked, token servers too; it follows redirects and drops Authorization
            where it must.
        policy: where the name of a token server may lead, which is as far as a redirect.

    Concurrency: any number of tasks; those that want the same token wait for one request.
    """

    def __init__(self, transport: Transport, policy: RedirectPolicy | None = None) -> None:
        self._transport = transport
        self._policy = policy or RedirectPolicy()
        # Which token a repository wants is remembered, so that only its first request is refused.
        self._demands: LRUCache[str, _Demand] = LRUCache(_REMEMBERED)
        self._tokens: LRUCache[_Grant, _Token] = LRUCache(_REMEMBERED)
        self._flights: Flights[_Token] = Flights()

    @override
    async def open(self, request: Request) -> Response:
        """Ask, with a token where one is wanted.

        Raises:
            CredentialsError: the host wants other credentials than an anonymous token.
            PolicyError: the token server is where a redirect may not lead.
        """
        if any(name.lower() == "authorization" for name, _ in request.headers):
            return await self._transport.open(request)
        place = _place(request.url)
        demand = self._demands.get(place)
        used = await self._token(demand) if demand is not None else None
        try:
            return await self._transport.open(_shown_to(request, used))
        except ChallengeError as error:
            demand = await self._demand(request, error, demand)
        self._demands[place] = demand
        if used is not None and self._tokens.get(demand.grant) is used:
            del self._tokens[demand.grant]
        token = await self._token(demand)
        try:
            return await self._transport.open(_shown_to(request, token))
        except ChallengeError as error:
            raise CredentialsError(
                error.what, hint=f"{Origin.of(error.url).host} gives this to nobody unnamed"
            ) from error

    @override
    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _demand(
        self, request: Request, error: ChallengeError, known: _Demand | None
    ) -> _Demand:
        """What the refusal asks for.

        Raises:
            ChallengeError: nothing; it is the last word.
            CredentialsError: a name and a password.
        """
        if Origin.of(error.url) != Origin.of(request.url):
            raise error
        challenges = parse_challenges(error.challenge)
        for challenge in challenges:
            realm = challenge.parameter("realm")
            if challenge.scheme == "bearer" and realm:
                start = await self._policy.start(request.url, error.peer)
                grant = _Grant(realm, challenge.parameter("service"), challenge.parameter("scope"))
                return _Demand(grant, start)
        if challenges:
            schemes = ", ".join(each.scheme for each in challenges)
            raise CredentialsError(
                error.what, hint=f"{Origin.of(error.url).host} wants credentials ({schemes})"
            ) from error
        if known is None:
            raise error
        return known

    async def _token(self, demand: _Demand) -> _Token:
        token = self._tokens.get(demand.grant)
        if token is not None and trio.current_time() < token.expires:
            return token

        async def fly() -> _Token:
            return await self._fetched(demand)

        return await self._flights.run((demand.grant, token), fly)

    async def _fetched(self, demand: _Demand) -> _Token:
        grant, start = demand.grant, demand.start
        await self._policy.check(start, start.url, grant.realm)
        try:
            async with await self._transport.open(Request(grant.url)) as response:
                if response.head.peer:
                    self._policy.check_address(start, grant.realm, response.head.peer)
                answer = _parsed(grant.realm, await _read(response))
        except ChallengeError as error:
            raise CredentialsError(
                f"{shown(grant.realm)}: no anonymous token for {grant.scope or shown(start.url)}",
                hint=f"{Origin.of(start.url).host} wants credentials",
            ) from error
        except NotFoundError as error:
            raise RefusedError(f"{shown(start.url)}: no token server at {error.what}") from error
        life_s = _USUAL_LIFE_S if answer.expires_in is None else answer.expires_in
        token = _Token(
            answer.token or answer.access_token, trio.current_time() + _SAFE_LIFE * life_s
        )
        self._tokens[grant] = token
        return token


async def _read(response: Response) -> bytes:
    data = bytearray()
    while piece := await response.receive():
        data += piece
        if len(data) > _ANSWER_LIMIT:
            raise RefusedError(f"{shown(response.head.url)}: a token of more than a MiB")
    return bytes(data)


def _parsed(realm: str, data: bytes) -> _Answer:
    # The bytes may be a token, so neither they nor the parser's message are shown.
    try:
        answer = msgspec.json.decode(data, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError(f"{shown(realm)}: its answer holds no token") from None
    if not _TOKEN.fullmatch(answer.token or answer.access_token):
        raise RefusedError(f"{shown(realm)}: its answer holds no token")
    return answer


def _place(url: str) -> str:
    """The part of a registry that wants one token: a repository."""
    path = urlsplit(url).path
    found = _PLACE.match(path)
    return f"{Origin.of(url)}{found[1] if found else path}"


def _shown_to(request: Request, token: _Token | None) -> Request:
    if token is None:
        return request
    line = ("Authorization", f"Bearer {token.value}")
    return replace(request, headers=(*request.headers, line))
