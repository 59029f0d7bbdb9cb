"""Walks compressed data by its points, and decodes each segment by itself."""

import io
from collections.abc import Iterator
from itertools import pairwise

from cafs.codec.pointing import pointed
from cafs.codec.points import Point
from cafs.codec.segments import decode
from cafs.codec.sniffing import Compression
from cafs.model.record import Segment


def walked(
    compression: Compression, data: bytes, spacing: int, piece: int = 1 << 20
) -> tuple[bytes, list[Point], int]:
    """Decode all; what came of it, its points, and how much input it took."""
    source = io.BytesIO(data)
    decoding = pointed(
        compression, lambda size: source.read(min(size, piece)), "x", spacing=spacing
    )
    parts: list[bytes] = []
    points: list[Point] = []
    before = 0
    while True:
        part = decoding.read(70_001)
        told = decoding.points()
        # None is told later than with the read that gives its first byte.
        assert all(point.start >= before for point in told)
        points += told
        parts.append(part)
        before += len(part)
        if not part:
            return b"".join(parts), points, decoding.consumed()


def segments(points: list[Point], size: int, consumed: int) -> Iterator[Segment]:
    """The segments between the points."""
    for point, following in zip(points, [*points[1:], None], strict=True):
        stop, raw_stop = size, consumed
        if following is not None:
            stop = following.start
            raw_stop = following.input_start + (following.codec == "bzip2" and following.state > 0)
        yield Segment(
            start=point.start,
            length=stop - point.start,
            input_start=point.input_start,
            input_length=raw_stop - point.input_start,
            codec=point.codec,
            state=point.state,
        )


def restarted(data: bytes, segment: Segment) -> bytes:
    """What a segment decodes to, of which no piece may be large, nor any input of another."""
    stop = segment.input_start + segment.input_length

    def read(offset: int, length: int) -> bytes:
        assert segment.input_start <= offset
        assert offset + length <= stop
        return data[offset : offset + length]

    pieces = list(decode(segment, read, b"", name="x"))
    assert all(0 < len(piece) <= 1 << 20 for piece in pieces)
    return b"".join(pieces)


def checked(compression: Compression, data: bytes, content: bytes, spacing: int) -> list[Point]:
    """Decode all, then every segment by itself; the points."""
    got, points, consumed = walked(compression, data, spacing)
    assert got == content
    assert points[0].start == 0
    assert consumed <= len(data)
    for segment in segments(points, len(content), consumed):
        assert segment.length > 0 or not content
        assert restarted(data, segment) == content[segment.start :][: segment.length]
    assert all(two.start - one.start >= spacing for one, two in pairwise(points))
    return points
