"""Authenticating: shows who asks to those who want to know, and to nobody else.

Credentials for a host are shown to it from the first request on; what a redirect to another origin
leads to gets none of them. A registry is asked without any at first: it answers 401 and names a
token server, a token is got there, by credentials or anonymously, and shown to the registry.

What is refused is renewed once. No credential and no token is in a repr, log or error.

Source: the token authentication of the OCI distribution project; RFC 7617; RFC 6750.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
from cachetools import LRUCache
from typing_extensions import override

from cafs.errors import CafsError, CredentialsError, RefusedError
from cafs.model.address import shown
from cafs.transport.answers import ChallengeError
from cafs.transport.challenges import Challenge, parse_challenges
from cafs.transport.credentials.credential import Credential, Finding, Lines
from cafs.transport.credentials.interfaces import Asked, repository_of
from cafs.transport.credentials.keeping import Credentials
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.redirecting import RedirectPolicy
from cafs.transport.tokens import Demand, Grant, Token, Tokens
from cafs.transport.urls import Origin, split

_REMEMBERED: Final = 256
_REFUSALS: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Showing:
    """What one request showed. ``told`` says it for people."""

    told: str = "nothing"
    lines: Lines = field(default=(), repr=False)
    credential: Credential | None = None
    token: Token | None = None

    @classmethod
    def itself(cls, credential: Credential) -> "Showing":
        """A credential, as it is."""
        told = f"{credential.kind} from {credential.source}"
        return cls(told, credential.lines, credential=credential)

    @classmethod
    def by_token(cls, token: Token, realm: str) -> "Showing":
        """A token that a credential, or nobody, was given."""
        told = f"token of {shown(realm)} for {token.source}"
        return cls(told, (("Authorization", f"Bearer {token.value}"),), token=token)


class Tried(msgspec.Struct, frozen=True):
    """One request, for who wants to know how an answer came about: what it showed, what came."""

    url: str
    showed: str
    outcome: str


def nobody(tried: Tried) -> None:
    """Tell nobody."""


class Authenticating(Transport):
    """Shows credentials and tokens where they are wanted.

    Requests that have an Authorization of their own pass untouched.

    Args:
        transport: what is asked, token servers too; it follows redirects and drops what proves who
            asks where it must.
        policy: where the name of a token server may lead, which is as far as a redirect.
        credentials: what is known of who we are.
        witness: told of each request.

    Concurrency: any number of tasks; those that want the same token wait for one request.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RedirectPolicy | None = None,
        credentials: Credentials | None = None,
        witness: Callable[[Tried], None] = nobody,
    ) -> None:
        self._transport = transport
        self._policy = policy or RedirectPolicy()
        self._credentials = credentials or Credentials()
        self._witness = witness
        self._tokens = Tokens(transport, self._policy, self._credentials)
        # Which token a repository wants is remembered, so that only its first request is refused;
        # None is remembered of one that wants credentials themselves.
        self._demands: LRUCache[str, Demand | None] = LRUCache(_REMEMBERED)

    @override
    async def open(self, request: Request) -> Response:
        """Ask, and show what is wanted.

        Raises:
            CredentialsError: the host wants credentials, or others than those that are known.
            PolicyError: the token server is where a redirect may not lead.
        """
        if any(name.lower() == "authorization" for name, _ in request.headers):
            return await self._transport.open(request)
        asking = _Asking(Asked.of(request.url))
        showing = await self._first(asking)
        while True:
            try:
                return await self._ask(request, showing)
            except ChallengeError as error:
                if error.status not in _REFUSALS:
                    raise
                if Origin.of(error.url) != asking.asked.origin:
                    error.hint = f"no credentials are shown to {Origin.of(error.url).host}, where "
                    error.hint += f"{asking.asked.origin.host} sends its readers"
                    raise
                showing = await self._better(asking, showing, error)

    @override
    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _ask(self, request: Request, showing: Showing) -> Response:
        asked = replace(request, headers=(*request.headers, *showing.lines))
        try:
            response = await self._transport.open(asked)
        except CafsError as error:
            self._witness(Tried(shown(request.url), showing.told, error.what))
            raise
        self._witness(Tried(shown(request.url), showing.told, str(response.head.status)))
        return response

    async def _first(self, asking: "_Asking") -> Showing:
        """What is shown unasked."""
        demand = self._demands.get(asking.place)
        if demand is not None:
            return await self._by_token(asking, demand)
        if asking.asked.registry and asking.place not in self._demands:
            return Showing()
        credential = (await self._credentials.of(asking.asked.url)).credential
        return Showing() if credential is None else Showing.itself(credential)

    async def _better(self, asking: "_Asking", showing: Showing, error: ChallengeError) -> Showing:
        """What is shown after a refusal.

        Raises:
            CredentialsError: there is nothing better to show.
        """
        challenges = parse_challenges(error.challenge)
        finding = await self._credentials.of(asking.asked.url)
        demand = await self._demand(asking, error, challenges)
        if demand is None and showing.token is not None:
            demand = self._demands.get(asking.place)
        if demand is not None and not _stands_alone(finding.credential):
            if asking.got:
                raise _denied(error, showing, finding) from error
            if showing.token is not None:
                self._tokens.forget(showing.token)
            self._demands[asking.place] = demand
            asking.got = True
            return await self._by_token(asking, demand)
        if showing.credential is not None:
            credential = await self._renewed(asking, showing.credential)
            if credential is None:
                raise _denied(error, showing, finding) from error
            return Showing.itself(credential)
        if finding.credential is None or not finding.credential.lines:
            raise _lacking(error, challenges, finding) from error
        self._demands[asking.place] = None
        return Showing.itself(finding.credential)

    async def _demand(
        self, asking: "_Asking", error: ChallengeError, challenges: tuple[Challenge, ...]
    ) -> Demand | None:
        """The token that a refusal asks for, None when it asks for none."""
        for challenge in challenges:
            realm = challenge.parameter("realm")
            if challenge.scheme == "bearer" and realm:
                start = await self._policy.start(error.url, error.peer)
                grant = Grant(
                    asking.asked.origin,
                    realm,
                    challenge.parameter("service"),
                    challenge.parameter("scope"),
                )
                return Demand(grant, start)
        return None

    async def _by_token(self, asking: "_Asking", demand: Demand) -> Showing:
        """Show a token.

        Raises:
            CredentialsError: the token server gives none.
        """
        finding = await self._credentials.of(asking.asked.url)
        credential = finding.credential
        if credential is not None and _stands_alone(credential):
            return Showing.itself(credential)
        while True:
            try:
                token = await self._tokens.get(demand, credential)
            except (ChallengeError, RefusedError) as error:
                refusal = isinstance(error, ChallengeError)
                # An identity token that is over is answered by 400 (RFC 6749 §5.2).
                if not refusal and (credential is None or not credential.refresh):
                    raise
                better = credential and await self._renewed(asking, credential)
                if better is None:
                    raise _without_token(demand, error, finding) from error
                credential = better
            else:
                return Showing.by_token(token, demand.grant.realm)

    async def _renewed(self, asking: "_Asking", refused: Credential) -> Credential | None:
        """Other credentials than those that were refused, once for a request."""
        url = asking.asked.url
        if asking.renewed:
            self._credentials.given_up(url, refused)
            return None
        asking.renewed = True
        finding = await self._credentials.renewed(url, refused)
        return None if finding is None else finding.credential


