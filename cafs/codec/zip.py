"""Zip archives from their end: the central directory, members, and what decodes them.

The decoded stream of a zip is its members' contents laid end to end in the directory's order. Only
the tail and the directory are read to know it; each member is one segment, decoded on demand.

* The directory is believed, local headers are not: from one of those only its own length is taken.
* Members may not overlap: what shares input can make terabytes of a few kilobytes.
* Memory does not grow with the number of members.

Source:
    PKWARE APPNOTE 6.3.10 §4.3; Info-ZIP's unzip 6.00 as the oracle in tests.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from cafs.codec.naming import label
from cafs.codec.zip_content import Inflater, inflate
from cafs.codec.zip_fields import (
    MASK16,
    MASK32,
    extras,
    kind_and_mode,
    mtime_ns,
    path_of,
    widen,
)
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member
from cafs.model.record import Segment

__all__ = [
    "LOCAL",
    "TAIL",
    "Directory",
    "Inflater",
    "NeedMore",
    "content_start",
    "inflate",
    "locate",
    "members",
]

TAIL: Final = 22 + 0xFFFF
"""Bytes at the end of a file in which the end record of a zip lies, if it is one."""

LOCAL: Final = 30
"""Bytes of a local header before its name."""

_FARTHEST: Final = 1 << 20
"""Bytes before the tail in which a zip64 end record is still looked for."""

_NAME: Final = "zip archive"
_END: Final = Struct("<4s4H2IH")
_END_MARK: Final = b"PK\5\6"
_LOCATOR: Final = Struct("<4sIQI")
_LOCATOR_MARK: Final = b"PK\6\7"
_END64: Final = Struct("<4sQ2H2I4Q")
_END64_MARK: Final = b"PK\6\6"
_CENTRAL: Final = Struct("<4s2B5H3I5H2I")
_CENTRAL_MARK: Final = b"PK\1\2"
_LOCAL_MARK: Final = b"PK\3\4"
_SIGNATURE_MARK: Final = b"PK\5\5"

_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
"""Plain encryption, strong encryption, masked headers."""

_CODECS: Final = {0: "store", 8: "deflate", 12: "bzip2", 14: "lzma", 93: "zstd"}


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


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The tail is too short: read the file from ``offset`` to its end, and ask again."""

    offset: int


def locate(tail: bytes, size: int, *, name: str = _NAME) -> Directory | NeedMore:
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


def members(
    read: Callable[[int], bytes],
    directory: Directory,
    *,
    name: str = _NAME,
    limits: Limits | None = None,
) -> Iterator[tuple[Member, Segment]]:
    """Read the central directory.

    Args:
        read: the file's bytes from ``directory.offset`` on: at most as many as asked for, none
            only at the end. No more than ``directory.length`` bytes are read.
        directory: as ``locate`` found it.
        name: what errors call the archive.
        limits: the defaults of ``Limits`` when None.

    Yields:
        each member with the segment that holds its content, of no length when there is none (a
        directory, an empty file). A segment's ``input_start`` is that of the local header, its
        ``input_length`` that of the compressed content, which begins ``content_start`` bytes
        behind. A symlink's text is its content.

    Raises:
        MalformedError: damaged, contradicting itself, overlapping, or beyond the limits. It names
            the member, or the archive.
    """
    return _Members(read, directory, name, limits or Limits()).members()


@dataclass(slots=True)
class _Central:
    """One central header, its fields parsed and checked against each other."""

    raw: bytes
    host: int
    flags: int
    method: int
    time: int
    date: int
    crc32: int
    packed: int
    size: int
    attributes: int
    offset: int
    fields: dict[int, bytes]

    @property
    def codec(self) -> str:
        if self.flags & _ENCRYPTED:
            return "encrypted"
        return _CODECS.get(self.method, f"method-{self.method}")


