"""Credentials as values: what proves who asks, and where that came from.

No repr shows a secret, and no error made here repeats the text that it finds wrong.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

import msgspec

from cafs.errors import CredentialsError

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_FRAMING: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What says which bytes are asked for, and how: that is not for a helper to say."""


class UnusableError(CredentialsError):
    """Credentials that should be at a place cannot be had from there; both are for people."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


Lines = tuple[tuple[str, str], ...]
"""Headers of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What proves who asks.

    ``source`` says where it was found ("~/.netrc"), for people. ``lines`` are headers for the host
    itself; empty where only a token server can use it. ``refresh`` is an identity token, which a
    token server exchanges for others; empty for none. ``expires_s`` is since the epoch, None when
    nobody said.
    """

    source: str
    lines: Lines = field(default=(), repr=False)
    refresh: str = field(default="", repr=False)
    expires_s: float | None = None

    @classmethod
    def basic(cls, user: str, password: str, source: str) -> Self:
        """A name and a password.

        Raises:
            UnusableError: the name has a colon, which would end it.
        """
        if ":" in user:
            raise UnusableError(source, "a user name has no colon")
        # What is not UTF-8 where it was found is shown as it is there.
        login = f"{user}:{password}".encode(errors="surrogateescape")
        proof = base64.b64encode(login).decode()
        return cls(source=source, lines=(("Authorization", f"Basic {proof}"),))

    @classmethod
    def bearer(cls, token: str, source: str) -> Self:
        """A token that is shown as it is.

        Raises:
            UnusableError: empty, or with characters that no token has.
        """
        if not _TOKEN.fullmatch(token):
            raise UnusableError(source, "what is there is no token")
        return cls(source=source, lines=(("Authorization", f"Bearer {token}"),))

    @classmethod
    def identity(cls, token: str, source: str) -> Self:
        """A token that only a token server takes.

        Raises:
            UnusableError: as ``bearer``.
        """
        if not _TOKEN.fullmatch(token):
            raise UnusableError(source, "what is there is no token")
        return cls(source=source, refresh=token)

    @classmethod
    def headers(
        cls, lines: Iterable[tuple[str, str]], source: str, expires_s: float | None
    ) -> Self:
        """Headers as somebody else has made them.

        Raises:
            UnusableError: none, an improper one, or one that says what is asked for.
        """
        kept = tuple((name, value.strip(" \t")) for name, value in lines)
        for name, value in kept:
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                raise UnusableError(source, "a header that no request can have")
            if name.lower() in _FRAMING:
                raise UnusableError(source, f"{name} is no header of credentials")
        return cls(source=source, lines=kept, expires_s=expires_s)

    @property
    def kind(self) -> str:
        """What it is, in a word for people."""
        if self.refresh:
            return "identity token"
        for name, value in self.lines:
            scheme = value.partition(" ")[0].lower()
            if name.lower() == "authorization" and scheme in {"basic", "bearer"}:
                return scheme
        return "headers"

    @property
    def mark(self) -> bytes:
        """Equal for equal secrets, and no secret."""
        return hashlib.sha256(repr((self.lines, self.refresh)).encode()).digest()


class Look(msgspec.Struct, frozen=True):
    """One place that was looked at: its name, and what was found there, both for people.

    ``found`` says that the credential came from here.
    """

    place: str
    what: str
    found: bool = False


class Finding(msgspec.Struct, frozen=True):
    """What a search came to: the credential, or None, and the places that were looked at."""

    credential: Credential | None
    looks: tuple[Look, ...]

    @property
    def told(self) -> str:
        """The search in a line: where nothing was found and why."""
        return "; ".join(f"{look.place}: {look.what}" for look in self.looks)
