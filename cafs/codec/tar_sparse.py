"""Sparse maps of a tar that are no records of an extended header, and what every map must be.

GNU tar has spelled them in several ways: in the header itself and in blocks behind it, in records
of an extended header (``pax.py``), and as lines of text before the content.

Source:
    GNU tar manual, "Basic Tar Format" (old GNU variant), "Storing Sparse Files".
"""

from collections.abc import Callable
from typing import Final

from cafs.codec.tar_header import BLOCK, number
from cafs.model.limits import Limits
from cafs.model.member import Piece

Take = Callable[[int], bytes]
"""Returns the next bytes, as many as asked for; fewer only at the end."""
Pieces = tuple[Piece, ...]

_DIGITS: Final = 20
"""Of a number in a map: what 64 bits need."""
_FIRST: Final = slice(386, 482)
_MORE: Final = slice(0, 504)
_PAIR: Final = 24
_NUMBER: Final = 12


def old_map(header: bytes, take: Take, limits: Limits) -> tuple[Pieces, int]:
    """The map of an old GNU header, and of the blocks that continue it; and the file's real size.

    Args:
        header: its block.
        take: what follows.
        limits: ``header_bytes`` bounds what continues it.

    Raises:
        ValueError: a field is no number, or it goes on for too long.
    """
    parts = [_pairs(header[_FIRST])]
    more, count = header[482] != 0, 0
    while more:
        count += BLOCK
        block = take(BLOCK)
        if len(block) < BLOCK or count > limits.header_bytes:
            raise ValueError("it has no end")
        parts.append(_pairs(block[_MORE]))
        more = block[504] != 0
    return tuple(piece for part in parts for piece in part), number(header[483:495])


def map_in_content(take: Take, stored: int, limits: Limits) -> Pieces:
    """The map of version 1.0, which fills blocks at the beginning of the content.

    It is lines of decimal numbers: how many pieces, then offset and length of each.

    Args:
        take: the content.
        stored: bytes of it, the map included.
        limits: ``header_bytes`` bounds the map.

    Raises:
        ValueError: a line is no number, or it has no end.
    """
    numbers: list[int] = []
    wanted = 1
    rest = b""
    room = min(stored, limits.header_bytes)
    while len(numbers) < wanted:
        room -= BLOCK
        block = take(BLOCK) if room >= 0 else b""
        if len(block) < BLOCK:
            raise ValueError("it has no end")
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            numbers.append(_line(line))
            wanted = 1 + 2 * numbers[0]
            if len(numbers) == wanted:
                break
        else:
            # What goes on without end is not gathered, to be looked at anew with each block.
            _line(rest or b"0")
    return tuple(map(Piece, numbers[1::2], numbers[2::2]))


def check(pieces: Pieces, size: int, data: int, limits: Limits) -> None:
    """Refuse pieces out of order, beyond the size, or of other data than there is.

    Args:
        pieces: the map.
        size: the file's real size.
        data: bytes of data in the archive.
        limits: ``size`` bounds the file.

    Raises:
        ValueError: it cannot be.
    """
    end = 0
    for piece in pieces:
        if piece.offset < end or piece.length < 0:
            raise ValueError("its pieces are out of order")
        end = piece.offset + piece.length
    if not end <= size <= limits.size:
        raise ValueError(f"pieces up to byte {end} of a file of {size} bytes")
    if sum(piece.length for piece in pieces) != data:
        raise ValueError(f"pieces of other lengths than the {data} bytes of data")


def _line(line: bytes) -> int:
    if not line.isdigit() or len(line) > _DIGITS:
        raise ValueError(f"{line[:40]!r} is no number")
    return int(line)


def _pairs(fields: bytes) -> Pieces:
    pieces = []
    for at in range(0, len(fields), _PAIR):
        if not fields[at]:
            break
        middle = at + _NUMBER
        pieces.append(Piece(number(fields[at:middle]), number(fields[middle : at + _PAIR])))
    return tuple(pieces)