class _Members:
    """Walks the directory, adding up what it promises."""

    def __init__(
        self, read: Callable[[int], bytes], directory: Directory, name: str, limits: Limits
    ) -> None:
        self._read = read
        self._directory = directory
        self._name = name
        self._limits = limits
        self._left = directory.length
        self._decoded = 0
        self._claimed = 0
        self._last = (-1, 0)

    def members(self) -> Iterator[tuple[Member, Segment]]:
        """All members, in the directory's order."""
        count = 0
        while self._left:
            central = self._next(count)
            if central is None:
                break
            count += 1
            if count > self._limits.members:
                raise MalformedError(
                    f"{self._name}: more than {self._limits.members} members",
                    hint="raise the limit on members",
                )
            yield self._member(central)
        if self._directory.count not in (count, count & MASK16):
            raise MalformedError(
                f"{self._name}: the zip directory has {count} members,"
                f" its end record tells {self._directory.count}"
            )

    def _take(self, size: int) -> bytes:
        """Exactly so many bytes of the directory."""
        data = b""
        while len(data) < size <= self._left:
            piece = self._read(size - len(data))
            if not piece:
                break
            data += piece
        if len(data) < size:
            raise MalformedError(f"{self._name}: the zip directory ends too early")
        self._left -= size
        return data

    def _next(self, number: int) -> _Central | None:
        mark = self._take(len(_CENTRAL_MARK))
        if mark == _SIGNATURE_MARK:
            return None
        if mark != _CENTRAL_MARK:
            raise MalformedError(f"{self._name}: no header of member {number} where it should be")
        (_, _, host, _, flags, method, time, date, crc32, packed, size, *rest) = _CENTRAL.unpack(
            mark + self._take(_CENTRAL.size - len(mark))
        )
        lengths, (attributes, offset) = rest[:3], rest[5:]
        variable = self._take(sum(lengths))
        raw = variable[: lengths[0]]
        if len(raw) > self._limits.path_bytes:
            raise self._malformed(raw, f"a path of more than {self._limits.path_bytes} bytes")
        fields = extras(variable[lengths[0] : lengths[0] + lengths[1]])
        try:
            size, packed, offset = widen((size, packed, offset), fields)
        except ValueError as error:
            raise self._malformed(raw, str(error)) from error
        return _Central(
            raw, host, flags, method, time, date, crc32, packed, size, attributes, offset, fields
        )

    def _member(self, central: _Central) -> tuple[Member, Segment]:
        path = path_of(central.raw, host=central.host, flags=central.flags, fields=central.fields)
        kind, mode = kind_and_mode(path, host=central.host, attributes=central.attributes)
        start = self._place(central)
        size = 0 if kind is Kind.DIRECTORY else central.size
        self._bound(central, kind, size)
        member = Member(
            path=path.rstrip(b"/"),
            kind=kind,
            mode=mode,
            mtime_ns=mtime_ns(central.date, central.time, central.fields),
            size=size,
            offset=self._decoded,
        )
        segment = Segment(
            start=self._decoded,
            length=size,
            input_start=start,
            input_length=central.packed,
            codec=central.codec,
            crc32=central.crc32,
        )
        self._decoded += size
        return member, segment

    def _place(self, central: _Central) -> int:
        """Where the local header lies; it and the content must be before the directory, alone."""
        start = central.offset + self._directory.shift
        length = LOCAL + len(central.raw) + central.packed
        if start + length > self._directory.offset:
            raise self._malformed(central.raw, "its content would reach beyond the zip directory")
        self._claimed += length
        first, stop = self._last
        if first <= start < stop or self._claimed > self._directory.offset:
            raise self._malformed(
                central.raw, "its content overlaps another's", hint="a decompression bomb"
            )
        self._last = (start, start + length)
        return start

    def _bound(self, central: _Central, kind: Kind, size: int) -> None:
        """Refuse sizes that cannot be, or may not."""
        if size and central.codec == "store" and size != central.packed:
            raise self._malformed(
                central.raw, f"stored, but {size} bytes in {central.packed} bytes"
            )
        if kind is Kind.SYMLINK and size > self._limits.path_bytes:
            raise self._malformed(central.raw, f"a symlink to {size} bytes of text")
        given = central.packed
        if (
            self._limits.inflated(decoded=size, given=given)
            or self._decoded + size > self._limits.size
        ):
            raise self._malformed(
                central.raw,
                f"{size} bytes in {given} bytes",
                hint="a decompression bomb, or raise the limits on ratio and size",
            )

    def _malformed(self, path: bytes, what: str, *, hint: str = "") -> MalformedError:
        return MalformedError(f"{label(self._name, path)}: {what}", hint=hint)


def content_start(local_header: bytes, *, name: str = _NAME) -> int:
    """How far behind its local header a member's content begins.

    Args:
        local_header: from its start, at least ``LOCAL`` bytes.
        name: what errors call the member.

    Raises:
        MalformedError: no local header.
    """
    if len(local_header) < LOCAL or not local_header.startswith(_LOCAL_MARK):
        raise MalformedError(f"{name}: no local header where the zip directory says")
    name_length = int.from_bytes(local_header[26:28], "little")
    return LOCAL + name_length + int.from_bytes(local_header[28:30], "little")
