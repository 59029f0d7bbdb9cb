"""Random frames, blocks and streams of random writers: segments by themselves are slices."""

import bz2
import io
import lzma
from collections.abc import Callable
from contextlib import suppress

import zstandard
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.codec.decoding import decoder
from cafs.codec.sniffing import Compression
from cafs.errors import MalformedError, UnsupportedError
from tests.walking import checked, restarted, segments, walked

CHECKS = [lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256]
SKIPPED = b"\x50\x2a\x4d\x18\x05\0\0\0other"


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Runs, noise, and what was there before."""
    content = bytearray()
    for seed in draw(st.lists(st.integers(0, 1 << 32), max_size=8)):
        kind, far, length = seed & 3, seed >> 2 & 0xFFF, seed >> 14 & 0x3FFF
        if kind == 0:
            content += bytes([seed >> 28]) * (length * 8)
        elif kind == 1:
            content += content[-far - 1 :][:length]
        else:
            rest = seed
            for _ in range(length >> 2):
                rest = (rest * 1_103_515_245 + 12_345) & 0x7FFFFFFF
                content.append(rest >> 16 & (0xFF if kind == 2 else 0x0F))
    return bytes(content)


@st.composite
def zstd(draw: st.DrawFn, content: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(
        level=draw(st.sampled_from([-5, 1, 3])),
        write_checksum=draw(st.booleans()),
        write_content_size=draw(st.booleans()),
    )
    engine = packer.compressobj()
    at = draw(st.integers(0, len(content)))
    data = engine.compress(content[:at]) + engine.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    data += engine.compress(content[at:]) + engine.flush()
    return SKIPPED * draw(st.integers(0, 2)) + data


@st.composite
def xz(draw: st.DrawFn, content: bytes) -> bytes:
    check = draw(st.sampled_from(CHECKS))
    chain: list[dict[str, int]] = [{"id": lzma.FILTER_LZMA2, "preset": draw(st.integers(0, 1))}]
    if draw(st.booleans()):
        chain.insert(0, {"id": lzma.FILTER_DELTA, "dist": draw(st.integers(1, 9))})
    data = lzma.compress(content, check=check, filters=chain)
    return data + bytes(4 * draw(st.integers(0, 2)))


@st.composite
def bzip2(draw: st.DrawFn, content: bytes) -> bytes:
    return bz2.compress(content, draw(st.integers(1, 9)))


PACKS: dict[Compression, Callable[[bytes], st.SearchStrategy[bytes]]] = {
    Compression.ZSTD: zstd,
    Compression.XZ: xz,
    Compression.BZIP2: bzip2,
}


@st.composite
def archives(draw: st.DrawFn) -> tuple[Compression, bytes, bytes]:
    """A compression, data of several frames or streams, and their content."""
    compression = draw(st.sampled_from(list(PACKS)))
    parts = draw(st.lists(contents(), min_size=1, max_size=6))
    return compression, b"".join(draw(PACKS[compression](part)) for part in parts), b"".join(parts)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(archives(), st.sampled_from([1, 3000, 33_000]), st.sampled_from([37, 1000, 1 << 20]))
def test_segments_by_themselves_are_slices_of_the_whole(
    made: tuple[Compression, bytes, bytes], spacing: int, piece: int
) -> None:
    compression, data, content = made
    points = checked(compression, data, content, spacing)
    assert walked(compression, data, spacing, piece)[:2] == (content, points)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(archives(), st.integers(0, 1 << 30), st.integers(1, 255), st.booleans())
def test_of_damaged_data_both_decoders_say_the_same(
    made: tuple[Compression, bytes, bytes], where: int, flip: int, cut: bool
) -> None:
    compression, data, content = made
    at = where % len(data)
    wrong = data[:at] if cut else data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
    plain: bytes | None = None
    with suppress(MalformedError, UnsupportedError):
        plain = decoder(compression, io.BytesIO(wrong).read, "x").read(1 << 30)
    pointed: bytes | None = None
    with suppress(MalformedError, UnsupportedError):
        pointed = walked(compression, wrong, 3000)[0]
    assert pointed == plain
    _, points, consumed = walked(compression, data, 3000)
    for segment in segments(points, len(content), consumed):
        with suppress(MalformedError, UnsupportedError):
            assert len(restarted(wrong, segment)) == segment.length
