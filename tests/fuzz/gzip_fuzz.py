"""gzip: points, segments, windows.

Its first byte says how an input is taken: two bits for what it is, two for the spacing of points,
two for how it is read.
"""

import zlib
from typing import Final

from cafs.codec import windows
from cafs.codec.sniffing import Compression
from cafs.model.record import Segment
from tests.fuzz.fuzzing import STEPS, content_to_blame
from tests.fuzz.segmenting import anywhere, check

MOST: Final = 4 << 10
SPACINGS: Final = (1000, 64, 5000, 33_000)
HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_CODECS: Final = ("deflate", "gzip", "store", "deflate")


def one(data: bytes) -> None:
    """Decode gzip, raw deflate as members, a window, or a segment."""
    knobs, data = (data[0], data[1:]) if data else (0, b"")
    kind, spacing, step = knobs & 3, SPACINGS[knobs >> 2 & 3], STEPS[knobs >> 4 & 3]
    if kind == 0:
        check(Compression.GZIP, data, spacing=spacing, step=step)
    elif kind == 1:
        check(Compression.GZIP, members(data), spacing=spacing, step=step)
    elif kind == 2:
        with content_to_blame():
            window = windows.unpack(data)
            assert windows.unpack(windows.pack(window)) == window
    else:
        segment(data)


def members(data: bytes) -> bytes:
    """Raw deflate streams as gzip members, with right checksums as far as they go."""
    made: list[bytes] = []
    while data and len(made) < 64:
        inflater = zlib.decompressobj(-15)
        try:
            content = inflater.decompress(data, 4 << 20)
        except zlib.error:
            return b"".join([*made, HEADER, data])
        if not inflater.eof:
            return b"".join([*made, HEADER, data])
        used, data = data[: len(data) - len(inflater.unused_data)], inflater.unused_data
        sums = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
        made.append(HEADER + used + sums)
    return b"".join(made)


def segment(data: bytes) -> None:
    """Begin anywhere, with any state, behind any window.

    A byte of codec and state, two of the window's length, two of the segment's, two that are
    skipped; then the window and the input.
    """
    head, data = data[:7].ljust(7, b"\0"), data[7:]
    room = int.from_bytes(head[1:3], "little")
    window, given = data[:room], data[room:]
    anywhere(
        Segment(
            start=0,
            length=int.from_bytes(head[3:5], "little"),
            input_start=0,
            input_length=len(given),
            codec=_CODECS[head[0] >> 4 & 3],
            state=head[0] & 0x0F,
            skip=int.from_bytes(head[5:7], "little"),
        ),
        given,
        window,
    )
