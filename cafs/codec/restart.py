"""Decodes deflate and gzip from a restart point: a segment of a first pass, by itself.

isal decodes at twice the speed of libz, but begins at whole bytes only. A point lies at a bit, and
the data cannot be shifted, for stored blocks lie at whole bytes of the original. So empty blocks
come before it, until the bit fits: one of fixed codes has 10 bits, one of codes of its own 91, and
10 a + 91 b is any remainder of 8 that is asked for. Nobody checks the member that was begun in the
middle; who reads a segment has its digest.

Source:
    RFC 1951 §3.2.3 (the header of a block), §3.2.6 (fixed codes), §3.2.7 (its own codes);
    RFC 1952 §2.3 (a trailer of 8 bytes).
"""

from collections.abc import Callable, Iterator
from typing import Final

from cafs.codec.engines import Engine, decompress, deflate_engine, gzip_engine
from cafs.codec.zlib_door import WINDOW
from cafs.errors import MalformedError

_INPUT: Final = 32 << 10
"""Larger ones gain no speed, and what is behind a member is copied: many may be tiny."""

_OUTPUT: Final = 512 << 10
_TRAILER: Final = 8
_MAGIC: Final = b"\x1f\x8b"
_BYTE: Final = 8


def members(read: Callable[[int], bytes], *, name: str) -> Iterator[bytes]:
    """What gzip members decode to, in pieces of at most 512 KiB, up to where the input ends.

    Args:
        read: the input from the first byte of a member, which may end in the middle of one.
        name: what errors call it.

    Raises:
        MalformedError: damaged.
        CafsError: as ``read``.
    """
    yield from _members(_Input(read), name)


def resumed(
    read: Callable[[int], bytes], *, bits: int, window: bytes, name: str
) -> Iterator[bytes]:
    """What a gzip member decodes to from the middle on, and those behind it; as ``members``.

    Args:
        read: the input from the byte that has the first bit of a block.
        bits: how many low bits of that byte come before it, 0 to 7.
        window: what was decoded right before, as much as is referred to.
        name: what errors call it.

    Raises:
        MalformedError: damaged, or no such place can be.
        CafsError: as ``read``.
    """
    if not 0 <= bits < _BYTE or len(window) > WINDOW:
        raise MalformedError(f"{name}: begins {bits} bits in, behind {len(window)} bytes")
    source = _Input(read)
    if bits:
        source.data = _filled(bits, source.take(1)) + source.data
    yield from _run(deflate_engine(window), source, "deflate", name)
    if len(source.take(_TRAILER)) == _TRAILER:
        yield from _members(source, name)


class _Input:
    """The input; ``data`` is what has been read of it and not been used."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.data = b""

    def more(self) -> bytes:
        """The next bytes, none only at the end."""
        data, self.data = self.data or self._read(_INPUT), b""
        return data

    def take(self, size: int) -> bytes:
        """So many bytes; fewer only at the end."""
        while len(self.data) < size and (more := self._read(_INPUT)):
            self.data += more
        taken, self.data = self.data[:size], self.data[size:]
        return taken


def _members(source: _Input, name: str) -> Iterator[bytes]:
    while head := source.take(len(_MAGIC)):
        if head != _MAGIC:
            return
        source.data = head + source.data
        yield from _run(gzip_engine(), source, "gzip", name)


def _run(engine: Engine, source: _Input, codec: str, name: str) -> Iterator[bytes]:
    """Decode until the engine's end, or that of the input."""
    while not engine.eof:
        data = source.more() if engine.needs_input else b""
        if not data and engine.needs_input:
            return
        piece = decompress(engine, data, _OUTPUT, codec=codec, name=name)
        if piece:
            yield piece
    source.data = engine.unused_data


_FIXED: Final = (0b010, 10)
"""An empty block of fixed codes: its bits, the first one lowest, and how many."""

_OWN: Final = (0x46AFF90000000000081C004, 91)
"""An empty block of its own codes: literal 255 and the end with one bit each, one distance."""

_BLOCKS: Final = {
    1: [_OWN, _FIXED, _FIXED, _FIXED],
    2: [_FIXED],
    3: [_OWN],
    4: [_FIXED, _FIXED],
    5: [_OWN, _FIXED],
    6: [_FIXED, _FIXED, _FIXED],
    7: [_OWN, _FIXED, _FIXED],
}
"""Empty blocks whose bits are so many more than whole bytes."""


def _filled(bits: int, first: bytes) -> bytes:
    """Empty blocks in place of the low bits of the first byte."""
    value = length = 0
    for block, size in _BLOCKS[bits]:
        value |= block << length
        length += size
    value |= int.from_bytes(first, "little") >> bits << length
    return value.to_bytes(length // _BYTE + 1, "little")
