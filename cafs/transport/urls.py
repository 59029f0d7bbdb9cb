"""URLs as transports need them: whose they are."""

import re
from typing import Final, Self
from urllib.parse import SplitResult, quote, urlsplit

import msgspec
from typing_extensions import override

from cafs.errors import InvalidReferenceError
from cafs.model.address import shown

_PORTS: Final = {"http": 80, "https": 443}
_AUTHORITY: Final = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
"""What an authority may be: no userinfo, nothing that two parsers could read in two ways."""
_TARGET: Final = re.compile(r"[^:]+://[^/?#]*([^#]*)")
_QUERY: Final = "".join(chr(each) for each in range(0x21, 0x7F) if chr(each) not in '"#<>')
"""What stands as it is in a query; an escape that is there already stays one.

Source: the URL standard, "Percent-encoded bytes".
"""
_PATH: Final = "".join(each for each in _QUERY if each not in "?`{}")


class Origin(msgspec.Struct, frozen=True):
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

    @property
    def usual(self) -> bool:
        """Whether the port is the scheme's own."""
        return self.port == _PORTS[self.scheme]

    @property
    def spelled(self) -> str:
        """The host as a URL spells it: an IPv6 address has brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """Host and port as a URL and the header Host spell them."""
        return self.spelled if self.usual else f"{self.spelled}:{self.port}"

    @override
    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def target_of(url: str) -> str:
    """Path and query as a request asks for them: escaped, without ``.`` and ``..``.

    Raises:
        InvalidReferenceError: not a URL, or one with a control character, which could begin another
            line of the request, or with half a character, which has no bytes.
    """
    found = _TARGET.match(url)
    if found is None or any(map(_unfit, url)):
        raise InvalidReferenceError(f"{shown(url)}: not a URL")
    path, mark, query = found[1].partition("?")
    return f"{quote(_plain(path) or '/', safe=_PATH)}{mark}{quote(query, safe=_QUERY)}"


def _unfit(character: str) -> bool:
    return character <= "\x1f" or character == "\x7f" or "\ud800" <= character <= "\udfff"


def _plain(path: str) -> str:
    """A path without ``.`` and ``..``. Source: RFC 3986 §5.2.4."""
    kept: list[str] = []
    component = ""
    for component in path.split("/"):
        if component == "..":
            kept = kept[:1] + kept[1:-1]
        elif component != ".":
            kept.append(component)
    if component in {".", ".."}:
        kept.append("")  # what they name is a directory
    return "/".join(kept)


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
