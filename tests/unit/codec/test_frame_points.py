"""Points of zstd, xz, bzip2 and slices: every segment by itself is the slice of the whole."""

import bz2
import io
import lzma
import random
import subprocess
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from itertools import pairwise

import pytest
import zstandard
from msgspec.structs import replace

from cafs.codec.bzip2_magics import BLOCK, END, BitInput
from cafs.codec.sniffing import Compression
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.record import Segment
from tests.walking import checked, restarted, segments, walked

RANDOM = random.Random(7)
WORDS = [RANDOM.randbytes(RANDOM.randrange(2, 12)) for _ in range(3000)]
TEXT = b" ".join(RANDOM.choices(WORDS, k=150_000))
CONTENT = TEXT + RANDOM.randbytes(300_000) + bytes(700_000) + TEXT[:200_000]
SPACING = 100_000
SKIPPED = b"\x5a\x2a\x4d\x18" + (700).to_bytes(4, "little") + bytes(700)

Writer = Callable[[bytes], bytes]


def tool(*command: str) -> Writer:
    def run(content: bytes) -> bytes:
        return subprocess.run(command, input=content, check=True, capture_output=True).stdout

    return run


def many(pack: Writer, content: bytes, size: int, between: bytes = b"") -> bytes:
    """Frames, or streams, of so many bytes each."""
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return between + b"".join(pack(part) + between for part in parts)


def seekable(content: bytes) -> bytes:
    """zstd's seekable format: frames, and a table of them in a skippable one at the end.

    Source:
        zstd, contrib/seekable_format/zstd_seekable_compression_format.md.
    """
    size = 60_000
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    frames = [zstandard.compress(part, 1) for part in parts]
    table = b"".join(
        len(frame).to_bytes(4, "little") + len(part).to_bytes(4, "little")
        for frame, part in zip(frames, parts, strict=True)
    )
    table += len(frames).to_bytes(4, "little") + b"\0" + 0x8F92EAB1.to_bytes(4, "little")
    head = b"\x5e\x2a\x4d\x18" + len(table).to_bytes(4, "little")
    return b"".join(frames) + head + table


def xz(content: bytes, check: int = lzma.CHECK_CRC64) -> bytes:
    return lzma.compress(content, check=check, preset=0)


WRITERS: dict[str, tuple[Compression, Writer]] = {
    "zstd frames": (Compression.ZSTD, partial(many, zstandard.compress, size=60_000)),
    "zstd large frames": (Compression.ZSTD, partial(many, zstandard.compress, size=333_333)),
    "zstd skippable": (
        Compression.ZSTD,
        partial(many, zstandard.compress, size=60_000, between=SKIPPED),
    ),
    "zstd checksums": (Compression.ZSTD, partial(many, tool("zstd", "-1c"), size=400_000)),
    "zstd seekable": (Compression.ZSTD, seekable),
    "zstd by split": (
        Compression.ZSTD,
        tool("split", "-b", "200000", "--filter=zstd -qc", "-"),
    ),
    "pzstd": (Compression.ZSTD, partial(many, tool("pzstd", "-1c", "-p2"), size=900_000)),
    "xz -T2": (Compression.XZ, tool("xz", "-0c", "-T2", "--block-size=100KiB")),
    "xz -T1": (Compression.XZ, tool("xz", "-0c", "-T1", "--block-size=33KiB")),
    "xz --block-list": (Compression.XZ, tool("xz", "-0c", "--block-list=150KiB,1,200KiB,0")),
    "xz filters": (
        Compression.XZ,
        tool(
            "xz", "-c", "-T2", "--block-size=150KiB", "--x86", "--delta=dist=3", "--lzma2=preset=0"
        ),
    ),
    "xz streams": (Compression.XZ, partial(many, xz, size=130_000)),
    "xz small streams": (
        Compression.XZ,
        partial(many, tool("xz", "-0c", "--block-size=9KiB"), size=40_000),
    ),
    **{
        f"xz {check}": (
            Compression.XZ,
            tool("xz", "-0c", "-C", check, "-T2", "--block-size=250KiB"),
        )
        for check in ("none", "crc32", "crc64", "sha256")
    },
    "pixz": (Compression.XZ, tool("pixz", "-0", "-p2", "-f0.4")),
    "bzip2 -1": (Compression.BZIP2, partial(bz2.compress, compresslevel=1)),
    "bzip2 -9": (Compression.BZIP2, bz2.compress),
    "bzip2 streams": (
        Compression.BZIP2,
        partial(many, partial(bz2.compress, compresslevel=1), size=270_000),
    ),
    "bzip2 small streams": (Compression.BZIP2, partial(many, bz2.compress, size=40_000)),
    "pbzip2": (Compression.BZIP2, tool("pbzip2", "-c", "-1", "-b1", "-p2")),
    "slices": (Compression.NONE, bytes),
}


