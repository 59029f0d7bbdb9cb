"""Addresses: URLs and authorities in one normal form, so that equal places have equal text.

A normalised URL is ASCII, has no userinfo, no fragment, no default port, no dot segments, a
lower-case scheme and host, upper-case percent-escapes, and no escapes of characters that need none.
What RFC 3986 does not call equivalent stays as it was written: ``+`` and ``%2B`` are two things.
Of a scheme that a plugin answers for, only the escapes are brought into this form: what the rest
means, the plugin knows.

Source: RFC 3986 §6.2.2 and §6.2.3; RFC 8089 for ``file:``.
"""

import ipaddress
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlsplit

from cafs.errors import InvalidReferenceError

SCHEMES: Final = ("https", "http", "file", "s3")
"""What a URL in a ref may start with, plugins apart."""
SCHEME: Final = re.compile(r"[a-z][a-z0-9.-]*")
"""What the scheme of a plugin may be: ``+`` stands between ``archive`` or ``blob`` and a scheme."""
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
"""The port that a scheme means when none is written."""
_NAME: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]{1,5}))?")
_ESCAPE: Final = re.compile(r"(%[0-9A-Fa-f]{2})")
_ESCAPED_SECRET: Final = re.compile(
    r"(?<=%3A%2F%2F)[^/]*?%40|(?<=%3F).+", re.IGNORECASE | re.DOTALL
)
"""In a URL that is a part of a text: userinfo, and a query."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PATH_SAFE: Final = "!$&'()*+,;=:@/"
_QUERY_SAFE: Final = _PATH_SAFE + "?"
_MAX_PORT: Final = 65535
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")


def authority(text: str) -> str:
    """The normal form of ``host`` or ``host:port``: lower case, short IPv6, a plain port.

    Raises:
        InvalidReferenceError: no host, a port out of range, or characters that no host has.
    """
    match = _AUTHORITY.fullmatch(text.lower())
    if "@" in text:
        raise InvalidReferenceError(f"'…@{text.rpartition('@')[2]}': a host has no '@'")
    if match is None:
        raise InvalidReferenceError(f"{text!r} is no host[:port]")
    host, port = match["host"], match["port"]
    if host.startswith("["):
        host = f"[{_ipv6(host[1:-1], text)}]"
    elif not _NAME.fullmatch(host) or ".." in host:
        hint = "" if host.isascii() else "write its xn-- form"
        raise InvalidReferenceError(f"{text!r}: {host!r} is no host name", hint=hint)
    if port is None:
        return host
    if not 1 <= int(port) <= _MAX_PORT:
        raise InvalidReferenceError(f"{text!r}: there is no port {port}")
    return f"{host}:{int(port)}"


def is_loopback(place: str) -> bool:
    """Whether an authority is this machine by its looks: ``localhost`` or a loopback address."""
    match = _AUTHORITY.fullmatch(place)
    host = match["host"].strip("[]") if match else place
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def normalised(
    text: str, *, base: Path | None = None, schemes: Collection[str] | None = SCHEMES
) -> str:
    """The normal form of a URL.

    Args:
        text: the URL; a relative ``file:dir/name`` needs ``base``.
        base: absolute directory that relative file URLs start from.
        schemes: those that are known; None for any, where it does not matter yet who answers.

    Raises:
        InvalidReferenceError: not such a URL, or one with credentials in it.
    """
    if _CONTROL.search(text):
        raise InvalidReferenceError(f"{quoted(text)}: a URL has no control characters")
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise InvalidReferenceError(f"{quoted(text)} is no URL: {error}") from error
    known = SCHEMES if schemes is None else schemes
    if parts.scheme not in known and (schemes is not None or not SCHEME.fullmatch(parts.scheme)):
        raise InvalidReferenceError(
            f"{quoted(text)}: scheme {parts.scheme!r} is not known",
            hint=f"one of {', '.join(known)}; {enabling(parts.scheme)}",
        )
    if "@" in parts.netloc:
        place = parts.netloc.rpartition("@")[2]
        raise InvalidReferenceError(
            f"{parts.scheme}://…@{place}{parts.path}: credentials do not belong in a ref",
            hint="put them where credentials are kept",
        )
    match parts.scheme:
        case "file":
            return _file(parts, text, base)
        case "http" | "https":
            return _http(parts, text)
        case "s3":
            return _s3(parts, text)
        case _:
            return _other(parts, text)


def enabling(scheme: str) -> str:
    """What to do so that a plugin answers for a scheme."""
    return f"[plugins.{scheme or 'SCHEME'}] in ~/.config/cafs/config.toml enables a plugin"


def comparable(url: str) -> str:
    """A normalised URL with its query sorted by key: equal for what counts as the same (R-18)."""
    path, mark, query = url.partition("?")
    pairs = sorted(query.split("&"), key=lambda pair: pair.partition("=")[0])
    return f"{path}{mark}{'&'.join(pairs)}"


def shown(url: str) -> str:
    """The URL for people: without userinfo, query and fragment, which may hold secrets."""
    bare, query, _ = url.partition("#")[0].partition("?")
    scheme, slashes, rest = bare.partition("://")
    if slashes:
        authority, slash, path = rest.partition("/")
        bare = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return bare + ("?…" if query else "")


def quoted(text: str) -> str:
    """A text that is no good, in quotes for a message: secrets that a URL may have are left out."""
    return repr(_ESCAPED_SECRET.sub("…", shown(text)))


def host_of(url: str) -> str | None:
    """The authority of a normalised http(s) URL, ``host`` or ``host:port``; None for others.

    What stands there in another URL (a bucket) is no host, and allows nobody to be asked.
    """
    parts = urlsplit(url)
    return parts.netloc if parts.scheme in DEFAULT_PORTS else None


def file_path(url: str) -> Path | None:
    """The path that a normalised ``file:`` URL names; None for other URLs."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    return Path(unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape"))


