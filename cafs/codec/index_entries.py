"""Entries in an index: read by columns, and refused where no pass could have made them.

All entries hang below earlier ones, so there are no cycles. In the tree of an archive a parent is
a directory, and a hard link is to an earlier entry that is neither a directory nor a link. In the
record of a layer a parent is any earlier entry, and hard links have a path instead. Paths are
bounded as members' are, in both, and so are sparse maps and attributes. That no name is bound twice
in a directory is seen where they are stored.
"""

from array import array
from collections.abc import Callable
from itertools import accumulate, repeat
from operator import lt
from typing import Final

import msgspec

from cafs.codec.index_file import (
    DIGEST,
    HASHED,
    KIND,
    PLACED,
    UNBOUND,
    WEIGHT,
    EntryColumns,
    Header,
    Row,
    following,
    unit,
)
from cafs.codec.index_pieces import Piece
from cafs.errors import MalformedError
from cafs.model.digest import EMPTY
from cafs.model.limits import Limits
from cafs.model.member import Kind

_SECOND: Final = 1_000_000_000
_NAME_BYTES: Final = 255
_SHAPE: Final = KIND | UNBOUND | HASHED | PLACED
_DIRECTORY, _FILE, _SYMLINK, _HARD_LINK = (
    int(kind) for kind in (Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.HARD_LINK)
)
_LEADING: Final = frozenset((_SYMLINK, _HARD_LINK))
_UNLINKED: Final = frozenset((_DIRECTORY, _HARD_LINK))
"""What no hard link is to: a directory, or one more hard link."""
_KINDS: Final = bytes(shape & KIND if shape <= _SHAPE else 0 for shape in range(256))
"""The kind in each shape; 0 for what is none."""
_ODD: Final = frozenset((b"", b".", b".."))
_BITS64: Final = range(-(1 << 63), 1 << 63)
_PIECE: Final = 8
"""Of a member's ``header_bytes``, what a piece of a sparse map takes at least, spelled out."""
_ATTRIBUTE: Final = 16
"""The same of an attribute: no record of a tar is shorter."""
Attributes = tuple[tuple[bytes, bytes], ...]
Map = tuple[tuple[int, int], ...]
Malformed = Callable[[str], MalformedError]


class EntryPage(msgspec.Struct, frozen=True):
    """Entries from number ``first`` on, and the names that mean one: parent, name, number."""

    first: int
    rows: list[Row]
    names: list[tuple[int, bytes, int]]


