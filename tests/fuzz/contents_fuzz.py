"""Tables of contents: what a manifest says of them, the footer, the text, and the entries.

The first byte of an input says which of these it is.
"""

from typing import Final

from cafs.codec import estargz, zstd_chunked
from cafs.codec.estargz import TableText
from cafs.model.member import Kind, Member
from cafs.model.record import Segment
from tests.fuzz.fuzzing import LIMITS, STEPS, Given, content_to_blame

MOST: Final = 4 << 10
END: Final = 100_000
"""Bytes of a layer before its table."""


class Listing:
    """Takes what a table says, and looks whether it can be."""

    def __init__(self) -> None:
        self.size = 0
        self.input = 0
        self.stored = 0

    def member(self, member: Member) -> None:
        """Take a member."""
        assert (member.target is not None) == (member.kind in {Kind.SYMLINK, Kind.HARD_LINK})
        assert 0 <= member.mode <= 0o7777
        assert 0 <= member.uid < 1 << 32
        assert 0 <= member.gid < 1 << 32
        assert -(1 << 63) <= member.mtime_ns < 1 << 63
        assert 0 <= member.device < 1 << 32
        assert member.kind is Kind.FILE or not member.size
        data = member.size
        if member.sparse is not None:
            end = data = 0
            for piece in member.sparse:
                assert piece.offset >= end
                assert piece.length > 0
                end = piece.offset + piece.length
                data += piece.length
            assert end <= member.size
        if member.kind is Kind.FILE:
            assert member.offset == self.stored
            self.stored += data

    def segment(self, segment: Segment) -> None:
        """Take a segment."""
        assert segment.start == self.size
        assert segment.length > 0
        assert len(segment.sha256) == 32
        assert segment.input_start >= self.input
        assert segment.input_length > 0
        assert segment.input_start + segment.input_length <= END
        assert 0 <= segment.skip <= LIMITS.size
        self.size += segment.length
        self.input = segment.input_start
        assert self.size <= LIMITS.size


def one(data: bytes) -> None:
    """Read what the first byte says."""
    knobs, data = (data[0], data[1:]) if data else (0, b"")
    kind, step = knobs & 7, STEPS[knobs >> 4 & 3]
    with content_to_blame():
        if kind == 0:
            footer = data[-estargz.FOOTER :]
            start = estargz.table_start(footer)
            assert start is None or 0 <= start < 1 << 64
        elif kind == 1:
            text = TableText(Given(data, step).read, name="x", limits=LIMITS)
            while text.read(1 << 16):
                pass
        elif kind == 4:
            announced(data)
        else:
            table = zstd_chunked if kind & 1 else estargz
            listing = Listing()
            source = Given(data, step)
            size = table.read_table(source.read, listing, start=END, name="x", limits=LIMITS)
            assert size == listing.size == listing.stored
            assert source.at >= len(data)


def announced(data: bytes) -> None:
    """Annotations: lines, in turn a name and what it says."""
    lines = data.decode("utf-8", "replace").split("\n")
    annotations = dict(zip(lines[::2], lines[1::2], strict=False))
    for found in (estargz.announced(annotations), zstd_chunked.announced(annotations)):
        if found is not None:
            assert found.digest.algorithm == "sha256"
            assert min(found.start, found.length, found.size) >= 0
