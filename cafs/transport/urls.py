"""URLs as transports need them: whose they are."""

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

from typing_extensions import override

from cafs.errors import InvalidReferenceError
from cafs.model.address import shown

_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
"""What an authority may be: no userinfo, nothing that two parsers could read in two ways."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what credentials belong to, and never cross.

    ``scheme`` and ``host`` are lower-case, ``host`` is without the brackets of IPv6.

    Source: RFC 9110 §4.3.1.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """The origin of an http(s) URL.

        Raises:
            InvalidReferenceError: another scheme, no host, userinfo, a port that is none.
        """
        parts = split(url)
        if parts.scheme not in _PORTS:
            raise InvalidReferenceError(f"{shown(url)}: not an http(s) URL")
        if "@" in parts.netloc:
            raise InvalidReferenceError(
                f"{shown(url)}: credentials do not belong in URLs",
                hint="put them where credentials are kept",
            )
        if not _AUTHORITY.fullmatch(parts.netloc):
            raise InvalidReferenceError(
                f"{shown(url)}: no valid host",
                hint="a name in other letters is written in its xn-- form",
            )
        try:
            port = parts.port
        except ValueError as error:
            raise InvalidReferenceError(f"{shown(url)}: no valid port") from error
        return cls(parts.scheme, parts.hostname or "", port or _PORTS[parts.scheme])

    @override
    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _PORTS[self.scheme]:
            return f"{self.scheme}://{host}"
        return f"{self.scheme}://{host}:{self.port}"


def scheme_of(url: str) -> str:
    """The scheme, lower-case; empty when there is none."""
    scheme, colon, _ = url.partition(":")
    return scheme.lower() if colon else ""


def split(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        InvalidReferenceError: not a URL.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InvalidReferenceError(f"{shown(url)}: not a URL") from error