XZ_CHECKS = {"xz none": 0, "xz crc32": 1, "xz sha256": 10, "pixz": 1}
PACKS: dict[Compression, Writer] = {
    Compression.ZSTD: zstandard.compress,
    Compression.XZ: xz,
    Compression.BZIP2: bz2.compress,
}


@cache
def written(writer: str) -> bytes:
    return WRITERS[writer][1](CONTENT)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_segment_by_itself_is_the_slice(writer: str) -> None:
    points = checked(WRITERS[writer][0], written(writer), CONTENT, SPACING)
    assert len(points) > 1
    assert all(point.window == b"" for point in points)


@pytest.mark.parametrize("writer", WRITERS)
def test_points_do_not_depend_on_how_the_input_comes(writer: str) -> None:
    compression, pack = WRITERS[writer]
    data = pack(TEXT[:150_000])
    wanted = walked(compression, data, 20_000)
    for piece in (1, 7, 997):
        assert walked(compression, data, 20_000, piece) == wanted


@pytest.mark.parametrize("spacing", [1, 700, 100_001, 1 << 30])
@pytest.mark.parametrize("writer", ["zstd skippable", "xz small streams", "bzip2 small streams"])
def test_any_spacing_will_do(writer: str, spacing: int) -> None:
    compression, pack = WRITERS[writer]
    points = checked(compression, pack(CONTENT[:400_000]), CONTENT[:400_000], spacing)
    assert spacing > 700 or len(points) > 6
    assert spacing < 1 << 30 or len(points) == 1


def test_small_frames_are_grouped() -> None:
    for compression, pack in PACKS.items():
        points = checked(compression, many(pack, CONTENT, 8_000), CONTENT, SPACING)
        assert [point.start for point in points[:3]] == [0, 104_000, 208_000]
        content = CONTENT[: 3 * SPACING]
        exact = checked(compression, many(pack, content, SPACING), content, SPACING)
        assert [point.start for point in exact] == [0, SPACING, 2 * SPACING]


def test_slices_are_as_long_as_the_spacing() -> None:
    points = checked(Compression.NONE, CONTENT, CONTENT, SPACING)
    assert [point.start for point in points] == list(range(0, len(CONTENT), SPACING))
    assert all(point.input_start == point.start for point in points)
    assert walked(Compression.NONE, CONTENT, SPACING)[2] == len(CONTENT)


def test_points_are_where_a_frame_or_a_block_begins() -> None:
    for writer, (compression, _) in WRITERS.items():
        data = written(writer)
        for point in walked(compression, data, SPACING)[1]:
            at = point.input_start
            if compression is Compression.ZSTD:
                assert data[at:].startswith(b"\x28\xb5\x2f\xfd")
            if compression is Compression.BZIP2:
                bits = int.from_bytes(data[at : at + 7], "big") >> 8 - point.state
                assert bits & (1 << 48) - 1 == BLOCK
            if compression is Compression.XZ:
                size = data[at] * 4
                summed = int.from_bytes(data[at + size : at + size + 4], "little")
                assert zlib.crc32(data[at : at + size]) == summed
                assert point.state == XZ_CHECKS.get(writer, 4)


def test_what_is_skipped_behind_the_last_frame_is_no_part_of_it() -> None:
    frames = zstandard.compress(CONTENT) + zstandard.compress(b"")
    assert walked(Compression.ZSTD, frames + SKIPPED * 3, SPACING)[2] == len(frames)
    got, points, _ = walked(Compression.ZSTD, SKIPPED + frames, SPACING)
    assert (got, points[0].input_start) == (CONTENT, len(SKIPPED))


@pytest.mark.parametrize("rest", [b"", bytes(300_000), b"garbage", b"B", b"BZ", b"1AY&SY"])
def test_what_is_ignored_behind_the_last_bzip2_stream_is_no_part_of_it(rest: bytes) -> None:
    data = written("bzip2 streams")
    got, _, consumed = walked(Compression.BZIP2, data + rest, SPACING)
    assert (got, consumed) == (CONTENT, len(data))


