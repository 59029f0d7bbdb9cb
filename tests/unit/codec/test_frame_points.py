"""Points of zstd, xz, bzip2 and slices: every segment by itself is the slice of the whole."""

import bz2
import lzma
import random
import subprocess
from collections.abc import Callable
from functools import partial

import pytest
import zstandard

from cafs.codec.sniffing import Compression
from tests.walking import checked

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


def xz(content: bytes, check: int = lzma.CHECK_CRC64, **filters: int) -> bytes:
    chain = [filters, {"id": lzma.FILTER_LZMA2, "preset": 0}] if filters else None
    return lzma.compress(content, check=check, preset=None if chain else 0, filters=chain)


WRITERS: dict[str, tuple[Compression, Writer]] = {
    "zstd frames": (Compression.ZSTD, partial(many, zstandard.compress, size=60_000)),
    "zstd large frames": (Compression.ZSTD, partial(many, zstandard.compress, size=333_333)),
    "zstd skippable": (
        Compression.ZSTD,
        partial(many, zstandard.compress, size=60_000, between=SKIPPED),
    ),
    "zstd checksums": (Compression.ZSTD, partial(many, tool("zstd", "-1c"), size=400_000)),
    "zstd seekable": (Compression.ZSTD, seekable),
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


@pytest.mark.parametrize("writer", WRITERS)
def test_every_segment_by_itself_is_the_slice(writer: str) -> None:
    compression, pack = WRITERS[writer]
    points = checked(compression, pack(CONTENT), CONTENT, SPACING)
    assert len(points) > 1
    assert all(point.window == b"" for point in points)
