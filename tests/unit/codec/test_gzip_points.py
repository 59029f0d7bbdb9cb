"""Restart points of gzip: every segment decoded by itself is the slice of the whole."""

import gzip
import io
import random
import resource
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from cafs.codec import windows, zlib_door
from cafs.codec.gzip_points import GzipPoints
from cafs.codec.pointing import pointed
from cafs.codec.points import Point
from cafs.codec.segments import decode
from cafs.codec.sniffing import Compression
from cafs.codec.zlib_door import Flush
from cafs.errors import MalformedError, UnsupportedError
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
    parts, points, before = [], [], 0
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


def test_every_bit_of_a_byte_is_met() -> None:
    states = {point.state for point in checked(packed(CONTENT), CONTENT, 30_000)}
    assert states == set(range(8))


@pytest.mark.parametrize("spacing", [1, 700, 20_000, 33_000, 1 << 30])
def test_any_spacing_will_do(spacing: int) -> None:
    content = CONTENT[:150_000]
    points = checked(packed(content, every=5000, flush=zlib.Z_SYNC_FLUSH), content, spacing)
    assert all(b.start - a.start >= spacing for a, b in pairwise(points))
    assert spacing > 33_000 or len(points) > 3
    # What was decoded before the first of them is less than a whole window.
    assert spacing > 20_000 or 0 < len(points[1].window) < 32 << 10


@pytest.mark.parametrize("writer", ["level 6", "sync", "fixed", "members"])
def test_points_do_not_depend_on_how_the_input_comes(writer: str) -> None:
    data = WRITERS[writer](CONTENT[:150_000])
    wanted = walked(data, 20_000)
    for piece in (1, 2, 997):
        assert walked(data, 20_000, piece) == wanted


def test_a_boundary_right_where_a_point_is_due_is_passed_whatever_the_input_does() -> None:
    data = packed(CONTENT[:400_000], every=10_000, flush=zlib.Z_SYNC_FLUSH)
    wanted = walked(data, 40_000)
    assert [point.start for point in wanted[1][:3]] == [0, 50_000, 100_000]
    for piece in (1, 3, 997):
        assert walked(data, 40_000, piece) == wanted


def test_many_small_members_are_grouped_by_their_beginnings() -> None:
    points = checked(members(CONTENT, 8_000), CONTENT)
    assert {point.codec for point in points} == {"gzip"}
    assert not any(point.window for point in points)
    assert [point.start for point in points[:3]] == [0, 104_000, 208_000]
    exact = checked(members(CONTENT, SPACING), CONTENT)
    assert [point.start for point in exact] == list(range(0, len(CONTENT), SPACING))


def test_a_small_file_has_only_its_beginning() -> None:
    for content in (b"", b"a", CONTENT[:SPACING]):
        assert len(checked(gzip.compress(content), content)) == 1
    empty = gzip.compress(b"") * 500
    assert len(checked(empty + gzip.compress(b"a") + empty, b"a", 1)) == 1


def test_no_point_is_told_where_nothing_follows() -> None:
    ended = packed(CONTENT, flush=zlib.Z_FULL_FLUSH) + gzip.compress(b"") * 3
    assert checked(ended, CONTENT)[-1].start < len(CONTENT)


@pytest.mark.parametrize("rest", [b"", bytes(300_000), b"garbage", b"\x1f"])
def test_what_is_ignored_behind_the_last_member_is_no_part_of_it(rest: bytes) -> None:
    data = WRITERS["long members"](CONTENT)
    got, _, consumed = walked(data + rest)
    assert (got, consumed) == (CONTENT, len(data))


def member_with_everything(content: bytes) -> bytes:
    """A member whose header has all there is: extra, name, comment, checksum (RFC 1952 §2.3)."""
    extra = b"BC\2\0\x1b\0"
    header = b"\x1f\x8b\x08\x1f\0\0\0\0\0\xff" + len(extra).to_bytes(2, "little") + extra
    header += b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    packer = zlib.compressobj(wbits=-15)
    return header + trailed(packer.compress(content) + packer.flush(), content)


def trailed(blocks: bytes, content: bytes) -> bytes:
    sums = (zlib.crc32(content), len(content) & 0xFFFFFFFF)
    return blocks + b"".join(value.to_bytes(4, "little") for value in sums)


def test_headers_with_everything_are_walked_and_restarted_across() -> None:
    content = CONTENT[:900_000]
    parts = [content[at : at + 60_000] for at in range(0, len(content), 60_000)]
    data = b"".join(map(member_with_everything, parts))
    assert {point.codec for point in checked(data, content, 20_000)} == {"gzip", "deflate"}


def test_one_giant_block_has_no_point_within() -> None:
    content = bytes(RANDOM.randrange(144) for _ in range(300_000))
    # Literals below 144 have eight bits in fixed codes, the first one highest (RFC 1951 §3.2.6).
    bits = "110" + "".join(f"{0x30 + byte:08b}" for byte in content) + "0000000"
    blocks = int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")
    data = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + trailed(blocks, content)
    assert len(checked(data, content)) == 1


STORED = b"\0\0\0\xff\xff"
FIXED = sum(0b010 << 10 * block for block in range(4)).to_bytes(5, "little")