class _Asking:
    """How far one request has come: whether a token was got for it, or a credential renewed."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        path = split(asked.url).path
        self.place = f"{asked.origin}{repository_of(path) or path}"
        """The part of a registry that wants one token: a repository."""
        self.got = False
        self.renewed = False


def _stands_alone(credential: Credential | None) -> bool:
    """Whether a credential is for the host itself, whatever the host says of a token server."""
    return credential is not None and credential.kind in {"bearer", "headers"}


def _denied(error: ChallengeError, showing: Showing, finding: Finding) -> CredentialsError:
    host = Origin.of(error.url).host
    if finding.credential is None:
        hint = f"{host} gives this to nobody unnamed{_told(finding)}"
    else:
        hint = f"{host} refuses {showing.told}"
    return CredentialsError(error.what, hint=hint)


def _lacking(
    error: ChallengeError, challenges: tuple[Challenge, ...], finding: Finding
) -> CredentialsError:
    schemes = ", ".join(each.scheme for each in challenges)
    wants = f"wants credentials ({schemes})" if schemes else "wants credentials"
    return CredentialsError(error.what, hint=f"{Origin.of(error.url).host} {wants}{_told(finding)}")


def _without_token(demand: Demand, error: CafsError, finding: Finding) -> CredentialsError:
    grant, start = demand.grant, demand.start
    what = f"{shown(grant.realm)}: no token for {grant.scope or shown(start.url)}"
    if finding.credential is None:
        hint = f"{grant.registry.host} wants credentials{_told(finding)}"
    else:
        hint = f"it refuses {finding.credential.kind} from {finding.credential.source}"
    return CredentialsError(f"{what}: {error.what}", hint=hint)


def _told(finding: Finding) -> str:
    return f"; {finding.told}" if finding.looks else ""
