"""Reads index files, which come from strangers: what is wrong is refused before it is used.

What a digest has vouched for is what somebody wrote, not that it makes sense. So all that a pass
could not have made is refused here, and what remains is at worst another archive's tree.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from cafs.codec.index_entries import EntryPage, EntryPages
from cafs.codec.index_file import (
    CODECS,
    DIGEST,
    ENTRIES,
    FILE,
    SEGMENTS,
    ZIP,
    Header,
    SegmentColumns,
)
from cafs.codec.index_pieces import Piece, Pieces
from cafs.errors import MalformedError
from cafs.model.digest import Digest
from cafs.model.limits import Limits
from cafs.model.record import Segment

_LOCAL: Final = 30
"""Bytes of a zip's local header, at least, which lie before a segment's input there."""
_CODECS: Final = {
    "none": {"store"},
    "gzip": {"gzip", "deflate"},
    "zstd": {"zstd"},
    "xz": {"xz"},
    "bzip2": {"bzip2"},
    ZIP: {"store", "deflate", "bzip2", "lzma", "zstd"},
}
"""What a segment's codec can be, by what the blob is."""
_STATES: Final = {"deflate": 7, "bzip2": 7, "xz": 15}
"""The highest state that a codec can have, where it has any; in a zip none has."""


class IndexReader:
    """Reads one index, forward: ``entries`` to their end, ``segments`` to theirs, ``finish``.

    Args:
        read: the file: at most so many bytes, none only at its end. Its errors pass through.
        size: its bytes.
        name: what errors call it.
        limits: what an archive may ask of us, and an index of one.

    Memory: one page, and nine bytes an entry.

    Concurrency: one thread.

    Raises:
        MalformedError: the header is none, or says what cannot be.
        UnsupportedError: another version of the format.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        size: int,
        *,
        name: str,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._pieces = Pieces(read, size, name, self._limits)
        self.header: Header = self._pieces.header()
        self._check_header()
        self._start = self._input = 0

    def _check_header(self) -> None:
        header, limits = self.header, self._limits
        if not 0 < header.entries <= limits.members:
            raise self._pieces.malformed(f"{header.entries} entries, {limits.members} are allowed")
        # In a zip each member has a ratio of its own, told where its segment is.
        given = header.size if header.compression != ZIP else header.decoded
        if limits.inflated(decoded=header.decoded, given=given):
            raise self._pieces.malformed(f"{header.size} bytes that decode to {header.decoded}")
        if header.compression == "none" and header.size != header.decoded:
            raise self._pieces.malformed("plain bytes of two lengths")
        if header.mark and header.compression == ZIP:
            raise self._pieces.malformed("a layer that is a zip")
        if header.mark == FILE and (header.compression, header.entries) != ("none", 1):
            raise self._pieces.malformed("a file that is an archive")

    def entries(self) -> Iterator[EntryPage]:
        """The entries, page by page.

        Raises:
            MalformedError: one cannot be.
        """
        pages = EntryPages(self.header, self._pieces.malformed, self._limits)
        while pages.count < self.header.entries:
            piece = self._pieces.piece(min(ENTRIES, self.header.entries - pages.count))
            yield pages.page(piece)

    def segments(self) -> Iterator[list[tuple[Segment, bytes]]]:
        """The segments with their packed windows, page by page, ascending and without gaps.

        Raises:
            MalformedError: one cannot be, or they are not all of the stream.
        """
        left = self.header.segments
        while left:
            piece = self._pieces.piece(min(SEGMENTS, left))
            left -= piece.count
            page = self._segments(piece)
            yield [(segment, self._window(segment)) for segment in page]
        if self._start != self.header.decoded:
            raise self._pieces.malformed(
                f"segments of {self._start} of {self.header.decoded} bytes"
            )

    def finish(self) -> Digest:
        """Say that all was read; gives the sha256 of the file as it was read.

        Raises:
            MalformedError: something follows.
        """
        return self._pieces.finish()

    def _segments(self, piece: Piece) -> list[Segment]:
        try:
            columns = _DECODE(piece.columns)
        except msgspec.DecodeError as error:
            raise self._pieces.malformed(f"segments that cannot be read: {error}") from error
        lengths = {
            len(columns.codecs),
            len(columns.lengths),
            len(columns.gaps),
            len(columns.inputs),
            len(columns.states),
            len(columns.checksums),
            len(piece.digests) // DIGEST,
        }
        if lengths != {piece.count}:
            raise self._pieces.malformed("columns of different lengths, or segments without digest")
        rows = zip(
            columns.codecs,
            columns.lengths,
            columns.gaps,
            columns.inputs,
            columns.states,
            columns.checksums,
            range(0, len(piece.digests), DIGEST),
            strict=True,
        )
        page: list[Segment] = []
        for codec, length, gap, given, state, crc32, at in rows:
            segment = Segment(
                start=self._start,
                length=length,
                input_start=self._input + gap,
                input_length=given,
                codec=CODECS[codec] if codec < len(CODECS) else "",
                crc32=crc32,
                sha256=piece.digests[at : at + DIGEST],
                state=state,
            )
            self._check(segment, gap)
            self._start += length
            self._input = segment.input_start + given
            page.append(segment)
        return page

    def _check(self, segment: Segment, gap: int) -> None:
        header, zipped = self.header, self.header.compression == ZIP
        if segment.codec not in _CODECS[header.compression]:
            raise self._wrong(segment, "a codec that is not this archive's")
        if segment.state > (0 if zipped else _STATES.get(segment.codec, 0)):
            raise self._wrong(segment, "a state that its codec does not have")
        if not 0 < segment.length <= header.decoded - segment.start:
            raise self._wrong(segment, f"{segment.length} of {header.decoded} decoded bytes")
        # Two segments share a byte where a block begins within it.
        if segment.input_start < 0 or (gap < -1 and not zipped):
            raise self._wrong(segment, "its input lies before another's")
        room = header.size - segment.input_start - (_LOCAL if zipped else 0)
        if not 0 < segment.input_length <= room:
            raise self._wrong(segment, f"its input reaches beyond {header.size} raw bytes")
        if segment.codec == "store" and segment.length != segment.input_length:
            raise self._wrong(segment, "stored bytes of two lengths")
        if zipped and self._limits.inflated(decoded=segment.length, given=segment.input_length):
            raise self._wrong(segment, f"{segment.input_length} bytes that decode to too many")

    def _window(self, segment: Segment) -> bytes:
        window = self._pieces.window()
        if window and (segment.codec != "deflate" or self.header.compression == ZIP):
            raise self._wrong(segment, "a window where none is needed")
        return window

    def _wrong(self, segment: Segment, what: str) -> MalformedError:
        return self._pieces.malformed(f"segment at {segment.start}: {what}")


_DECODE: Final = msgspec.msgpack.Decoder(SegmentColumns).decode
