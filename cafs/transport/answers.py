"""What HTTP statuses mean: a response, or one of our errors.

Two of the errors are for wrappers: where to go instead, and what proof is wanted. They are
subclasses of what a caller gets to see when no wrapper knows better.
"""

from collections.abc import Mapping
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
from cafs.transport.heads import retry_after_s, unsatisfied_total
from cafs.transport.urls import Origin

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})
_DENIED: Final = frozenset({401, 403, 407})
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
    return RefusedError(what)


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _who_asks(url: str, status: int) -> str:
    who = "the proxy" if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else Origin.of(url).host
    return f"{who} wants credentials, or others"
