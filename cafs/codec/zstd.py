"""zstd, frame by frame and block by block.

libzstd's streaming reader cannot tell a truncated stream from a whole one, and one MiB of its input
can decode to gigabytes. So the frames are walked here (the format is simple down to its blocks),
and libzstd is given whole blocks only: each decodes to at most 128 KiB, and the end of a frame is
known exactly.

Source:
    RFC 8878 §3.1 (frames, blocks), §3.1.2 (skippable frames).
"""

from collections.abc import Callable, Iterator
from typing import Final

import zstandard

from cafs.codec.engines import WINDOW
from cafs.codec.exact import Exact
from cafs.errors import MalformedError, UnsupportedError

_MAGIC: Final = 0xFD2FB528
_SKIPPABLE: Final = range(0x184D2A50, 0x184D2A60)
_BATCH: Final = 8
"""Blocks given to libzstd at once: at most 1 MiB of output."""

_BLOCK: Final = 128 << 10
_RLE: Final = 1
_RESERVED: Final = 3
_SMALLEST_WINDOW_LOG: Final = 10


def zstd_pieces(read: Callable[[int], bytes], name: str) -> Iterator[bytes]:
    """Decode frames up to the end of the input, in pieces of at most 1 MiB.

    Raises:
        MalformedError: damage, truncation, or anything behind the frames that is no frame.
        UnsupportedError: a window above 128 MiB, or a dictionary.
    """
    return ZstdFrames(read, name).pieces()


class ZstdFrames:
    """Walks frame by frame.

    ``begun`` is where the frame of the last piece begins in the input, ``consumed`` where the last
    frame ended: what is skipped behind it decodes to nothing.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._source = Exact(read, codec="zstd", name=name)
        self._name = name
        self.begun = (0, 0)
        self.consumed = 0

    def pieces(self) -> Iterator[bytes]:
        """Decode, as ``zstd_pieces``."""
        source = self._source
        first = True
        while first or not source.ended():
            first = False
            begin = source.at
            magic = int.from_bytes(source.take(4), "little")
            if magic in _SKIPPABLE:
                source.skip(int.from_bytes(source.take(4), "little"))
            elif magic == _MAGIC:
                self.begun = (begin, 0)
                yield from self._frame()
                self.consumed = source.at
            else:
                raise MalformedError(f"{self._name}: no zstd frame where one should begin")

    def _frame(self) -> Iterator[bytes]:
        """Decode one frame, whose magic number was taken."""
        source, name = self._source, self._name
        header, checksum = _header(source, name)
        engine = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        last = False
        try:
            engine.decompress(header)
            while not last:
                last, blocks = self._blocks()
                if last and checksum:
                    blocks.append(source.take(4))
                piece = engine.decompress(b"".join(blocks))
                if piece:
                    yield piece
        except zstandard.ZstdError as error:
            raise MalformedError(f"{name}: damaged zstd data: {error}") from error
        if not engine.eof:
            raise MalformedError(
                f"{name}: damaged zstd data: the frame does not end with its blocks"
            )

    def _blocks(self) -> tuple[bool, list[bytes]]:
        """Take some blocks; whether the last one of the frame is among them."""
        source = self._source
        blocks: list[bytes] = []
        last = False
        while not last and len(blocks) < 2 * _BATCH:
            word = source.take(3)
            value = int.from_bytes(word, "little")
            last, kind, size = bool(value & 1), value >> 1 & 3, value >> 3
            if kind == _RESERVED or size > _BLOCK:
                raise MalformedError(f"{self._name}: damaged zstd data: no such block")
            blocks += (word, source.take(1 if kind == _RLE else size))
        return last, blocks


def _header(source: Exact, name: str) -> tuple[bytes, bool]:
    """Take a frame header: all of it with its magic, and whether a checksum follows the blocks."""
    descriptor = source.take(1)
    flags = descriptor[0]
    single = bool(flags & 0x20)
    window = b"" if single else source.take(1)
    dictionary = source.take((0, 1, 2, 4)[flags & 3])
    content = source.take((1 if single else 0, 2, 4, 8)[flags >> 6])
    if any(dictionary):
        raise UnsupportedError(f"{name}: the zstd data needs a dictionary")
    # A frame of a single segment has its content for a window.
    needed = int.from_bytes(content, "little") if single else _window(window[0])
    if needed > WINDOW:
        raise UnsupportedError(
            f"{name}: the zstd data needs a window of {needed} bytes",
            hint="compress it with --long=27 at most",
        )
    header = _MAGIC.to_bytes(4, "little") + descriptor + window + dictionary + content
    return header, bool(flags & 4)


def _window(descriptor: int) -> int:
    base = 1 << (_SMALLEST_WINDOW_LOG + (descriptor >> 3))
    return base + (base >> 3) * (descriptor & 7)