def last_segment(url: str) -> str:
    """The decoded last segment of a normalised URL's path, without the query."""
    return unquote_to_bytes(urlsplit(url).path.rpartition("/")[2]).decode("utf-8", "replace")


def tidied(text: str, *, query: bool = False) -> str:
    """Escape what must be, unescape what need not be, spell escapes in upper case."""
    pieces: list[str] = []
    for piece in _ESCAPE.split(text):
        if _ESCAPE.fullmatch(piece):
            char = chr(int(piece[1:], 16))
            plain = char.isascii() and (char.isalnum() or char in "-._~")
            pieces.append(char if plain else piece.upper())
        else:
            safe = _QUERY_SAFE if query else _PATH_SAFE
            pieces.append(quote(piece, safe=safe, errors="surrogateescape"))
    return "".join(pieces)


def _ipv6(text: str, whole: str) -> str:
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError as error:
        raise InvalidReferenceError(f"{whole!r}: {text!r} is no IPv6 address") from error


def _http(parts: SplitResult, text: str) -> str:
    try:
        place = authority(parts.netloc)
    except InvalidReferenceError as error:
        raise InvalidReferenceError(f"{quoted(text)} is no URL", hint=error.hint) from error
    place = place.removesuffix(f":{DEFAULT_PORTS[parts.scheme]}")
    query = f"?{tidied(parts.query, query=True)}" if parts.query else ""
    return f"{parts.scheme}://{place}{_without_dots(tidied(parts.path))}{query}"


def _file(parts: SplitResult, text: str, base: Path | None) -> str:
    if parts.netloc not in {"", "localhost"}:
        raise InvalidReferenceError(
            f"{quoted(text)}: {parts.netloc!r} is read as a host, and there are no files on hosts",
            hint="file:///absolute/path or file:relative/path",
        )
    if parts.query:
        raise InvalidReferenceError(
            f"{quoted(text)}: a file has no query", hint="write %3F for '?'"
        )
    path = tidied(parts.path)
    if "%00" in path or path.strip("/") in {"", "."}:
        raise InvalidReferenceError(f"{quoted(text)} names no file")
    if not path.startswith("/"):
        if base is None:
            raise InvalidReferenceError(
                f"{quoted(text)}: nothing says what it is relative to", hint="file:///absolute/path"
            )
        path = f"{tidied(quote(bytes(base.absolute()), safe='/'))}/{path}"
    return f"file://{_without_dots(path)}"


def _s3(parts: SplitResult, text: str) -> str:
    if not _BUCKET.fullmatch(parts.netloc) or parts.path in {"", "/"}:
        raise InvalidReferenceError(f"{quoted(text)} names no object", hint="s3://BUCKET/KEY")
    if parts.query:
        raise InvalidReferenceError(
            f"{quoted(text)}: an object has no query", hint="write %3F for '?'"
        )
    return f"s3://{parts.netloc}{tidied(parts.path)}"


def _other(parts: SplitResult, text: str) -> str:
    """A URL that a plugin will read: its escapes in one form, and nothing else touched."""
    slashes = "//" if text[len(parts.scheme) + 1 :].startswith("//") else ""
    query = f"?{tidied(parts.query, query=True)}" if parts.query else ""
    rest = f"{parts.netloc}{tidied(parts.path)}{query}"
    if not rest:
        raise InvalidReferenceError(f"{quoted(text)} names nothing")
    return f"{parts.scheme}:{slashes}{rest}"


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4 on an absolute or empty path."""
    kept: list[str] = []
    segments = path.split("/")[1:] or [""]
    for segment in segments:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