class EntryPages:
    """Checks the entries of one index, and turns their columns into rows.

    Args:
        header: of the index.
        malformed: makes an error that names the index.
        limits: of the archive.

    Concurrency: one thread.
    """

    def __init__(self, header: Header, malformed: Malformed, limits: Limits) -> None:
        self._decoded = header.decoded
        self._block = unit(header.compression)
        self._recorded = bool(header.mark)
        self._malformed = malformed
        self._limits = limits
        self._kinds = bytearray()
        self._depths = array("I")
        self._paths = array("I")
        self._parent = self._expected = 0
        self.count = 0

    def page(self, piece: Piece) -> EntryPage:
        """The next entries.

        Raises:
            MalformedError: one cannot be.
        """
        try:
            columns = _DECODE(piece.columns)
        except msgspec.DecodeError as error:
            raise self._malformed(f"entries that cannot be read: {error}") from error
        if {len(getattr(columns, each)) for each in _EVERY} != {piece.count}:
            raise self._malformed("columns of different lengths")
        if 0 in columns.shapes.translate(_KINDS):
            raise self._malformed("an entry of a kind that there is not")
        first, self.count = self.count, self.count + piece.count
        if not first:
            self._check_root(columns)
        self._check_names(columns.names, first)
        parents = list(accumulate(columns.parents, initial=self._parent))[1:]
        self._check_parents(columns, parents, first)
        rows = self._rows(columns, parents, piece.digests, first)
        self._parent = parents[-1]
        names = [
            (parent, name, number)
            for number, (parent, name, shape) in enumerate(
                zip(parents, columns.names, columns.shapes, strict=True), first
            )
            if not shape & UNBOUND and number
        ]
        return EntryPage(first, rows, names)

    def _check_root(self, columns: EntryColumns) -> None:
        shape = columns.shapes[0]
        if shape & KIND != _DIRECTORY or shape & UNBOUND or columns.parents[0] or columns.names[0]:
            raise self._malformed("entry 0 is no root")

    def _check_names(self, names: list[bytes], first: int) -> None:
        named = names if first else names[1:]
        joined = b"".join(named)
        if (
            b"/" not in joined
            and b"\0" not in joined
            and _ODD.isdisjoint(named)
            and max(map(len, named), default=0) <= _NAME_BYTES
        ):
            return
        for number, name in enumerate(named, first or 1):
            if name in _ODD or b"/" in name or b"\0" in name or len(name) > _NAME_BYTES:
                raise self._malformed(f"entry {number}: an impossible name {name[:40]!r}")

    def _check_parents(self, columns: EntryColumns, parents: list[int], first: int) -> None:
        """Each parent comes before its entry, and is what it must be."""
        numbers = range(first, first + len(parents))
        skip = 0 if first else 1
        if min(parents) < 0 or not all(map(lt, parents[skip:], numbers[skip:])):
            number = next(n for n, p in zip(numbers, parents, strict=True) if n and not 0 <= p < n)
            raise self._malformed(f"entry {number}: its parent does not come before it")
        self._kinds += columns.shapes.translate(_KINDS)
        self._check_paths(columns.names, parents, first)
        if not self._recorded and set(map(self._kinds.__getitem__, parents)) != {_DIRECTORY}:
            wrong = zip(numbers, parents, strict=True)
            number = next(n for n, p in wrong if self._kinds[p] != _DIRECTORY)
            raise self._malformed(f"entry {number}: it lies below what is no directory")

    def _check_paths(self, names: list[bytes], parents: list[int], first: int) -> None:
        """Paths are put together again, and directories walked down: they stay within bounds."""
        depths, paths, limits = self._depths, self._paths, self._limits
        if not first:
            depths.append(0)
            paths.append(0)
        skip = 0 if first else 1
        for name, parent in zip(names[skip:], parents[skip:], strict=True):
            depth, path = depths[parent] + 1, paths[parent] + len(name) + 1
            if depth > limits.depth or path > limits.path_bytes + 1:
                raise self._malformed(f"entry {len(depths)}: a path of {path} bytes")
            depths.append(depth)
            paths.append(path)

    def _rows(
        self, columns: EntryColumns, parents: list[int], digests: bytes, first: int
    ) -> list[Row]:
        kinds = columns.shapes.translate(_KINDS)
        xattrs, maps, stored = self._others(columns, kinds, first)
        return list(
            zip(
                columns.names,
                parents,
                kinds,
                columns.modes,
                self._times(columns),
                columns.sizes,
                self._offsets(columns, kinds, stored, first),
                repeat(0, len(kinds)),
                columns.links,
                self._hashes(columns, digests, first),
                columns.uids,
                columns.gids,
                columns.targets,
                self._links(columns, kinds, first),
                columns.devices,
                xattrs,
                maps,
                strict=True,
            )
        )

    def _times(self, columns: EntryColumns) -> list[int]:
        pairs = zip(columns.seconds, columns.nanos, strict=True)
        times = [second * _SECOND + nano for second, nano in pairs]
        if min(times) not in _BITS64 or max(times) not in _BITS64:
            raise self._malformed("a time beyond 64 bits")
        return times

    def _others(
        self, columns: EntryColumns, kinds: bytes, first: int
    ) -> tuple[list[Attributes], list[Map | None], list[int]]:
        """Attributes, sparse maps, and how many bytes each entry has in the stream."""
        count = len(kinds)
        xattrs: list[Attributes] = [()] * count
        maps: list[Map | None] = [None] * count
        stored = [
            size if kind == _FILE or (kind == _SYMLINK and target is None) else 0
            for size, kind, target in zip(columns.sizes, kinds, columns.targets, strict=True)
        ]
        last = -1
        # A page ends with the entry that makes it heavy; short attributes count for less there.
        room = 4 * WEIGHT + self._limits.header_bytes
        for at, attributes, lengths in columns.others:
            if not last < at < count:
                raise self._malformed(f"entry {first + at}: attributes of no entry")
            last = at
            weight = self._weight(attributes, lengths)
            room -= weight
            if weight > self._limits.header_bytes or room < 0:
                raise self._malformed(f"entry {first + at}: attributes of {weight} bytes or more")
            if any(b"\0" in name for name, _ in attributes):
                raise self._malformed(f"entry {first + at}: an impossible attribute")
            xattrs[at] = attributes
            if lengths is not None:
                if kinds[at] != _FILE:
                    raise self._malformed(f"entry {first + at}: a sparse map of no file")
                maps[at], stored[at] = self._map(lengths, columns.sizes[at], first + at)
        return xattrs, maps, stored

    def _weight(self, attributes: Attributes, lengths: list[int] | None) -> int:
        """Bytes that a member's headers have for this, at least."""
        texts = sum(len(name) + len(value) for name, value in attributes)
        spelled = max(texts, _ATTRIBUTE * len(attributes))
        return max(spelled, _PIECE * (len(lengths or ()) // 2))

    def _map(self, lengths: list[int], size: int, number: int) -> tuple[Map, int]:
        """A sparse map, and the bytes of its data."""
        holes, data = lengths[::2], lengths[1::2]
        # Lengths are not below 0, so pieces come in order; and what adds up to the size is within.
        if len(holes) != len(data) or not all(data) or sum(lengths) > size:
            raise self._malformed(f"entry {number}: its sparse map is damaged")
        stops = list(accumulate(lengths))
        return tuple(zip(stops[::2], data, strict=True)), sum(data)

    def _offsets(
        self, columns: EntryColumns, kinds: bytes, stored: list[int], first: int
    ) -> list[int]:
        """Where contents lie, each within the stream."""
        offsets: list[int] = []
        expected, decoded, block = self._expected, self._decoded, self._block
        for shape, kind, gap, size in zip(columns.shapes, kinds, columns.gaps, stored, strict=True):
            offset = 0
            if shape & PLACED:
                offset = expected + gap
                expected = following(offset, size if kind == _FILE else 0, block)
            elif kind == _HARD_LINK:
                expected = following(expected, 0, block)
            if not 0 <= offset <= decoded - size:
                number = first + len(offsets)
                raise self._malformed(f"entry {number}: its content lies beyond the stream")
            offsets.append(offset)
        self._expected = expected
        return offsets

    def _hashes(self, columns: EntryColumns, digests: bytes, first: int) -> list[bytes]:
        """Each entry's digest, where it has one."""
        count = sum(1 for shape in columns.shapes if shape & HASHED)
        if count * DIGEST != len(digests):
            raise self._malformed("another number of digests than of entries that have one")
        each = iter(range(0, len(digests), DIGEST))
        hashes: list[bytes] = []
        for shape, size in zip(columns.shapes, columns.sizes, strict=True):
            digest = b""
            if shape & HASHED:
                at = next(each)
                digest = digests[at : at + DIGEST]
                if not size and digest != EMPTY.raw:
                    number = first + len(hashes)
                    raise self._malformed(f"entry {number}: a digest that no bytes do not have")
            hashes.append(digest)
        return hashes

    def _links(self, columns: EntryColumns, kinds: bytes, first: int) -> list[int]:
        """The numbers that hard links lead to; whatever leads anywhere is checked."""
        rows = zip(kinds, columns.targets, columns.linked, columns.sizes, strict=True)
        for number, (kind, target, link, size) in enumerate(rows, first):
            if target is None and not link and kind not in _LEADING:
                continue
            if not self._leads(number, kind, target, link, size):
                raise self._malformed(f"entry {number}: a link to what is not there")
        return columns.linked

    def _leads(self, number: int, kind: int, target: bytes | None, link: int, size: int) -> bool:
        """Whether what leads elsewhere leads where such an entry can."""
        if kind == _HARD_LINK and not self._recorded:
            return target is None and 0 < link < number and self._kinds[link] not in _UNLINKED
        if link or kind not in _LEADING:
            return False
        if target is None:
            # A zip has the text of a symlink as content.
            return kind == _SYMLINK and 0 < size <= self._limits.path_bytes
        empty = not target and not size and not self._recorded
        return not empty and len(target) <= self._limits.path_bytes and b"\0" not in target


_EVERY: Final = tuple(each for each in EntryColumns.__struct_fields__ if each != "others")
_DECODE: Final = msgspec.msgpack.Decoder(EntryColumns).decode