@pytest.mark.parametrize("padding", [0, 4, 300_000])
def test_xz_segments_go_on_across_streams_and_padding(padding: int) -> None:
    packs = [partial(xz, check=check) for check in (lzma.CHECK_NONE, lzma.CHECK_SHA256)]
    parts = [CONTENT[at : at + 50_000] for at in range(0, 600_000, 50_000)]
    data = b"".join(packs[number % 2](part) + bytes(padding) for number, part in enumerate(parts))
    points = checked(Compression.XZ, data, b"".join(parts), 120_000)
    assert [point.start for point in points] == [0, 150_000, 300_000, 450_000]
    assert [point.state for point in points] == [0, 10, 0, 10]


@pytest.mark.parametrize("padding", [1, 2, 3, 7])
def test_xz_padding_is_whole_words_also_within_a_segment(padding: int) -> None:
    block = xz(b"a")
    data = block + bytes(padding) + block
    with pytest.raises(MalformedError, match=f"{padding} bytes of padding"):
        walked(Compression.XZ, data, SPACING)
    segment = Segment(
        start=0, length=2, input_start=12, input_length=len(data) - 12, codec="xz", state=4
    )
    with pytest.raises(MalformedError, match=f"{padding} bytes of padding"):
        restarted(data, segment)


@pytest.mark.parametrize("compression", PACKS)
def test_what_is_empty_has_one_point(compression: Compression) -> None:
    pack = PACKS[compression]
    for content in (b"", b"a"):
        data = pack(b"") * 3 + pack(content) + pack(b"") * 3
        assert len(checked(compression, data, content, 1)) == 1
        if compression is not Compression.BZIP2:
            assert walked(compression, data, 1)[2] == len(data)


def test_no_bytes_have_one_point() -> None:
    assert len(checked(Compression.NONE, b"", b"", 1)) == 1


@pytest.mark.parametrize("bits", range(8))
def test_a_block_may_begin_at_every_bit(bits: int) -> None:
    content = CONTENT[:250_000]
    blocks = bz2.compress(content, 1)[4:]
    before = (1 << bits) - 1 << 8 * len(blocks)
    data = (before | int.from_bytes(blocks, "big")) << -bits % 8
    raw = data.to_bytes(len(blocks) + (bits > 0), "big")
    segment = Segment(
        start=0,
        length=len(content),
        input_start=0,
        input_length=len(raw),
        codec="bzip2",
        state=bits,
    )
    assert restarted(raw, segment) == content


def test_a_block_of_one_letter_may_be_as_long_as_it_can() -> None:
    content = TEXT[:5000] + bytes(60 << 20) + TEXT[:5000]
    points = checked(Compression.BZIP2, bz2.compress(content), content, SPACING)
    assert any(two.start - one.start > 40 << 20 for one, two in pairwise(points))


@pytest.mark.parametrize("writer", ["zstd large frames", "xz -T2", "bzip2 -1", "pbzip2", "slices"])
def test_a_part_of_a_segment_is_had_by_skipping(writer: str) -> None:
    compression, data = WRITERS[writer][0], written(writer)
    _, points, consumed = walked(compression, data, SPACING)
    for segment in segments(points, len(CONTENT), consumed):
        skip = RANDOM.randrange(segment.length)
        length = RANDOM.randrange(segment.length - skip)
        part = replace(segment, start=segment.start + skip, length=length, skip=skip)
        assert restarted(data, part) == CONTENT[part.start :][:length]


