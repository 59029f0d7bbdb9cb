"""Windows: what was decoded before a restart point, as much of it as will be needed, stored small.

Of the 32 KiB before a point most are never referred to again. Which ones are, the blocks behind the
point tell: they are decoded twice behind windows whose bytes say where they are, one the low part
of the position, one the high part. There are 15 bits of it, so one is left to make the two parts
differ everywhere: where the two outputs differ, the byte comes from the window, and from where.
Only the first 32 KiB of output can refer to it directly; what comes later refers to these. All
other bytes become zeros, or are left out at the front, and what is left compresses well.
"""

import sys
from itertools import compress
from typing import Final

import zstandard

from cafs.codec.zlib_door import RAW, WINDOW, Inflater
from cafs.errors import MalformedError

_LEVEL: Final = 9
"""Of zstd: beyond it the windows of a root file system shrink no further, at any price."""

_POSITION: Final = 0x7FFF
_LOW: Final = bytes(position & 0xFF for position in range(WINDOW))
_HIGH: Final = bytes(position >> 8 | ~position & 0x80 for position in range(WINDOW))
"""Where a byte of a window is. The highest bits of the two are never the same."""

_LOW_AT: Final = 0 if sys.byteorder == "little" else 1


def pack(window: bytes) -> bytes:
    """A window as it is stored."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(window)


def unpack(raw: bytes) -> bytes:
    """A window that was stored.

    Raises:
        MalformedError: it was not, or is larger than a window can be.
    """
    try:
        size = zstandard.frame_content_size(raw)
        if not 0 <= size <= WINDOW:
            raise MalformedError(f"a window of {size} bytes")
        return zstandard.ZstdDecompressor().decompress(raw, max_output_size=WINDOW)
    except zstandard.ZstdError as error:
        raise MalformedError(f"damaged window: {error}") from error


class Referring:
    """Finds which bytes of a window the blocks behind it refer to, for one window after another.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self) -> None:
        self._streams = [Inflater(RAW, WINDOW) for _ in range(2)]
        self._outputs = [bytearray() for _ in range(2)]

    def begin(self, length: int, bits: int, value: int) -> None:
        """Begin behind a window.

        Args:
            length: of the window, bytes.
            bits: how many bits come before the input, 0 to 7.
            value: these bits.
        """
        for stream, marks in zip(self._streams, (_LOW, _HIGH), strict=True):
            stream.feed(b"")
            stream.again()
            stream.begin_within(marks[:length], bits, value)
        self._outputs = [bytearray() for _ in range(2)]

    def feed(self, data: bytes) -> None:
        """Go on with the next bytes of the input.

        Raises:
            DeflateError: it is damaged.
        """
        for stream, output in zip(self._streams, self._outputs, strict=True):
            stream.feed(data)
            output.extend(stream.run(WINDOW - len(output)))

    def masked(self, window: bytes) -> bytes:
        """What is referred to of the window that it began behind: its end, with zeros between."""
        low, high = self._outputs
        size = len(low)
        differing = int.from_bytes(low, "little") ^ int.from_bytes(high, "little")
        both = bytearray(2 * size)
        both[_LOW_AT::2], both[1 - _LOW_AT :: 2] = low, high
        referring = compress(memoryview(both).cast("H"), differing.to_bytes(size, "little"))
        keep = bytearray(len(window))
        for position in set(referring):
            keep[position & _POSITION] = 0xFF
        first = keep.find(0xFF)
        if first < 0:
            return b""
        kept = int.from_bytes(window[first:], "little") & int.from_bytes(keep[first:], "little")
        return kept.to_bytes(len(window) - first, "little")
