"""Decoders: whole streams, several frames, what follows them, and every kind of damage."""

import bz2
import gzip
import io
import lzma
import random
import subprocess
import zlib
from collections.abc import Callable
from typing import Protocol

import pytest
import zstandard

from cafs.codec.decoding import Decoder, decoder
from cafs.codec.pointing import pointed
from cafs.codec.sniffing import HEAD, Compression, Format, expected_by_name, sniff
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits

CONTENT = random.Random(1).randbytes(100_000) + bytes(1_500_000) + b"text " * 100_000
TOOLS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.compress,
    Compression.ZSTD: zstandard.ZstdCompressor(write_checksum=True).compress,
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
}
COMPRESSIONS = list(TOOLS)


class Opened(Protocol):
    """Opens a stream of what a ``read`` gives, or of bytes, with one kind of decoder."""

    def __call__(
        self,
        compression: Compression,
        data: bytes | Callable[[int], bytes],
        limits: Limits | None = None,
    ) -> Decoder: ...


@pytest.fixture(params=[decoder, pointed])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Both decoders do the same: the one that tells restart points, and the one that does not."""

    def opening(
        compression: Compression,
        data: bytes | Callable[[int], bytes],
        limits: Limits | None = None,
    ) -> Decoder:
        read = io.BytesIO(data).read if isinstance(data, bytes) else data
        made: Decoder = request.param(compression, read, "x.tar", limits)
        return made

    return opening


def drained(source: Decoder) -> bytes:
    parts = []
    while part := source.read(300_000):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_frames_one_after_the_other_are_one_stream(
    compression: Compression, opened: Opened
) -> None:
    pack = TOOLS[compression]
    data = pack(CONTENT) + pack(b"") + pack(b"more")
    assert sniff(data[:HEAD]) is compression
    assert drained(opened(compression, data)) == CONTENT + b"more"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_input_may_come_byte_by_byte(compression: Compression, opened: Opened) -> None:
    source = io.BytesIO(TOOLS[compression](b"hello") * 2)
    assert drained(opened(compression, lambda size: source.read(1))) == b"hello" * 2


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_reads_of_every_size_give_exactly_that_until_the_end(
    compression: Compression, opened: Opened
) -> None:
    source = opened(compression, TOOLS[compression](CONTENT))
    at = 0
    for size in (0, 1, 511, 512, 524_288, 524_289, 1 << 20):
        assert source.read(size) == CONTENT[at : at + size]
        at += size
    assert source.read(1 << 20) == CONTENT[at:]
    assert source.read(10) == b""


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_cut_is_noticed(compression: Compression, opened: Opened) -> None:
    data = TOOLS[compression](b"some content " * 50)
    for cut in range(len(data)):
        with pytest.raises(MalformedError, match=r"x.tar: "):
            drained(opened(compression, data[:cut]))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_flipped_byte_is_noticed_or_harmless(
    compression: Compression, opened: Opened
) -> None:
    content = random.Random(2).randbytes(300)
    data = bytearray(TOOLS[compression](content))
    noticed = 0
    for at in range(len(data)):
        data[at] ^= 0xFF
        try:
            assert drained(opened(compression, bytes(data))) == content
        except (MalformedError, UnsupportedError):
            noticed += 1
        data[at] ^= 0xFF
    # The gzip header has a time, flags and a system that mean nothing to the content.
    assert noticed >= len(data) - 8


def test_what_follows_gzip_and_bzip2_is_ignored_as_their_tools_do(opened: Opened) -> None:
    for compression in (Compression.GZIP, Compression.BZIP2):
        pack = TOOLS[compression]
        for rest in (b"\0" * 700_000, b"garbage", b"\x1f", b"B"):
            assert drained(opened(compression, pack(CONTENT) + rest)) == CONTENT
    told = subprocess.run(
        ["gzip", "-dc"], input=gzip.compress(b"a") + b"garbage", check=False, capture_output=True
    )
    assert (told.stdout, told.returncode) == (b"a", 2)
    half = gzip.compress(b"a") + gzip.compress(b"b")[:-3]
    with pytest.raises(MalformedError, match="ends too early"):
        drained(opened(Compression.GZIP, half))


def test_what_follows_xz_and_zstd_must_be_padding_or_frames(opened: Opened) -> None:
    packed = lzma.compress(b"a")
    assert drained(opened(Compression.XZ, packed + bytes(400_000) + packed)) == b"aa"
    with pytest.raises(MalformedError, match="3 bytes of padding"):
        drained(opened(Compression.XZ, packed + bytes(3)))
    with pytest.raises(MalformedError, match="xz data"):
        drained(opened(Compression.XZ, packed + b"garbage!"))
    frame = TOOLS[Compression.ZSTD](b"a")
    with pytest.raises(MalformedError, match="no zstd frame"):
        drained(opened(Compression.ZSTD, frame + b"garbage"))


def test_skippable_zstd_frames_are_skipped(opened: Opened) -> None:
    frame = TOOLS[Compression.ZSTD](b"a")
    skippable = b"\x5a\x2a\x4d\x18" + (300_000).to_bytes(4, "little") + bytes(300_000)
    assert drained(opened(Compression.ZSTD, skippable + frame + skippable + frame)) == b"aa"
    assert sniff(skippable[:HEAD]) is Compression.ZSTD
    with pytest.raises(MalformedError, match="too early"):
        drained(opened(Compression.ZSTD, frame + skippable[:-1]))


@pytest.mark.parametrize(
    "options", [["-1"], ["-19"], ["--ultra", "-22"], ["--long=27"], ["--fast"]]
)
def test_what_zstd_writes_is_decoded(options: list[str], opened: Opened) -> None:
    data = subprocess.run(["zstd", "-c", *options], input=CONTENT, check=True, capture_output=True)
    assert drained(opened(Compression.ZSTD, data.stdout)) == CONTENT


def test_zstd_windows_and_dictionaries_beyond_ours_are_not_supported(opened: Opened) -> None:
    wide = b"\x28\xb5\x2f\xfd\x00" + bytes([(28 - 10) << 3]) + b"\1\0\0"
    with pytest.raises(UnsupportedError, match="window of 268435456"):
        drained(opened(Compression.ZSTD, wide))
    with pytest.raises(UnsupportedError, match="dictionary"):
        drained(opened(Compression.ZSTD, b"\x28\xb5\x2f\xfd\x21\x07\x00\x01\0\0"))


def test_xz_that_needs_much_memory_is_not_supported(opened: Opened) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20}]
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=[{**filters[0], "dict_size": 1 << 20}])
    data = bytearray(packer.compress(b"a") + packer.flush())
    # The block header tells the dictionary's size in one byte; write 512 MiB there.
    at = data.index(b"\x21\x01", 12) + 2
    data[at] = 36
    block = data[12 : 12 + (data[12] + 1) * 4 - 4]
    data[12 + len(block) : 16 + len(block)] = zlib.crc32(block).to_bytes(4, "little")
    with pytest.raises(UnsupportedError, match="256 MiB"):
        drained(opened(Compression.XZ, bytes(data)))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bombs_are_refused_before_they_fill_anything(
    compression: Compression, opened: Opened
) -> None:
    data = TOOLS[compression](bytes(40 << 20))
    limits = Limits(free_bytes=1 << 20, ratio=100)
    source = opened(compression, data, limits)
    got: list[int] = []
    with pytest.raises(MalformedError, match=r"x.tar: .* decode to more than"):
        got.extend(len(part) for part in iter(lambda: source.read(1 << 16), b""))
    assert sum(got) <= (2 << 20) + 100 * len(data)
    with pytest.raises(MalformedError, match=f"decode to more than {30 << 20} bytes"):
        drained(opened(compression, data, Limits(size=30 << 20)))


def test_no_compression_hands_through(opened: Opened) -> None:
    assert drained(opened(Compression.NONE, CONTENT)) == CONTENT


@pytest.mark.parametrize(
    ("head", "meaning"),
    [
        (b"", None),
        (b"text", None),
        (b"BZh", None),
        (b"BZhello", None),
        (b"PK\3\4", Format.ZIP),
        (b"PK\5\6", Format.ZIP),
        (bytes(512), Format.TAR),
        (bytes(100), None),
        (b"\1" + bytes(511), None),
        (b"\x1f\x8b\x08", Compression.GZIP),
        (bz2.compress(b""), Compression.BZIP2),
    ],
)
def test_formats_are_told_by_their_first_bytes(
    head: bytes, meaning: Compression | Format | None
) -> None:
    assert sniff(head) is meaning


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("a.tar", Format.TAR),
        ("dir/A.TAR.GZ", Compression.GZIP),
        ("a.tgz", Compression.GZIP),
        ("a.tar.zst", Compression.ZSTD),
        ("a.txz", Compression.XZ),
        ("a.tar.bz2", Compression.BZIP2),
        ("a.whl", Format.ZIP),
        ("a.gz", None),
        ("tar", None),
        ("", None),
    ],
)
def test_formats_are_expected_by_name(name: str, meaning: Compression | Format | None) -> None:
    assert expected_by_name(name) is meaning
