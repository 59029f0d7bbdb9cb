"""zstd, xz and bzip2: points and segments.

Its first byte says how an input is taken: two bits for what it is, two for the spacing of points,
two for how it is read. Blind changes seldom pass the checksums of xz and bzip2, so those of xz are
made right, and data may also be a recipe for what their libraries make.
"""

import bz2
import lzma
import zlib
from typing import Final

import zstandard

from cafs.codec.sniffing import HEAD, Compression, sniff
from cafs.model.record import Segment
from tests.fuzz.fuzzing import STEPS
from tests.fuzz.segmenting import anywhere, check

MOST: Final = 4 << 10
SPACINGS: Final = (1000, 1, 5000, 100_000)
_KINDS: Final = (Compression.ZSTD, Compression.XZ, Compression.BZIP2)
_MADE: Final = (*_KINDS, Compression.NONE)
_CODECS: Final = ("zstd", "xz", "bzip2", "store")


def one(data: bytes) -> None:
    """Decode data of a kind, as it is or as it is made; or a segment of it."""
    sniff(data[1 : HEAD + 1])
    knobs, data = (data[0], data[1:]) if data else (0, b"")
    kind, spacing, step = knobs & 3, SPACINGS[knobs >> 2 & 3], STEPS[knobs >> 4 & 3]
    if kind < len(_KINDS):
        if _KINDS[kind] is Compression.XZ and knobs & 0x40:
            data = summed(data)
        check(_KINDS[kind], data, spacing=spacing, step=step)
    elif knobs & 0x80:
        segment(data)
    else:
        made(data, spacing, step)


def summed(data: bytes) -> bytes:
    """xz data with right checksums: of its header, its first block's header, index and footer.

    Source: The .xz File Format 1.1.0, §2.1.1, §2.1.2, §3.1, §4.
    """
    fixed = bytearray(data)

    def fix(start: int, stop: int, at: int) -> None:
        fixed[at : at + 4] = zlib.crc32(fixed[start:stop]).to_bytes(4, "little")

    if len(fixed) < 36:
        return data
    fix(6, 8, 8)
    stop = 12 + 4 * fixed[12]
    if 12 < stop <= len(fixed) - 16:
        fix(12, stop, stop)
    fix(len(fixed) - 8, len(fixed) - 2, len(fixed) - 12)
    index = len(fixed) - 12 - 4 * (int.from_bytes(fixed[-8:-4], "little") + 1)
    if index > 12:
        fix(index, len(fixed) - 16, len(fixed) - 16)
    return bytes(fixed)


def made(data: bytes, spacing: int, step: int) -> None:
    """What a library makes of parts of the data, with a change somewhere if one is asked for.

    A byte of what it is, one of how many parts, one of how often they repeat themselves; two of
    where a bit is turned, one of which.
    """
    head, data = data[:6].ljust(6, b"\0"), data[6:]
    kind = _MADE[head[0] % len(_MADE)]
    count = 1 + head[1] % 8
    size = len(data) // count + 1
    parts = [data[at : at + size] * (1 + head[2] % 64) for at in range(0, len(data), size)]
    packed = bytearray(b"".join(_packed(kind, part, head[0] >> 4) for part in parts or [b""]))
    turned = int.from_bytes(head[3:5], "little")
    if head[5] & 7 and packed:
        packed[turned % len(packed)] ^= 1 << (head[5] & 7)
    whole = check(kind, bytes(packed), spacing=spacing, step=step)
    assert whole or head[5] & 7, "what its own library has made is refused"


def _packed(kind: Compression, part: bytes, way: int) -> bytes:
    if kind is Compression.NONE:
        return part
    if kind is Compression.BZIP2:
        return bz2.compress(part, 1 + way % 9)
    if kind is Compression.ZSTD:
        packer = zstandard.ZstdCompressor(
            level=1 + way % 4, write_checksum=bool(way & 4), write_content_size=bool(way & 8)
        )
        return packer.compress(part)
    checks = (lzma.CHECK_NONE, lzma.CHECK_CRC32, lzma.CHECK_CRC64, lzma.CHECK_SHA256)
    return lzma.compress(part, check=checks[way % 4], preset=way >> 2)


def segment(data: bytes) -> None:
    """Begin anywhere: a byte of codec and state, two of length, two to be skipped; the input."""
    head, data = data[:5].ljust(5, b"\0"), data[5:]
    anywhere(
        Segment(
            start=0,
            length=int.from_bytes(head[1:3], "little"),
            input_start=0,
            input_length=len(data),
            codec=_CODECS[head[0] >> 4 & 3],
            state=head[0] & 0x0F,
            skip=int.from_bytes(head[3:5], "little"),
        ),
        data,
        b"",
    )
