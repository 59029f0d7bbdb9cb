"""What a table of contents, and who pins it, says, as values: a member, a digest, a time."""

import base64
import binascii
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cafs.codec.naming import label, quoted
from cafs.codec.tar_header import device, owner
from cafs.codec.toc_entries import TocEntry
from cafs.errors import InvalidReferenceError, MalformedError, UnsupportedError
from cafs.model.digest import CANONICAL, Digest
from cafs.model.member import Kind, Member

KINDS: Final = {
    "dir": Kind.DIRECTORY,
    "reg": Kind.FILE,
    "symlink": Kind.SYMLINK,
    "hardlink": Kind.HARD_LINK,
    "char": Kind.CHARACTER_DEVICE,
    "block": Kind.BLOCK_DEVICE,
    "fifo": Kind.FIFO,
}
_LINKS: Final = frozenset((Kind.SYMLINK, Kind.HARD_LINK))
_DEVICES: Final = frozenset((Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE))
_SHA256: Final = "sha256:"
_SHA256_BYTES: Final = 32
_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
"""What Go's encoder writes for bytes that are no UTF-8: what they were is lost."""
_DIGITS: Final = 9
_DAY_S: Final = 86_400
_LATEST_NS: Final = (1 << 63) - 1


def member_of(entry: TocEntry, offset: int, name: str) -> Member:
    """The member that an entry is of, whose content begins at ``offset``; ``name`` is the layer's.

    Raises:
        MalformedError: it makes no sense.
        UnsupportedError: of a kind that is not known, or with a name that JSON cannot spell.
    """
    kind = KINDS.get(entry.type)
    if kind is None:
        raise unsupported(name, entry.name, f"an entry of type {quoted(entry.type)}")
    if kind in _LINKS and not entry.link_name:
        raise malformed(name, entry.name, "a link to nothing")
    try:
        return Member(
            path=_raw(entry.name, name),
            kind=kind,
            mode=entry.mode & 0o7777,
            uid=owner(entry.uid),
            gid=owner(entry.gid),
            mtime_ns=_since_epoch(entry.modtime),
            size=entry.size if kind is Kind.FILE else 0,
            offset=offset,
            target=_raw(entry.link_name, name) if kind in _LINKS else None,
            device=device(entry.dev_major, entry.dev_minor) if kind in _DEVICES else 0,
            xattrs=_xattrs(entry.xattrs, name) if entry.xattrs else (),
        )
    except (ValueError, OverflowError) as error:
        raise malformed(name, entry.name, str(error)) from error


def sha256_of(text: str, entry: TocEntry, name: str) -> bytes:
    """The raw digest that a text says a chunk has.

    Raises:
        MalformedError: it is none.
        UnsupportedError: it says none, or another kind.
    """
    if not text.startswith(_SHA256):
        raise unsupported(name, entry.name, "a chunk without a sha256 of it")
    try:
        raw = bytes.fromhex(text.removeprefix(_SHA256))
    except ValueError as error:
        raise malformed(name, entry.name, f"{quoted(text)} is no sha256") from error
    if len(raw) != _SHA256_BYTES:
        raise malformed(name, entry.name, f"{quoted(text)} is no sha256")
    return raw


def pinned(text: str, annotation: str) -> Digest:
    """The digest of a table, as an annotation of its layer says it.

    Raises:
        UnsupportedError: it says none, or another kind.
    """
    try:
        digest = Digest.parse(text)
    except InvalidReferenceError as error:
        raise UnsupportedError(f"{annotation}: {quoted(text)} is no digest") from error
    if digest.algorithm != CANONICAL:
        raise UnsupportedError(f"{annotation}: {quoted(text)} is no sha256")
    return digest


def malformed(name: str, path: str, what: str) -> MalformedError:
    """The error that an entry makes no sense."""
    return MalformedError(f"{label(name, path.encode('utf-8', 'replace'))}: {what}")


def unsupported(name: str, path: str, what: str) -> UnsupportedError:
    """The error that an entry does not do."""
    return UnsupportedError(f"{label(name, path.encode('utf-8', 'replace'))}: {what}")


def _raw(text: str, name: str) -> bytes:
    if _REPLACED in text:
        raise unsupported(name, text, "a name that JSON cannot spell")
    return text.encode()


def _xattrs(said: dict[str, str], name: str) -> tuple[tuple[bytes, bytes], ...]:
    try:
        return tuple(
            (_raw(each, name), base64.b64decode(value, validate=True))
            for each, value in sorted(said.items())
        )
    except binascii.Error as error:
        raise ValueError("an attribute that is no base64") from error


@lru_cache(4096)
def _since_epoch(text: str) -> int:
    """A time as RFC 3339 spells it, in ns since the epoch; 0 where none is said.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return 0
    seconds, dot, rest = text.partition(".")
    fraction = ""
    if dot:
        fraction = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        seconds += rest[len(fraction) :]
    try:
        moment = datetime.fromisoformat(seconds)
    except ValueError as error:
        raise ValueError(f"{quoted(text)} is no time") from error
    if moment.tzinfo is None or len(fraction) > _DIGITS:
        raise ValueError(f"{quoted(text)} is no time")
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    since = (elapsed.days * _DAY_S + elapsed.seconds) * 10**_DIGITS
    since += int(fraction.ljust(_DIGITS, "0"))
    return max(-_LATEST_NS, min(_LATEST_NS, since))