@pytest.mark.parametrize("empty", [STORED, FIXED])
def test_a_run_of_empty_blocks_does_not_stop_it_at_each(empty: bytes) -> None:
    packer = zlib.compressobj(wbits=-15)
    run = empty * 20_000
    blocks = b""
    content = CONTENT[:600_000]
    for at in range(0, len(content), 50_000):
        blocks += packer.compress(content[at : at + 50_000]) + packer.flush(zlib.Z_SYNC_FLUSH) + run
    data = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + trailed(blocks + packer.flush(), content)
    assert len(checked(data, content)) > 3
    calls = 0
    decoding = pointed(Compression.GZIP, io.BytesIO(data).read, "x", spacing=SPACING)
    assert isinstance(decoding, GzipPoints)
    inflater = decoding._members._inflater
    running = inflater.run

    def counted(room: int, flush: Flush = Flush.NONE) -> bytes:
        nonlocal calls
        calls += 1
        return running(room, flush)

    inflater.run = counted  # type: ignore[method-assign]
    while decoding.read(1 << 20):
        pass
    assert calls < 200


def test_a_window_keeps_what_is_referred_to_and_nothing_else() -> None:
    data = packed(CONTENT)
    _, points, consumed = walked(data)
    kept = 0
    for segment, window in segments(points, len(CONTENT), consumed):
        if segment.codec == "gzip":
            continue
        whole = CONTENT[segment.start - len(window) : segment.start]
        assert all(mine in (0, true) for mine, true in zip(window, whole, strict=True))
        at = [index for index, byte in enumerate(window) if byte]
        kept += len(at)
        for index in RANDOM.sample(at, min(len(at), 3)):
            wrong = bytearray(window)
            wrong[index] ^= 0xFF
            got = restarted(data, segment, bytes(wrong))
            assert got != CONTENT[segment.start : segment.start + segment.length]
    assert 0 < kept < len(points) * (32 << 10) // 2


def test_what_refers_to_nothing_has_no_window() -> None:
    points = checked(packed(CONTENT, flush=zlib.Z_FULL_FLUSH, every=SPACING), CONTENT)
    at_flushes = [point for point in points[1:] if point.start % SPACING == 0]
    assert at_flushes
    assert not any(point.window for point in at_flushes)
    # A window of zeros that are referred to is another thing.
    zeros = bytes(200_000)
    windowed = checked(packed(zeros, every=30_000, flush=zlib.Z_SYNC_FLUSH), zeros, 50_000)[1:]
    assert all(point.window and not any(point.window) for point in windowed)


def test_a_cut_at_every_point_is_noticed() -> None:
    content = CONTENT[:900_000]
    data = members(content, 400_000)
    _, points, consumed = walked(data)
    for segment, window in segments(points, len(content), consumed):
        # Where a member begins the data may end.
        least = 0 if segment.codec == "deflate" else 2
        for cut in (segment.input_start + least, segment.input_start + 9):
            with pytest.raises(MalformedError, match="ends too early"):
                walked(data[:cut])
            with pytest.raises(MalformedError, match="bytes are missing"):
                restarted(data[:cut], segment, window)


def test_flipped_bytes_are_noticed_and_never_give_more() -> None:
    content = CONTENT[:60_000]
    data = packed(content[:40_000], every=4000, flush=zlib.Z_SYNC_FLUSH)
    data += gzip.compress(content[40_000:])
    _, points, consumed = walked(data, 7000)
    spans = list(segments(points, len(content), consumed))
    assert {segment.codec for segment, _ in spans} == {"gzip", "deflate"}
    wrong = bytearray(data)
    for at in RANDOM.sample(range(len(data)), 200):
        wrong[at] ^= RANDOM.randrange(1, 256)
        damaged = bytes(wrong)
        with suppress(MalformedError):
            # Only what means nothing in a header may be flipped, or what makes the rest garbage.
            assert content.startswith(walked(damaged, 7000)[0])
        for segment, window in spans:
            with suppress(MalformedError):
                assert len(restarted(damaged, segment, window)) == segment.length
        wrong[at] = data[at]


@pytest.mark.parametrize(("state", "window"), [(8, b""), (-1, b""), (0, bytes((32 << 10) + 1))])
def test_a_point_that_cannot_be_is_refused(state: int, window: bytes) -> None:
    segment = Segment(
        start=0, length=9, input_start=0, input_length=9, codec="deflate", state=state
    )
    with pytest.raises(MalformedError, match="bits in, behind"):
        restarted(bytes(9), segment, window)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        zstandard.compress(bytes((32 << 10) + 1)),
        zstandard.compress(CONTENT[:5000])[:-5],
        zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"),
    ],
)
def test_what_is_no_window_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError, match="window"):
        windows.unpack(raw)


def test_decoders_that_are_left_in_the_middle_leave_no_memory_behind() -> None:
    data = packed(CONTENT)

    def left_in_the_middle() -> None:
        pointed(Compression.GZIP, io.BytesIO(data).read, "x", spacing=SPACING).read(SPACING * 2)

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    for _ in range(20):
        left_in_the_middle()
    before = resident()
    for _ in range(200):
        left_in_the_middle()
    # One has four streams of 40 KiB, and half a MiB for output.
    assert resident() - before < 12 << 20


def test_without_libz_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zlib_door, "_LIBRARY", "libnothing.so.1")
    zlib_door._library.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match=r"without libnothing\.so\.1"):
            pointed(Compression.GZIP, io.BytesIO(b"").read, "x")
    finally:
        zlib_door._library.cache_clear()
