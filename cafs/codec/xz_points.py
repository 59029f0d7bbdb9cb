"""Walks xz by its blocks, so that it is known where each begins.

A block's header need not say how long the block is, and the index that does comes last. But the
last filter of a block is always LZMA2, whose chunks say how long they are: so they are walked. What
they hold, and everything else, liblzma decodes and checks; what is walked decides only what it is
given at once.

Source:
    The .xz File Format 1.2.0, §2 (streams, padding), §3 (blocks), §4 (index). LZMA2's chunks have
    no text of their own: liblzma/lzma/lzma2_decoder.c, Linux lib/xz/xz_dec_lzma2.c.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final

from typing_extensions import override

from cafs.codec.engines import Engine, drained, xz_engine
from cafs.codec.exact import Exact
from cafs.codec.frame_points import Walk
from cafs.errors import MalformedError

_MAGIC: Final = b"\xfd7zXZ\0"
_HEADER: Final = 12
"""Bytes of a stream's header, and of its footer."""

_CHECKS: Final = (0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64)
"""Bytes of each check, by its id."""

_CRC: Final = 4
_WORD: Final = 4
_CONTINUED: Final = 0x80
"""In a byte of a number: more of it follows."""

_LONGEST: Final = 9
_PLAIN: Final = 2
"""Up to this control byte a chunk is not compressed."""

_PACKED: Final = 0x80
_PROPERTIES: Final = 0xC0
"""From these control bytes on a chunk is compressed, and has a byte of properties, too."""


class XzBlocks(Walk):
    """Decodes xz, block by block.

    Args:
        read: the input. Its errors pass through unchanged.
        name: what errors call it.
    """

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._source = Exact(read, codec="xz", name=name)
        self._name = name
        self.begun = (0, 0)
        self.consumed = 0

    @override
    def pieces(self) -> Iterator[bytes]:
        yield from self._stream()
        while self._follows():
            yield from self._stream()

    def resumed(self, check: int) -> Iterator[bytes]:
        """Decode from a block on, with which the input begins, and the streams behind its own.

        Args:
            check: the id of the check that its stream has.

        Raises:
            MalformedError, UnsupportedError: as ``pieces``.
        """
        if not 0 <= check < len(_CHECKS):
            raise MalformedError(f"{self._name}: xz has no check {check}")
        engine = xz_engine()
        yield from self._run(engine, _stream_header(check))
        yield from self._blocks(engine, check)
        self._skip_index()
        while self._follows():
            yield from self._stream()

    def _stream(self) -> Iterator[bytes]:
        engine, source = xz_engine(), self._source
        header = source.take(_HEADER)
        yield from self._run(engine, header)
        yield from self._blocks(engine, header[7] & 0xF)
        yield from self._run(engine, b"\0")
        while not engine.eof:
            yield from self._run(engine, source.any())
        source.back(len(engine.unused_data))
        self.consumed = source.at

    def _blocks(self, engine: Engine, check: int) -> Iterator[bytes]:
        """Decode blocks up to the index, whose first byte is taken."""
        source = self._source
        begin = source.at
        while first := source.take(1):
            if first == b"\0":
                return
            self.begun = (begin, check)
            yield from self._run(engine, first + source.take(first[0] * 4 + 3))
            yield from self._chunks(engine, check)
            begin = source.at

    def _chunks(self, engine: Engine, check: int) -> Iterator[bytes]:
        """Decode what is in a block, with its padding and its check."""
        source = self._source
        begin = source.at
        while control := source.take(1)[0]:
            if control >= _PACKED:
                head = source.take(4)
                size = int.from_bytes(head[2:], "big") + 1 + (control >= _PROPERTIES)
            elif control <= _PLAIN:
                head = source.take(2)
                size = int.from_bytes(head, "big") + 1
            else:
                raise MalformedError(f"{self._name}: damaged xz data: no such chunk")
            yield from self._run(engine, bytes([control]) + head + source.take(size))
        tail = (begin - source.at) % _WORD + _CHECKS[check]
        yield from self._run(engine, b"\0" + source.take(tail))

    def _skip_index(self) -> None:
        """Pass over an index, whose first byte was taken, and the footer."""
        source = self._source
        begin = source.at - 1
        for _ in range(2 * self._number()):
            self._number()
        source.skip((begin - source.at) % _WORD + _CRC + _HEADER)
        self.consumed = source.at

    def _number(self) -> int:
        value = 0
        for place in range(_LONGEST):
            byte = self._source.take(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if byte < _CONTINUED:
                return value
        raise MalformedError(f"{self._name}: damaged xz data: no such number")

    def _follows(self) -> bool:
        """Whether another stream follows."""
        padding = self._source.skip_zeros()
        if padding % _WORD:
            raise MalformedError(f"{self._name}: {padding} bytes of padding behind the xz data")
        return not self._source.ended()

    def _run(self, engine: Engine, data: bytes) -> Iterator[bytes]:
        return drained(engine, data, codec="xz", name=self._name)


def _stream_header(check: int) -> bytes:
    flags = bytes([0, check])
    return _MAGIC + flags + zlib.crc32(flags).to_bytes(_CRC, "little")
