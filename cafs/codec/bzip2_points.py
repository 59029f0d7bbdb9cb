"""Walks bzip2 by its blocks, which say neither how long they are nor, surely, where they begin.

What looks like a block's beginning may be data. But a block decodes to nothing until all of it is
there, and to something then: so the engine is given the input up to where a block may begin, and it
is one's beginning if something has come. Whatever else comes behind a block, the engine refuses.

From the middle of a stream the engine is given a stream of its own, with short blocks before the
one where it begins, so that this begins at the bit where it does: nothing has to be shifted.
The stream's own end has the sum of all its blocks, and so it is left out there; each block has its
own sum.

Source:
    bzip2 1.0.8, decompress.c; bzip2(1): "trailing garbage ignored".
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from typing_extensions import override

from cafs.codec.bzip2_magics import MAGIC_BITS, BitInput, Magic
from cafs.codec.engines import Engine, bzip2_engine, drained
from cafs.codec.frame_points import Walk
from cafs.errors import MalformedError

_HEAD: Final = b"BZh"
_HEADER: Final = b"BZh9"
"""Of a stream whose blocks are as large as can be."""

_BYTE: Final = 8
_END_BITS: Final = MAGIC_BITS + 32


class Bzip2Blocks(Walk):
    """Decodes bzip2, block by block.

    Args:
        read: the input. Its errors pass through unchanged.
        name: what errors call it.
    """

    def __init__(self, read: Callable[[int], bytes], name: str) -> None:
        self._input = BitInput(read)
        self._name = name
        self._made = False
        self.begun = (0, 0)
        self.consumed = 0

    @override
    def pieces(self) -> Iterator[bytes]:
        yield from self._stream()
        while self._input.begins(_HEAD):
            yield from self._stream()

    def resumed(self, bits: int) -> Iterator[bytes]:
        """Decode from a block on, ``bits`` into the first byte, and the streams behind its own.

        Raises:
            MalformedError: no block begins there, or as ``pieces``.
        """
        source = self._input
        if not (0 <= bits < _BYTE and source.block_begins(bits)):
            raise MalformedError(f"{self._name}: no bzip2 block begins {bits} bits in")
        engine = bzip2_engine()
        shared, _ = source.stretch()
        # What the short blocks decode to is not asked for.
        deque(self._run(engine, _lead(bits, shared)), maxlen=0)
        self._made = False
        while True:
            data, magic = source.stretch()
            if not data and magic is None:
                return
            yield from self._run(engine, data)
            real = self._real(magic)
            if real is not None and real.ends:
                break
        source.seek(-(-(real.bit + _END_BITS) // _BYTE))
        while source.begins(_HEAD):
            yield from self._stream()

    def _stream(self) -> Iterator[bytes]:
        engine, source = bzip2_engine(), self._input
        # Nothing comes before the first block.
        self._made = True
        while not engine.eof:
            data, magic = source.stretch()
            if not data and magic is None:
                raise MalformedError(f"{self._name}: the bzip2 data ends too early")
            yield from self._run(engine, data)
            real = self._real(magic)
            # Nothing comes of a stream's end.
            if real is not None:
                self.begun = divmod(real.bit, _BYTE)
        source.seek(source.at - len(engine.unused_data))
        self.consumed = source.at

    def _real(self, magic: Magic | None) -> Magic | None:
        """The magic, if a block ends there, or the first one begins, and it is no data."""
        if not self._made:
            return None
        self._made = magic is None
        return magic

    def _run(self, engine: Engine, data: bytes) -> Iterator[bytes]:
        for piece in drained(engine, data, codec="bzip2", name=self._name):
            self._made = True
            yield piece


_SHORT: Final = (0x18A0AC9329AC8CC9CDB5800000008010001000108C234, 179)
"""A block that holds the letter a: its bits, the first one highest, and how many."""


def _lead(bits: int, shared: bytes) -> bytes:
    """The beginning of a stream, up to the byte in which a block begins.

    Args:
        bits: how many bits of that byte come before the block.
        shared: that byte; nothing if there are none.
    """
    block, size = _SHORT
    value = int.from_bytes(_HEADER, "big")
    length = len(_HEADER) * _BYTE
    # 3 * 179 leaves 1 when it is divided by 8.
    for _ in range(3 * bits % _BYTE):
        value, length = value << size | block, length + size
    if bits:
        rest = _BYTE - bits
        value, length = value << rest | shared[0] & (1 << rest) - 1, length + rest
    return value.to_bytes(length // _BYTE, "big")