@pytest.mark.parametrize("writer", ["zstd large frames", "xz -T2", "xz streams", "bzip2 -1"])
def test_a_cut_at_every_point_is_noticed(writer: str) -> None:
    compression, pack = WRITERS[writer]
    content = CONTENT[:700_000]
    data = pack(content)
    _, points, consumed = walked(compression, data, SPACING)
    for segment in segments(points, len(content), consumed):
        for cut in (1, 9, segment.input_length // 2):
            damaged = data[: segment.input_start + cut]
            with pytest.raises(MalformedError, match="ends too early"):
                walked(compression, damaged, SPACING)
            with pytest.raises(MalformedError, match=r"missing|too early|no bzip2 block"):
                restarted(damaged, segment)


@pytest.mark.parametrize("writer", ["zstd skippable", "xz --block-list", "xz none", "bzip2 -1"])
def test_flipped_bytes_are_noticed_and_never_give_more(writer: str) -> None:
    compression, pack = WRITERS[writer]
    content = CONTENT[:350_000]
    data = pack(content)
    _, points, consumed = walked(compression, data, SPACING)
    spans = list(segments(points, len(content), consumed))
    wrong = bytearray(data)
    for at in RANDOM.sample(range(len(data)), 25):
        wrong[at] ^= RANDOM.randrange(1, 256)
        damaged = bytes(wrong)
        with suppress(MalformedError, UnsupportedError):
            walked(compression, damaged, SPACING)
        for segment in spans:
            with suppress(MalformedError, UnsupportedError):
                assert len(restarted(damaged, segment)) == segment.length
        wrong[at] = data[at]


@pytest.mark.parametrize(
    ("codec", "state", "data", "error", "what"),
    [
        ("xz", 16, b"", MalformedError, "no check 16"),
        ("xz", -1, b"", MalformedError, "no check -1"),
        ("xz", 4, b"\1" + bytes(20), MalformedError, "damaged xz data"),
        ("xz", 4, xz(CONTENT[:99]), MalformedError, "too early|damaged"),
        ("xz", 4, b"\0\xff" + b"\xff" * 20, MalformedError, "no such number"),
        ("bzip2", 3, bz2.compress(b"a")[4:], MalformedError, "no bzip2 block begins 3 bits in"),
        ("bzip2", 8, bz2.compress(b"a")[3:], MalformedError, "no bzip2 block begins 8 bits in"),
        ("bzip2", 0, bz2.compress(b"")[4:], MalformedError, "no bzip2 block"),
        ("bzip2", 0, bz2.compress(b"a")[:30], MalformedError, "no bzip2 block"),
        ("zstd", 0, b"nothing", MalformedError, "no zstd frame"),
        ("lzw", 0, b"nothing", UnsupportedError, "not known"),
    ],
)
def test_a_point_that_cannot_be_is_refused(
    codec: str, state: int, data: bytes, error: type[Exception], what: str
) -> None:
    segment = Segment(
        start=0, length=99, input_start=0, input_length=len(data), codec=codec, state=state
    )
    with pytest.raises(error, match=what):
        restarted(data, segment)


def test_a_block_of_xz_that_needs_much_memory_is_not_supported() -> None:
    block = b"\x02\0\x21\x01\x24\0\0\0"
    data = block + zlib.crc32(block).to_bytes(4, "little") + b"\1\0\0a\0"
    segment = Segment(start=0, length=1, input_start=0, input_length=len(data), codec="xz", state=0)
    with pytest.raises(UnsupportedError, match="256 MiB"):
        restarted(data, segment)


def block_of(symbols: bytes) -> bytes:
    """A bzip2 stream of one block, whose data are these bytes of eight bits, as they are.

    They are indexes in the list of letters, of which there are 254; so each code has eight bits,
    and the last one is the end.
    """
    decoded = turned_back(symbols)
    value, length = 1, 0

    def put(bits: int, count: int) -> None:
        nonlocal value, length
        value, length = value << count | bits, length + count

    groups = len(symbols) // 50 + 1
    for bits, count in (
        (int.from_bytes(b"BZh9", "big"), 32),
        (BLOCK, 48),
        (summed(decoded), 32),
        (0, 25),
        (0xFFFF, 16),
        ((1 << 256) - 4, 256),
        (2, 3),
        (groups, 15),
        (0, groups),
        *[(8, 5), (0, 256)] * 2,
        (int.from_bytes(symbols, "big"), 8 * len(symbols)),
        (255, 8),
        (END, 48),
        (summed(decoded), 32),
    ):
        put(bits, count)
    put(0, -length % 8)
    return value.to_bytes(length // 8 + 1, "big")[1:]


def turned_back(symbols: bytes) -> bytes:
    """What a block of these decodes to, where no letter comes twice at once."""
    letters = list(range(254))
    column = []
    for symbol in symbols:
        letters.insert(0, letters.pop(symbol - 1))
        column.append(letters[0])
    order = sorted(range(len(column)), key=lambda at: (column[at], at))
    out, at = [], order[0]
    for _ in column:
        out.append(column[at])
        at = order[at]
    return bytes(out)


def summed(content: bytes) -> int:
    """bzip2's sum: a CRC-32 whose bits go the other way round than in gzip."""
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in content)
    return int(f"{zlib.crc32(turned):032b}"[::-1], 2)


def test_what_looks_like_a_beginning_or_an_end_within_a_block_is_data() -> None:
    marks = [BLOCK.to_bytes(6, "big"), END.to_bytes(6, "big")]
    symbols = b"".join(
        bytes(RANDOM.randrange(2, 255) for _ in range(RANDOM.randrange(40))) + RANDOM.choice(marks)
        for _ in range(2000)
    )
    content = bz2.decompress(data := block_of(symbols))
    assert len(list(iter(BitInput(io.BytesIO(data).read).stretch, (b"", None)))) > 2000
    other = bz2.compress(TEXT[:5000])
    points = checked(Compression.BZIP2, data + other + data, content + TEXT[:5000] + content, 1)
    assert [point.start for point in points] == [0, len(content), len(content) + 5000]
