"""What HTTP statuses mean: a response, whose head is checked here, or one of our errors.

Three of the errors are for wrappers: where to go instead, what proof is wanted, and that the
question itself is no good. They are subclasses of what a caller gets to see when no wrapper knows
better.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from cafs.errors import (
    CafsError,
    CredentialsError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from cafs.model.address import shown
from cafs.model.span import Span
from cafs.transport.heads import (
    answered_range,
    check_coding,
    content_length,
    max_age_s,
    retry_after_s,
    unsatisfied_total,
    validator_of,
)
from cafs.transport.interfaces import Head, Request
from cafs.transport.urls import Origin, split

ANSWERS: Final = frozenset({200, 206, 304})
"""The statuses that answer a read."""
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PARTIAL: Final = 206
_UNCHANGED: Final = 304
_GONE: Final = frozenset({404, 410})
_DENIED: Final = frozenset({401, 403, 407})
_NO_QUESTION: Final = 400
_TOO_MANY: Final = 429
_UNSATISFIABLE: Final = 416
_SERVER_ERRORS: Final = range(500, 600)


class RedirectError(RefusedError):
    """The answer is a redirect.

    ``url`` is where it came from, ``location`` the header's text (empty when there was none),
    ``peer`` the address that sent it, empty when that is not known.
    """

    def __init__(self, url: str, status: int, location: str, peer: str) -> None:
        super().__init__(f"GET {shown(url)}: redirected ({status})")
        self.url = url
        self.location = location
        self.peer = peer


class ChallengeError(CredentialsError):
    """The answer asks for credentials, or finds them wanting.

    ``url`` is where it came from, ``challenge`` the text of WWW-Authenticate, ``peer`` the address
    that sent it, empty when that is not known.
    """

    def __init__(
        self, what: str, *, url: str, status: int, challenge: str, peer: str, hint: str = ""
    ) -> None:
        super().__init__(what, hint=hint)
        self.url = url
        self.status = status
        self.challenge = challenge
        self.peer = peer


class BadRequestError(RefusedError):
    """The answer is 400: the server makes nothing of the URL, perhaps no longer.

    Google's storage says so of a signed URL that has expired (``ExpiredToken``).
    """


def headers_of(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; those that come several times are joined by commas."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in lines:
        name, value = raw_name.decode("ascii").lower(), _text(raw_value)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _text(value: bytes) -> str:
    """A header's value: UTF-8 where it is that, as some servers send Location."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def head_of(request: Request, status: int, headers: dict[str, str], peer: str) -> Head:
    """The head of an answer to a read, checked against what was asked.

    Args:
        request: what was asked.
        status: one of ``ANSWERS``.
        headers: as ``headers_of`` gives them.
        peer: the address that sent it; empty when that is not known.

    Raises:
        RefusedError: it answers another question, or in a coding that nobody asked for.
    """
    name = f"{request.method} {shown(request.url)}"
    span, total = _extent(name, request, status, headers)
    if status != _UNCHANGED:
        check_coding(name, split(request.url).path, headers)
    return Head(
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


def failure(method: str, url: str, status: int, headers: Mapping[str, str], peer: str) -> CafsError:
    """The error for a status that is no answer to a read.

    Only 429 and 5xx are worth asking again (Y-8).
    """
    if status in REDIRECTS:
        return RedirectError(url, status, headers.get("location", ""), peer)
    what = f"{method} {shown(url)}: {status}{_phrase(status)}"
    if status in _GONE:
        return NotFoundError(what)
    if status in _DENIED:
        return ChallengeError(
            what,
            url=url,
            status=status,
            challenge=headers.get("www-authenticate", ""),
            peer=peer,
            hint=_who_asks(url, status),
        )
    if status == _TOO_MANY or status in _SERVER_ERRORS:
        return UnreachableError(what, retry_after_s=retry_after_s(headers))
    if status == _UNSATISFIABLE:
        return RefusedError(what, total=unsatisfied_total(headers.get("content-range", "")))
    return BadRequestError(what) if status == _NO_QUESTION else RefusedError(what)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _who_asks(url: str, status: int) -> str:
    who = "the proxy" if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else Origin.of(url).host
    return f"{who} wants credentials, or others"
