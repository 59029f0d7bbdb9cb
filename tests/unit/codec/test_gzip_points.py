"""Restart points of gzip: every segment decoded by itself is the slice of the whole."""

import gzip
import io
import random
import subprocess
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import pytest

from cafs.codec import windows
from cafs.codec.pointing import pointed
from cafs.codec.points import Point
from cafs.codec.segments import decode
from cafs.codec.sniffing import Compression
from cafs.model.record import Segment

RANDOM = random.Random(3)
WORDS = [RANDOM.randbytes(RANDOM.randrange(2, 12)) for _ in range(3000)]
TEXT = b" ".join(RANDOM.choices(WORDS, k=250_000))
CONTENT = TEXT + RANDOM.randbytes(300_000) + bytes(700_000) + TEXT[:500_000]
SPACING = 100_000


def walked(
    data: bytes, spacing: int = SPACING, piece: int = 1 << 20
) -> tuple[bytes, list[Point], int]:
    """Decode all; what came of it, its points, and how much input it took."""
    source = io.BytesIO(data)
    decoding = pointed(
        Compression.GZIP, lambda size: source.read(min(size, piece)), "x.gz", spacing=spacing
    )
    parts, points, total = [], [], 0
    while part := decoding.read(70_001):
        total += len(part)
        parts.append(part)
        points += decoding.points()
    # Every point was told with the read that gave its first byte.
    assert not decoding.points()
    return b"".join(parts), points, decoding.consumed()


def segments(points: list[Point], size: int, consumed: int) -> Iterator[tuple[Segment, bytes]]:
    """The segments between the points, with their windows as they come out of the store."""
    for point, following in zip(points, [*points[1:], None], strict=True):
        stop, raw_stop = size, consumed
        if following is not None:
            stop, raw_stop = following.start, following.input_start + (following.state > 0)
        segment = Segment(
            start=point.start,
            length=stop - point.start,
            input_start=point.input_start,
            input_length=raw_stop - point.input_start,
            codec=point.codec,
            state=point.state,
        )
        yield segment, windows.unpack(windows.pack(point.window))


def restarted(data: bytes, segment: Segment, window: bytes) -> bytes:
    stop = segment.input_start + segment.input_length

    def read(offset: int, length: int) -> bytes:
        assert segment.input_start <= offset
        assert offset + length <= stop
        return data[offset : offset + length]

    return b"".join(decode(segment, read, window, name="x"))


def checked(data: bytes, content: bytes, spacing: int = SPACING) -> list[Point]:
    """Decode all, then every segment by itself; the points."""
    got, points, consumed = walked(data, spacing)
    assert got == content
    assert points[0] == Point(start=0, input_start=0, codec="gzip")
    for segment, window in segments(points, len(content), consumed):
        assert segment.length > 0 or not content
        got = restarted(data, segment, window)
        assert got == content[segment.start : segment.start + segment.length]
    return points


def members(content: bytes, size: int) -> bytes:
    """gzip members of so many bytes each, as bgzip has them."""
    return b"".join(
        gzip.compress(content[at : at + size], 1) for at in range(0, len(content), size)
    )


def packed(
    content: bytes,
    level: int = 6,
    *,
    strategy: int = zlib.Z_DEFAULT_STRATEGY,
    flush: int = zlib.Z_NO_FLUSH,
    every: int = 50_000,
    memory: int = 8,
) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 31, memory, strategy)
    parts = []
    for at in range(0, len(content), every):
        parts.append(packer.compress(content[at : at + every]))
        if flush:
            parts.append(packer.flush(flush))
    return b"".join(parts) + packer.flush()


def tool(*command: str) -> Callable[[bytes], bytes]:
    def run(content: bytes) -> bytes:
        return subprocess.run(command, input=content, check=True, capture_output=True).stdout

    return run


WRITERS: dict[str, Callable[[bytes], bytes]] = {
    **{f"level {level}": partial(packed, level=level) for level in range(10)},
    "fixed": partial(packed, strategy=zlib.Z_FIXED, memory=1),
    "huffman": partial(packed, strategy=zlib.Z_HUFFMAN_ONLY),
    "sync": partial(packed, flush=zlib.Z_SYNC_FLUSH),
    "full": partial(packed, flush=zlib.Z_FULL_FLUSH),
    "members": partial(members, size=65_280),
    "long members": partial(members, size=777_777),
    "gzip": tool("gzip", "-c"),
    "gzip -1": tool("gzip", "-1c"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_segment_by_itself_is_the_slice(writer: str) -> None:
    data = WRITERS[writer](CONTENT)
    points = checked(data, CONTENT)
    assert len(points) > 5
    assert all(b.start - a.start >= SPACING for a, b in pairwise(points))
