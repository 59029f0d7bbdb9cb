"""Random gzip data of random writers: every segment by itself decodes to its slice of the whole."""

import gzip
import io
import zlib

from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.codec import windows
from cafs.codec.pointing import pointed
from cafs.codec.points import Point
from cafs.codec.segments import decode
from cafs.codec.sniffing import Compression
from cafs.model.record import Segment

STRATEGIES = [
    zlib.Z_DEFAULT_STRATEGY,
    zlib.Z_FILTERED,
    zlib.Z_HUFFMAN_ONLY,
    zlib.Z_RLE,
    zlib.Z_FIXED,
]
FLUSHES = [zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_BLOCK]
EMPTY = b"\0\0\0\xff\xff"


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes that repeat what came before, near and far, so that windows matter."""
    content = bytearray()
    for seed in draw(st.lists(st.integers(0, 1 << 32), min_size=1, max_size=40)):
        kind, far, length = seed & 3, seed >> 2 & 0x7FFF, seed >> 17 & 0xFFF
        if kind == 0:
            content += seed.to_bytes(8, "little") * (length // 8)
        elif kind == 1 and content:
            at = max(len(content) - far - 1, 0)
            content += content[at : at + length]
        else:
            rest = seed
            for _ in range(length):
                rest = (rest * 1_103_515_245 + 12_345) & 0x7FFFFFFF
                content.append(rest >> 16 & (0xFF if kind == 2 else 0x0F))
    return bytes(content)


@st.composite
def members(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A gzip member, and its content."""
    content = draw(contents())
    packer = zlib.compressobj(
        draw(st.integers(0, 9)),
        zlib.DEFLATED,
        -15,
        draw(st.integers(1, 9)),
        draw(st.sampled_from(STRATEGIES)),
    )
    flush = draw(st.sampled_from(FLUSHES))
    every = draw(st.integers(500, 30_000))
    blocks = b""
    for at in range(0, len(content), every):
        blocks += packer.compress(content[at : at + every])
        if flush != zlib.Z_NO_FLUSH:
            blocks += packer.flush(flush)
        if flush in (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH):
            blocks += EMPTY * draw(st.integers(0, 3))
    blocks += packer.flush()
    sums = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return gzip.compress(b"")[:10] + blocks + sums, content


def walked(data: bytes, spacing: int, piece: int) -> tuple[bytes, list[Point], int]:
    source = io.BytesIO(data)
    decoding = pointed(
        Compression.GZIP, lambda size: source.read(min(size, piece)), "x", spacing=spacing
    )
    parts, points = [decoding.read(5000)], decoding.points()
    while parts[-1]:
        parts.append(decoding.read(5000))
        points += decoding.points()
    return b"".join(parts), points, decoding.consumed()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(members(), min_size=1, max_size=4),
    st.sampled_from([0, 0, 1, 5000]),
    st.sampled_from([1, 3000, 33_000, 40_000]),
    st.sampled_from([37, 1000, 1 << 20]),
)
def test_segments_by_themselves_are_slices_of_the_whole(
    made: list[tuple[bytes, bytes]], zeros: int, spacing: int, piece: int
) -> None:
    data, content = (b"".join(parts) for parts in zip(*made, strict=True))
    got, points, consumed = walked(data + bytes(zeros), spacing, piece)
    assert (got, consumed) == (content, len(data))
    assert walked(data, spacing, 1 << 20)[1] == points
    following = [*points[1:], Point(start=len(content), input_start=consumed, codec="")]
    for point, end in zip(points, following, strict=True):
        stop = end.input_start + (end.state > 0)
        segment = Segment(
            start=point.start,
            length=end.start - point.start,
            input_start=point.input_start,
            input_length=stop - point.input_start,
            codec=point.codec,
            state=point.state,
        )
        window = windows.unpack(windows.pack(point.window))
        parts = decode(segment, lambda at, size: data[at : at + size], window, name="x")
        assert b"".join(parts) == content[point.start : end.start]
