"""bzip2 input, cut where a block may begin or a stream may end: at 48 bits that say so, at any bit.

These bits may also occur by accident, or by malice, within a block. Two of them are never less
than 45 bits apart.

Source:
    There is no text of the format; bzip2 1.0.8, decompress.c and bzip2recover.c.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Final

import msgspec

BLOCK: Final = 0x314159265359
"""Where a block begins."""

END: Final = 0x177245385090
"""Where a stream ends: so many bits, and the sum of its blocks' sums behind them."""

MAGIC_BITS: Final = 48

_INPUT: Final = 128 << 10
_BYTE: Final = 8
_SPAN: Final = 7
"""Bytes that such bits lie in."""


def _within(bits: int, shift: int) -> bytes:
    """The five bytes that are whole, if the bits begin ``shift`` bits into a byte."""
    return (bits << _BYTE - shift).to_bytes(_SPAN, "big")[1:6]


_WITHIN: Final = {
    _within(bits, shift): (bits, shift) for bits in (BLOCK, END) for shift in range(_BYTE)
}
_PATTERN: Final = re.compile(b"|".join(map(re.escape, _WITHIN)), re.DOTALL)


class Magic(msgspec.Struct, frozen=True):
    """Where they begin, in bits of the input, and whether they are those of a stream's end."""

    bit: int
    ends: bool


_BIT: Final = attrgetter("bit")


class BitInput:
    """Input that is taken up to the next magic.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._data = b""
        self._base = 0
        self._whole = False
        self._magics: list[Magic] = []
        self._seen = 0
        self.at = 0

    def stretch(self) -> tuple[bytes, Magic | None]:
        """Take what lies before the next magic, the byte that it shares included.

        Returns:
            the bytes, and the magic; no magic where none has come yet; no bytes and none at the
            end.
        """
        while True:
            number = bisect_left(self._magics, self._seen, key=_BIT)
            if number < len(self._magics):
                magic = self._magics[number]
                self._seen = magic.bit + 1
                return self._taken(-(-magic.bit // _BYTE)), magic
            stop = self._base + len(self._data)
            # Where it may begin in what is there, only what comes will tell.
            if data := self._taken(stop if self._whole else stop - _SPAN + 1):
                return data, None
            if self._whole:
                return b"", None
            self._more()

    def begins(self, head: bytes) -> bool:
        """Whether these are the next bytes."""
        while not self._whole and self._base + len(self._data) < self.at + len(head):
            self._more()
        return self.at >= self._base and self._data.startswith(head, self.at - self._base)

    def block_begins(self, bits: int) -> bool:
        """Whether a block may begin so many bits into the next byte."""
        while not self._whole and self._base + len(self._data) < self.at + _SPAN:
            self._more()
        return Magic(self.at * _BYTE + bits, ends=False) in self._magics[:1]

    def seek(self, at: int) -> None:
        """Go on there: in what was taken last, or ahead of it."""
        self.at = at
        self._seen = at * _BYTE

    def _taken(self, stop: int) -> bytes:
        if stop <= self.at:
            return b""
        data = self._data[self.at - self._base : stop - self._base]
        self.at = stop
        return data

    def _more(self) -> None:
        """Read on."""
        more = self._read(_INPUT)
        self._whole = not more
        keep = min(max(self._base, self.at - 1), self._base + len(self._data))
        kept = self._data[keep - self._base :]
        self._data, self._base = kept + more, keep
        self._magics = list(self._found())

    def _found(self) -> Iterator[Magic]:
        """The magics in what is there."""
        data, at = self._data, 0
        while found := _PATTERN.search(data, at):
            bits, shift = _WITHIN[found.group()]
            at = found.start()
            span = data[at - 1 : at + _SPAN - 1] if at else b""
            at += 1
            if len(span) == _SPAN:
                here = int.from_bytes(span, "big") >> (_BYTE - shift)
                if here & (1 << MAGIC_BITS) - 1 == bits:
                    yield Magic((self._base + found.start() - 1) * _BYTE + shift, bits == END)
