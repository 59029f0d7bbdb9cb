"""PAX extended headers: records that override what a tar header says.

Source:
    POSIX.1-2017 pax, "pax Extended Header"; GNU tar manual, "Storing Sparse Files" (GNU.sparse.*);
    star(5) (SCHILY.xattr.*).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from cafs.codec.tar_header import owner
from cafs.model.member import Piece

_XATTR: Final = b"SCHILY.xattr."
_KEPT: Final = b"user."
"""Extended attributes that mean something to somebody else than the system that wrote them."""

_XATTR_NAME: Final = 255
_XATTR_SIZE: Final = 64 << 10
"""What Linux takes (XATTR_NAME_MAX, XATTR_SIZE_MAX); larger ones nobody could read."""

_SPARSE: Final = b"GNU.sparse."
_DIGITS: Final = 32
"""Of a number at most: what 64 bits need, and some zeros before it."""
_LINE_FEED: Final = 0x0A
_LATEST: Final = Decimal(((1 << 63) - 1) // 1_000_000_000)
"""Seconds: what fits 64 bits of ns."""


class SparseNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What the records say about a sparse file, in any of the three versions.

    ``pieces`` is the map of versions 0.0 and 0.1, None in 1.0, where it precedes the content.
    """

    size: int = 0
    name: bytes | None = None
    pieces: tuple[Piece, ...] | None = None
    in_content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What extended headers override; None where they say nothing."""

    path: bytes | None = None
    link: bytes | None = None
    size: int | None = None
    mtime_ns: int | None = None
    uid: int | None = None
    gid: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: SparseNotes | None = None


NOTHING: Final = Extension()
"""An extension that overrides nothing."""


def parse_global(data: bytes, before: Extension) -> Extension:
    """Apply a global header to those before it. Sparse maps and attributes are not for all.

    Raises:
        ValueError: as ``parse``.
    """
    return replace(parse(data, before), xattrs=(), sparse=None)


def parse(data: bytes, base: Extension) -> Extension:
    """Apply a member's extended header to the global ones.

    Args:
        data: the records, whole.
        base: what they override.

    Raises:
        ValueError: a record that is none; the text says what is wrong.
    """
    result = base
    xattrs: list[tuple[bytes, bytes]] = []
    sparse: list[tuple[bytes, bytes]] = []
    for key, value in records(data):
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%")
            if _is_attribute(name) and len(value) <= _XATTR_SIZE:
                xattrs.append((name, value))
        elif key.startswith(_SPARSE):
            sparse.append((key[len(_SPARSE) :], value))
        else:
            result = _override(result, key, value)
    if xattrs or sparse:
        result = replace(
            result,
            xattrs=tuple(sorted(dict(xattrs).items())),
            sparse=_sparse(sparse) if sparse else None,
        )
    return result


def _is_attribute(name: bytes) -> bool:
    """Whether a file can have an attribute of that name, which is kept. Lists end names by NUL."""
    return name.startswith(_KEPT) and len(name) <= _XATTR_NAME and b"\0" not in name


def records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut a header into its records, ``<length> <key>=<value>`` and a line feed.

    Raises:
        ValueError: the data is something else.
    """
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + _DIGITS)
        if space < 0 or not data[at:space].isdigit():
            raise ValueError("an extended header has a record without a length")
        stop = at + int(data[at:space])
        if not space < stop <= len(data) or data[stop - 1] != _LINE_FEED:
            raise ValueError("an extended header has a record of the wrong length")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key:
            raise ValueError("an extended header has a damaged record")
        yield key, value
        at = stop


def _override(base: Extension, key: bytes, value: bytes) -> Extension:
    """Apply one record; an empty value takes an earlier one back, an unknown key means nothing."""
    match key:
        case b"path":
            base = replace(base, path=_text(value))
        case b"linkpath":
            base = replace(base, link=_text(value))
        case b"size":
            base = replace(base, size=_natural(value) if value else None)
        case b"mtime":
            base = replace(base, mtime_ns=_time_ns(value) if value else None)
        case b"uid":
            base = replace(base, uid=_owner(value) if value else None)
        case b"gid":
            base = replace(base, gid=_owner(value) if value else None)
        case _:
            pass
    return base


def _text(value: bytes) -> bytes | None:
    if b"\0" in value:
        raise ValueError("an extended header has a path with a NUL in it")
    return value or None


def _natural(value: bytes) -> int:
    if not _is_number(value):
        raise ValueError(f"an extended header has a size {value[:40]!r}")
    return int(value)


def _owner(value: bytes) -> int:
    if not _is_number(value.removeprefix(b"-")):
        raise ValueError(f"an extended header has an owner {value[:40]!r}")
    return owner(int(value))


def _is_number(value: bytes) -> bool:
    """Whether it is all digits, and not more of them than a number of 64 bits may have."""
    return value.isdigit() and len(value) <= _DIGITS


def _time_ns(value: bytes) -> int:
    """Decimal seconds, rounded down to ns, within 64 bits."""
    try:
        exact = Decimal(value.decode("ascii"))
        exact = max(-_LATEST, min(_LATEST, exact))
        return math.floor(exact * 1_000_000_000)
    except (InvalidOperation, UnicodeDecodeError) as error:
        raise ValueError(f"an extended header has a time {value[:40]!r}") from error


def _sparse(notes: list[tuple[bytes, bytes]]) -> SparseNotes:
    """Put the notes on a sparse file together."""
    named = dict(notes)
    name = _text(named.get(b"name", b""))
    size = _natural(named.get(b"realsize") or named.get(b"size") or b"")
    if named.get(b"major") == b"1":
        return SparseNotes(size=size, name=name, in_content=True)
    if b"map" in named:
        numbers = [_natural(text) for text in named[b"map"].split(b",")] if named[b"map"] else []
    else:
        numbers = [_natural(value) for key, value in notes if key in {b"offset", b"numbytes"}]
    if len(numbers) % 2:
        raise ValueError("an extended header has half a sparse piece")
    pieces = tuple(map(Piece, numbers[::2], numbers[1::2]))
    return SparseNotes(size=size, name=name, pieces=pieces)
