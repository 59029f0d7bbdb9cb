"""What may go wrong at the test origin. Each fault is a frozen value for ``Origin.fault``.

Every fault takes ``skip`` (that many requests of the path pass first) and ``times`` (how many it
then strikes; None is all). Several faults of one path strike together, in the order they were set.
"""

import re
import secrets
import threading
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

from typing_extensions import override

from cafs.model.span import Span
from cafs.testing.answers import Answer, Ask, Headers, Resource, text_answer
from cafs.testing.bodies import Corrupted


class Effect(Protocol):
    """What a fault changes. Called on the origin's thread, never by two requests at once."""

    @abstractmethod
    def strikes(self, ask: Ask) -> bool:
        """Whether this request counts for ``skip`` and ``times``."""

    @abstractmethod
    def hear(self, ask: Ask) -> Ask:
        """The request as the origin shall understand it."""

    @abstractmethod
    def hold(self, resource: Resource) -> Resource:
        """The resource as the origin shall see it."""

    @abstractmethod
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        """The answer as it shall be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Effect):
    """Nothing goes wrong. Subclasses change the request, the resource or the answer."""

    skip: int = 0
    times: int | None = None

    @override
    def strikes(self, ask: Ask) -> bool:
        return True

    @override
    def hear(self, ask: Ask) -> Ask:
        return ask

    @override
    def hold(self, resource: Resource) -> Resource:
        return resource

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _BodyFault(Fault):
    @override
    def strikes(self, ask: Ask) -> bool:
        return ask.method == "GET"


@dataclass(frozen=True, slots=True)
class Drop(_BodyFault):
    """The connection ends after so many bytes of the body; by FIN, or by RST when ``reset``."""

    after_bytes: int = 0
    reset: bool = False

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, cut_after=self.after_bytes, reset=self.reset)


@dataclass(frozen=True, slots=True)
class Stall(_BodyFault):
    """Nothing more comes after so many bytes of the body, until ``Origin.release``."""

    after_bytes: int = 0

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, stall_after=self.after_bytes)


@dataclass(frozen=True, slots=True)
class StallBeyond(_BodyFault):
    """Nothing comes of what lies at this offset of the resource or beyond, until ``release``.

    Requests that begin at ``until`` or later pass.
    """

    at: int = 0
    until: int = 1 << 62

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if answer.span.stop <= self.at or answer.span.start >= self.until:
            return answer
        return replace(answer, stall_after=max(0, self.at - answer.span.start))


@dataclass(frozen=True, slots=True)
class HangBeforeHead(Fault):
    """The request is taken, and nothing comes, until ``Origin.release``."""

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, hang=True)


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Another status than the right one."""

    code: int = HTTPStatus.SERVICE_UNAVAILABLE
    headers: Headers = ()

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return text_answer(self.code, f"status {self.code}\n", self.headers)


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """The content is elsewhere; ``location`` may be relative."""

    location: str
    code: int = HTTPStatus.FOUND

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return text_answer(self.code, "elsewhere\n", (("Location", self.location),))


@dataclass(frozen=True, slots=True)
class Corrupt(_BodyFault):
    """The byte at this offset of the resource is flipped."""

    at: int = 0

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, body=Corrupted(answer.body, self.at))


@dataclass(frozen=True, slots=True)
class Truncate(_BodyFault):
    """The body ends early, and Content-Length agrees: only Content-Range still tells the truth."""

    to: int = 0

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        start, stop = answer.span.start, answer.span.stop
        return replace(answer, span=Span(start, min(stop, start + self.to)))


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """Ranges are not known here: 200 and everything."""

    @override
    def hear(self, ask: Ask) -> Ask:
        return replace(ask, headers=tuple(pair for pair in ask.headers if pair[0] != "range"))

    @override
    def hold(self, resource: Resource) -> Resource:
        return replace(resource, ranges=False)


@dataclass(frozen=True, slots=True)
class WrongContentRange(Fault):
    """A 206 whose Content-Range says another place: ``shift`` bytes further on."""

    shift: int = 1

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, headers=tuple(map(self._shifted, answer.headers)))

    def _shifted(self, header: tuple[str, str]) -> tuple[str, str]:
        name, value = header
        place = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", value)
        if name != "Content-Range" or place is None:
            return header
        first, last, size = map(int, place.groups())
        return name, f"bytes {first + self.shift}-{last + self.shift}/{size + self.shift}"


@dataclass(frozen=True, slots=True)
class ChangedEtag(Fault):
    """Another version appeared; with ``skip=n`` after n requests. The bytes stay."""

    etag: str = '"changed"'

    @override
    def hold(self, resource: Resource) -> Resource:
        return replace(resource, etag=self.etag)


@dataclass(frozen=True, slots=True)
class NoValidators(Fault):
    """Neither ETag nor Last-Modified."""

    @override
    def hold(self, resource: Resource) -> Resource:
        return replace(resource, etag=None, last_modified=None)


@dataclass(frozen=True, slots=True)
class NoLength(Fault):
    """No Content-Length: the body comes in chunks."""

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, chunked=True)


@dataclass(frozen=True, slots=True)
class Latency(Fault):
    """So many seconds pass before the head."""

    seconds: float

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, delay_s=self.seconds)


@dataclass(frozen=True, slots=True)
class SlowHeaders(Fault):
    """So many seconds pass between the bytes of the head."""

    interval_s: float

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, head_interval_s=self.interval_s)


@dataclass(frozen=True, slots=True)
class Rate(_BodyFault):
    """The body comes at so many bytes a second: each by itself, or all ``shared`` together."""

    bytes_per_s: float
    shared: bool = False

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        return replace(answer, rate=self.bytes_per_s, shared=self.shared)


@dataclass(frozen=True, slots=True)
class RequireBearer(Fault):
    """401 without a token that this fault's own token server gave, at ``realm`` on the origin.

    ``lives`` is how many requests a token is good for (None: any number); ``expires_in`` is what
    the token server says of it in seconds. ``expire`` voids all of them.

    Concurrency: any number of threads.
    """

    service: str = "cafs-test"
    scope: str = ""
    realm: str = "/token"
    lives: int | None = None
    expires_in: int = 300
    _tokens: dict[str, int | None] = field(default_factory=dict, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @override
    def spoil(self, ask: Ask, answer: Answer) -> Answer:
        if self._spend((ask.header("authorization") or "").removeprefix("Bearer ")):
            return answer
        challenge = f'Bearer realm="{ask.base}{self.realm}",service="{self.service}"'
        if self.scope:
            challenge += f',scope="{self.scope}"'
        return text_answer(
            HTTPStatus.UNAUTHORIZED, "token wanted\n", (("WWW-Authenticate", challenge),)
        )

    def issue(self, ask: Ask) -> Answer:
        """The token server: a new token for whoever asks for this service."""
        if parse_qs(ask.query).get("service") != [self.service]:
            return text_answer(HTTPStatus.BAD_REQUEST, f"no such service: {ask.query}\n")
        token = secrets.token_hex(16)
        with self._lock:
            self._tokens[token] = self.lives
        document = f'{{"token": "{token}", "expires_in": {self.expires_in}}}'
        return text_answer(HTTPStatus.OK, document, (("Content-Type", "application/json"),))

    def expire(self) -> None:
        """Void every token that was given."""
        with self._lock:
            self._tokens.clear()

    def _spend(self, token: str) -> bool:
        with self._lock:
            if token not in self._tokens:
                return False
            left = self._tokens[token]
            if left is not None:
                self._tokens[token] = left - 1
            return left is None or left > 0
