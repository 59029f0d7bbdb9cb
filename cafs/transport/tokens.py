"""Tokens: what a registry's token server gives, to somebody or to nobody in particular.

Tokens are kept until they expire, for each registry and each (realm, service, scope): what one
registry's credentials got is never shown to another, though it names the same token server. They
are in no repr, log or error.

Source: the token authentication and the OAuth2 token exchange of the OCI distribution project; RFC
6749 §6; RFC 6750.
"""

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

import msgspec
import trio
from cachetools import LRUCache

from cafs.concurrency import Flights
from cafs.errors import CredentialsError, NotFoundError, RefusedError
from cafs.model.address import shown
from cafs.transport.credentials.credential import Credential
from cafs.transport.credentials.keeping import Credentials
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
_CLIENT: Final = "cafs"
_FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")


class Grant(msgspec.Struct, frozen=True):
    """What a token is asked for, and by which registry."""

    registry: Origin
    realm: str
    service: str
    scope: str

    @property
    def words(self) -> list[tuple[str, str]]:
        """Service and scopes, as a query has them."""
        words = [("service", self.service)] if self.service else []
        return words + [("scope", each) for each in self.scope.split()]

    @property
    def url(self) -> str:
        """Where it is asked for by GET."""
        mark = "&" if urlsplit(self.realm).query else "?"
        return f"{self.realm}{mark}{urlencode(self.words)}" if self.words else self.realm

    @property
    def form(self) -> bytes:
        """What is asked for by POST, but for the proof; the scopes are one field there."""
        words = [("service", self.service), ("scope", self.scope), ("client_id", _CLIENT)]
        return urlencode([*words, ("grant_type", "refresh_token")]).encode()


class Demand(msgspec.Struct, frozen=True):
    """What a part of a registry wants, and where that registry is."""

    grant: Grant
    start: Start


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """A token. ``source`` says for whom it was got, for people."""

    value: str = field(repr=False)
    expires: float
    source: str


class _Answer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class Tokens:
    """Gets tokens, and keeps them.

    Args:
        transport: asks the token servers; it follows redirects and drops Authorization where it
            must.
        policy: where the name of a token server may lead, which is as far as a redirect.
        credentials: say to whom credentials may be shown.

    Concurrency: any number of tasks; those that want the same token wait for one request.
    """

    def __init__(
        self, transport: Transport, policy: RedirectPolicy, credentials: Credentials
    ) -> None:
        self._transport = transport
        self._policy = policy
        self._credentials = credentials
        self._tokens: LRUCache[Grant, Token] = LRUCache(_REMEMBERED)
        self._flights: Flights[Token] = Flights()

    async def get(self, demand: Demand, credential: Credential | None) -> Token:
        """The token for a demand: one that is here, or a new one.

        Raises:
            CredentialsError: the token server wants credentials, or others, or it is at a place
                where none may be shown.
            PolicyError: the token server is where a redirect may not lead.
            CafsError: as the token server failed.

        Cancellation: no effect.
        """
        token = self._tokens.get(demand.grant)
        if token is not None and trio.current_time() < token.expires:
            return token

        async def fly() -> Token:
            return await self._fetched(demand, credential)

        mark = None if credential is None else credential.mark
        return await self._flights.run((demand.grant, token, mark), fly)

    def forget(self, token: Token) -> None:
        """Do not use a token again: it was refused."""
        for grant in [each for each, kept in self._tokens.items() if kept is token]:
            del self._tokens[grant]

    async def _fetched(self, demand: Demand, credential: Credential | None) -> Token:
        grant, start = demand.grant, demand.start
        await self._policy.check(start, start.url, grant.realm)
        if credential is not None and not self._credentials.permits(grant.realm):
            raise CredentialsError(
                f"{shown(grant.realm)}: no credentials are shown to a token server by plain http"
            )
        try:
            async with await self._transport.open(_question(grant, credential)) as response:
                if response.head.peer:
                    self._policy.check_address(start, grant.realm, response.head.peer)
                answer = _parsed(grant.realm, await _read(response))
        except NotFoundError as error:
            raise RefusedError(f"{shown(start.url)}: no token server at {error.what}") from error
        life_s = _USUAL_LIFE_S if answer.expires_in is None else answer.expires_in
        value = answer.token or answer.access_token
        source = "nobody in particular" if credential is None else credential.source
        token = Token(value, trio.current_time() + _SAFE_LIFE * life_s, source)
        self._tokens[grant] = token
        return token


def _question(grant: Grant, credential: Credential | None) -> Request:
    if credential is None:
        return Request(grant.url)
    if not credential.refresh:
        return Request(grant.url, headers=credential.lines)
    proof = urlencode([("refresh_token", credential.refresh)]).encode()
    return Request(
        grant.realm, method="POST", headers=(_FORM,), body=b"&".join([grant.form, proof])
    )


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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedError(f"{shown(realm)}: its answer holds no token") from None
    if not _TOKEN.fullmatch(answer.token or answer.access_token):
        raise RefusedError(f"{shown(realm)}: its answer holds no token")
    return answer
