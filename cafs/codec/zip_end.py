"""The end of a zip archive: where its central directory lies.

Source:
    PKWARE APPNOTE 6.3.10 §4.3.14 to §4.3.16.
"""

from dataclasses import dataclass
from struct import Struct
from typing import Final

import msgspec

from cafs.codec.zip_fields import MASK16, MASK32
from cafs.errors import MalformedError, UnsupportedError

TAIL: Final = 22 + 0xFFFF
"""Bytes at the end of a file in which the end record of a zip lies, if it is one."""

NAME: Final = "zip archive"
"""What errors call an archive that has no better name."""

_FARTHEST: Final = 1 << 20
"""Bytes before the tail in which a zip64 end record is still looked for."""

_END: Final = Struct("<4s4H2IH")
_END_MARK: Final = b"PK\5\6"
_LOCATOR: Final = Struct("<4sIQI")
_LOCATOR_MARK: Final = b"PK\6\7"
_END64: Final = Struct("<4sQ2H2I4Q")
_END64_MARK: Final = b"PK\6\6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """Where the central directory lies: ``length`` bytes at ``offset`` of the file.

    ``count`` is how many members the end record tells; modulo 65,536 in archives that outgrew it.
    ``shift`` is how many bytes of something else precede the archive (a self-extractor): offsets
    in the directory count from behind them.
    """

    offset: int
    length: int
    count: int
    shift: int = 0


class NeedMore(msgspec.Struct, frozen=True):
    """The tail is too short: read the file from ``offset`` to its end, and ask again."""

    offset: int


def locate(tail: bytes, size: int, *, name: str = NAME) -> Directory | NeedMore:
    """Find the central directory.

    Args:
        tail: the end of the file; ``TAIL`` bytes suffice, unless a zip64 record lies before them.
        size: of the whole file.
        name: what errors call the archive.

    Raises:
        MalformedError: no zip archive, truncated, or an end record that contradicts itself.
        UnsupportedError: one of several volumes.
    """
    at = _end_record(tail)
    start = size - len(tail)
    if at is None:
        if start > 0 and len(tail) < TAIL:
            return NeedMore(max(0, size - TAIL))
        raise MalformedError(f"{name}: no zip archive, or its end is missing")
    _, *narrow, _ = _END.unpack_from(tail, at)
    end = start + at
    wide = _end64_record(tail, at, start)
    if isinstance(wide, NeedMore):
        return wide
    if wide is not None:
        end, values = wide
        narrow = [
            large if small in (MASK16, MASK32) else small
            for small, large in zip(narrow, values, strict=True)
        ]
    disk, first_disk, _, count, length, offset = narrow
    if disk or first_disk:
        raise UnsupportedError(f"{name}: one volume of a zip archive of several")
    shift = end - length - offset
    if shift < 0:
        raise MalformedError(
            f"{name}: the zip directory ({length} bytes at {offset}) would reach beyond its end"
        )
    return Directory(offset=offset + shift, length=length, count=count, shift=shift)


def _end_record(tail: bytes) -> int | None:
    """Where the end record is: the last whose comment ends the file, else the last whose fits.

    A comment may contain the mark of an end record, and junk may follow the archive.
    """
    fallback = None
    at = tail.rfind(_END_MARK)
    while at >= 0:
        comment = int.from_bytes(tail[at + 20 : at + 22], "little")
        stop = at + _END.size + comment
        if stop == len(tail):
            return at
        if stop < len(tail) and fallback is None:
            fallback = at
        at = tail.rfind(_END_MARK, 0, at + 3)
    return fallback


def _end64_record(
    tail: bytes, end: int, start: int
) -> tuple[int, tuple[int, ...]] | NeedMore | None:
    """The zip64 end record: its place, and the wide values of the end record's six fields.

    None when there is none: then a value of all ones means itself.
    """
    at = end - _LOCATOR.size
    if at < 0:
        return NeedMore(max(0, start - TAIL)) if start else None
    mark, _, offset, _ = _LOCATOR.unpack_from(tail, at)
    if mark != _LOCATOR_MARK:
        return None
    # Just before the locator, as everybody writes it; else where the locator says.
    for place in (at - _END64.size, offset - start):
        if 0 <= place <= at - _END64.size and tail.startswith(_END64_MARK, place):
            return start + place, _END64.unpack_from(tail, place)[4:]
    if start - _FARTHEST <= offset < start:
        return NeedMore(offset)
    return None
