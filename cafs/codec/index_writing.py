"""Writes index files, page by page."""

from collections.abc import Callable
from typing import Final

import msgspec
import zstandard

from cafs.codec.index_file import (
    CODECS,
    DIGEST,
    ENTRIES,
    HASHED,
    LENGTH,
    PIECE,
    PLACED,
    SEGMENTS,
    UNBOUND,
    UNPACKED,
    WEIGHT,
    EntryColumns,
    Header,
    SegmentColumns,
    following,
    unit,
)
from cafs.errors import UnsupportedError
from cafs.model.member import Entry, Kind
from cafs.model.record import Segment

_LEVEL: Final = 15
"""Of zstd: 19 saves 1 % of an index, and takes three times as long."""
_SECOND: Final = 1_000_000_000
_PIECE: Final = 16
"""About how many bytes a piece of a sparse map takes."""


class IndexWriter:
    """Writes one index: first all its entries in their order, then all its segments.

    Args:
        write: takes the bytes, forward.
        header: what the index is of; as many entries and segments must follow as it says.
        name: what errors call the blob.

    Memory: one page.

    Concurrency: one thread.
    """

    def __init__(self, write: Callable[[bytes], object], header: Header, name: str) -> None:
        self._write = write
        self._header = header
        self._name = name
        self._block = unit(header.compression)
        self._packer = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self._encoder = msgspec.msgpack.Encoder()
        self._written = [0, 0]
        self._parent = self._expected = self._input = 0
        self._rows: list[tuple[Entry, bool]] = []
        self._weight = 0
        self._parts: list[tuple[Segment, bytes]] = []
        write(header.pack())

    def entry(self, entry: Entry, *, bound: bool) -> None:
        """Add an entry; ``bound`` is whether its name means it (the root's always does).

        Raises:
            UnsupportedError: it has more than an index can say.
        """
        self._rows.append((entry, bound))
        self._weight += _weight(entry)
        if len(self._rows) == ENTRIES or self._weight >= WEIGHT:
            self._flush_entries()

    def segment(self, segment: Segment, window: bytes) -> None:
        """Add a segment, which has a digest, with its packed window.

        Raises:
            UnsupportedError: it has more than an index can say.
        """
        if self._rows:
            self._flush_entries()
        if segment.codec not in CODECS or segment.skip or len(segment.sha256) != DIGEST:
            raise UnsupportedError(f"{self._name}: a segment at {segment.start} is for no index")
        self._parts.append((segment, window))
        if len(self._parts) == SEGMENTS:
            self._flush_segments()

    def finish(self) -> None:
        """Write what waits; nothing follows.

        Raises:
            ValueError: there were more or fewer than the header says.
        """
        if self._rows:
            self._flush_entries()
        if self._parts:
            self._flush_segments()
        if self._written != [self._header.entries, self._header.segments]:
            raise ValueError(f"{self._written} were written, not as many as the header says")

    def _piece(self, columns: object, count: int, digests: bytes) -> None:
        raw = self._encoder.encode(columns)
        if len(raw) > UNPACKED:
            raise UnsupportedError(f"{self._name}: an entry has too much for an index")
        packed = self._packer.compress(raw)
        self._write(PIECE.pack(count, len(digests) // DIGEST, len(packed), len(raw)))
        self._write(packed)
        self._write(digests)

    def _flush_entries(self) -> None:
        rows, self._rows, self._weight = self._rows, [], 0
        entries = [entry for entry, _ in rows]
        parents, gaps = self._places(entries)
        times = [divmod(entry.mtime_ns, _SECOND) for entry in entries]
        columns = EntryColumns(
            shapes=bytes(_shape(entry, bound) for entry, bound in rows),
            names=[entry.name for entry in entries],
            parents=parents,
            modes=[entry.mode for entry in entries],
            seconds=[second for second, _ in times],
            nanos=[nano for _, nano in times],
            sizes=[entry.size for entry in entries],
            gaps=gaps,
            links=[entry.links for entry in entries],
            uids=[entry.uid for entry in entries],
            gids=[entry.gid for entry in entries],
            linked=[entry.link for entry in entries],
            devices=[entry.device for entry in entries],
            targets=[entry.target for entry in entries],
            others=[
                (at, entry.xattrs, _holes(entry))
                for at, entry in enumerate(entries)
                if entry.xattrs or entry.sparse is not None
            ],
        )
        self._piece(columns, len(rows), b"".join(entry.sha256 for entry in entries))
        self._written[0] += len(rows)

    def _places(self, entries: list[Entry]) -> tuple[list[int], list[int]]:
        """The columns of parents and of gaps."""
        parents, gaps = [], []
        for entry in entries:
            if entry.stream:
                raise UnsupportedError(f"{self._name}: an index is of one stream")
            parents.append(entry.parent - self._parent)
            self._parent = entry.parent
            if entry.offset:
                gaps.append(entry.offset - self._expected)
                stored = stored_bytes(entry) if entry.kind is Kind.FILE else 0
                self._expected = following(entry.offset, stored, self._block)
            else:
                gaps.append(0)
                if entry.kind is Kind.HARD_LINK:
                    self._expected = following(self._expected, 0, self._block)
        return parents, gaps

    def _flush_segments(self) -> None:
        parts, self._parts = self._parts, []
        segments = [segment for segment, _ in parts]
        gaps = []
        for segment in segments:
            gaps.append(segment.input_start - self._input)
            self._input = segment.input_start + segment.input_length
        columns = SegmentColumns(
            codecs=bytes(CODECS.index(segment.codec) for segment in segments),
            lengths=[segment.length for segment in segments],
            gaps=gaps,
            inputs=[segment.input_length for segment in segments],
            states=[segment.state for segment in segments],
            checksums=[segment.crc32 for segment in segments],
        )
        self._piece(columns, len(parts), b"".join(segment.sha256 for segment in segments))
        for _, window in parts:
            self._write(LENGTH.pack(len(window)) + window)
        self._written[1] += len(parts)


def stored_bytes(entry: Entry) -> int:
    """Bytes of an entry's content in its stream."""
    if entry.sparse is None:
        return entry.size
    return sum(piece.length for piece in entry.sparse)


def _shape(entry: Entry, bound: bool) -> int:
    hashed = HASHED if entry.sha256 else 0
    placed = PLACED if entry.offset else 0
    return entry.kind | (0 if bound else UNBOUND) | hashed | placed


def _holes(entry: Entry) -> list[int] | None:
    """A sparse map as the lengths of holes and data, by turns."""
    if entry.sparse is None:
        return None
    lengths: list[int] = []
    at = 0
    for piece in entry.sparse:
        lengths += (piece.offset - at, piece.length)
        at = piece.offset + piece.length
    return lengths


def _weight(entry: Entry) -> int:
    attributes = sum(len(name) + len(value) for name, value in entry.xattrs)
    texts = len(entry.name) + len(entry.target or b"")
    return texts + attributes + _PIECE * len(entry.sparse or ())
