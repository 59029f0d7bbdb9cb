"""The central directory of a zip archive, as members and the segments that hold their content.

The decoded stream of a zip is its members' contents laid end to end in the directory's order. Only
the tail and the directory are read to know it; each member is one segment, decoded on demand.

* The directory is believed, local headers are not: from one of those only its own length is taken.
* Members may not overlap: what shares input can make terabytes of a few kilobytes.
* Memory does not grow with the number of members.

Source:
    PKWARE APPNOTE 6.3.10 §4.3; Info-ZIP's unzip 6.00 as the oracle in tests.
"""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

import msgspec

from cafs.codec.naming import label
from cafs.codec.zip_content import LOCAL
from cafs.codec.zip_end import NAME, Directory
from cafs.codec.zip_fields import (
    MASK16,
    extras,
    kind_and_mode,
    mtime_ns,
    path_of,
    widen,
)
from cafs.errors import MalformedError
from cafs.model.limits import BOMB, TOO_MUCH, Limits
from cafs.model.member import Kind, Member
from cafs.model.record import Segment

_CENTRAL: Final = Struct("<4s2B5H3I5H2I")
_CENTRAL_MARK: Final = b"PK\1\2"
_SIGNATURE_MARK: Final = b"PK\5\5"

_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
"""Plain encryption, strong encryption, masked headers."""

_CODECS: Final = {0: "store", 8: "deflate", 12: "bzip2", 14: "lzma", 93: "zstd"}


def members(
    read: Callable[[int], bytes],
    directory: Directory,
    *,
    name: str = NAME,
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


class _Central(msgspec.Struct):
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
                    hint=TOO_MUCH,
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
        most = min(self._limits.most(given), self._limits.size - self._decoded)
        if size > most:
            raise self._malformed(
                central.raw,
                f"{size} bytes in {given} bytes, where {most} may be",
                hint=BOMB,
            )

    def _malformed(self, path: bytes, what: str, *, hint: str = "") -> MalformedError:
        return MalformedError(f"{label(self._name, path)}: {what}", hint=hint)
