"""Sums: what every stored byte was when it was written; so a disk that changed one is found out.

Beside each span lie the CRC-32s of its pieces: runs of bytes of at most 64 KiB, none of which
crosses a multiple of 64 KiB. Every read checks the pieces that it touches. A CRC-32 finds every
single flipped bit, and every burst of up to 32; against people there are digests.

The pieces of 4 MiB are one record: start within it, length and CRC-32, 12 bytes each. Pieces that
come to touch within 64 KiB become one without being read: the CRC of a joint follows from theirs.

Source: the CRC-32 of RFC 1952 §8; that of a joint, from CRC's being affine.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from isal import isal_zlib

from cafs.model.span import Span
from cafs.store.db.transactions import Batch, Snapshot, Table, after

PIECE: Final = 64 << 10
"""Bytes of a piece at most: what is read to check one byte, and what a flipped bit costs."""
GROUP: Final = 4 << 20
"""Bytes whose pieces are one record."""
_PLACE: Final = struct.Struct(">Q")
_ROW: Final = struct.Struct("<III")
_ZEROS: Final = memoryview(bytes(PIECE))


class Piece(NamedTuple):
    """A run of bytes of one stream, and its CRC-32. ``start`` and ``length`` are bytes."""

    start: int
    length: int
    crc: int

    @property
    def stop(self) -> int:
        """The first byte behind it."""
        return self.start + self.length

    @property
    def span(self) -> Span:
        """Where it lies."""
        return Span(self.start, self.stop)

    def holds(self, data: memoryview) -> bool:
        """Whether these are its bytes."""
        return len(data) == self.length and isal_zlib.crc32(data) == self.crc


def pieces_of(offset: int, data: memoryview) -> list[Piece]:
    """The pieces of bytes that begin at an offset."""
    found: list[Piece] = []
    at = 0
    while at < len(data):
        start = offset + at
        length = min(len(data) - at, PIECE - start % PIECE)
        found.append(Piece(start, length, isal_zlib.crc32(data[at : at + length])))
        at += length
    return found


def around(span: Span, pieces: Sequence[Piece]) -> Span:
    """What must be read to check the pieces that a span touches."""
    start = min((piece.start for piece in pieces), default=span.start)
    stop = max((piece.stop for piece in pieces), default=span.stop)
    return Span(min(span.start, start), max(span.stop, stop))


def damaged(offset: int, data: bytes, pieces: Iterable[Piece]) -> Piece | None:
    """The first piece whose bytes are not what they were; None when all are right."""
    view = memoryview(data)
    for piece in pieces:
        if not piece.holds(view[piece.start - offset : piece.stop - offset]):
            return piece
    return None


def unsummed(span: Span, pieces: Iterable[Piece]) -> Span | None:
    """The first bytes of a span of which no piece says what they were; None when all are known."""
    at = span.start
    for piece in sorted(pieces):
        if piece.start > at:
            return Span(at, min(piece.start, span.stop))
        at = max(at, piece.stop)
        if at >= span.stop:
            return None
    return Span(at, span.stop) if at < span.stop else None


def touching(snapshot: Snapshot, table: Table, owner: bytes, span: Span) -> list[Piece]:
    """The pieces that share a byte with a span, ascending."""
    start = owner + _PLACE.pack(span.start - span.start % GROUP)
    found = snapshot.scan(table, start, owner + _PLACE.pack(span.stop))
    return [
        piece
        for key, raw in found
        for piece in _unpacked(key, raw)
        if piece.start < span.stop and piece.stop > span.start
    ]


def recorded(snapshot: Snapshot, table: Table, owner: bytes) -> Iterator[Piece]:
    """All pieces of an owner, ascending."""
    for key, raw in snapshot.scan(table, owner, after(owner)):
        yield from _unpacked(key, raw)


def add(batch: Batch, table: Table, owner: bytes, pieces: Iterable[Piece]) -> None:
    """Record pieces; what was recorded of the same bytes is replaced, unless it says more.

    Two that overlap both stay: what is written while others are checkpointed joins some that have
    been handed on already, and those may have been joined with others before.
    """
    for place, group in groupby(pieces, key=lambda piece: piece.start - piece.start % GROUP):
        key = owner + _PLACE.pack(place)
        raw = batch.get(table, key)
        old = [] if raw is None else list(_unpacked(key, raw))
        new = [one for one in group if not any(_within(one, each) for each in old)]
        kept = [each for each in old if not any(_inside(each, one.span) for one in new)]
        batch.put(table, key, _packed(place, _joined(sorted(kept + new))))


def remove(batch: Batch, table: Table, owner: bytes, span: Span, *, inside: bool = False) -> None:
    """Forget the pieces that share a byte with a span; or only those that lie ``inside``."""
    start = owner + _PLACE.pack(span.start - span.start % GROUP)
    for key, raw in list(batch.scan(table, start, owner + _PLACE.pack(span.stop))):
        old = list(_unpacked(key, raw))
        kept = [each for each in old if not _goes(each, span, inside=inside)]
        if not kept:
            batch.delete(table, key)
        elif len(kept) < len(old):
            batch.put(table, key, _packed(_PLACE.unpack(key[-8:])[0], kept))


def copy(batch: Batch, table: Table, source: bytes, target: bytes) -> None:
    """Record of one owner what is recorded of another, record by record: there may be thousands."""
    for key, raw in list(batch.scan(table, source, after(source))):
        batch.put(table, target + key[len(source) :], raw)


def clear(batch: Batch, table: Table, owner: bytes) -> None:
    """Forget all pieces of an owner."""
    batch.clear(table, owner, after(owner), limit=1 << 62)


def _goes(piece: Piece, span: Span, *, inside: bool) -> bool:
    if inside:
        return _inside(piece, span)
    return piece.start < span.stop and span.start < piece.stop


def _within(one: Piece, other: Piece) -> bool:
    """Whether it is a part of another, which was joined from it."""
    return other.length > one.length and _inside(one, other.span)


def _inside(piece: Piece, span: Span) -> bool:
    return span.start <= piece.start and piece.stop <= span.stop


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Those that touch within a multiple of ``PIECE`` as one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last is not None and last.stop == piece.start and piece.start % PIECE:
            zeros = _ZEROS[: piece.length]
            crc = isal_zlib.crc32(zeros, last.crc) ^ isal_zlib.crc32(zeros) ^ piece.crc
            found[-1] = Piece(last.start, last.length + piece.length, crc)
        else:
            found.append(piece)
    return found


def _packed(place: int, pieces: Iterable[Piece]) -> bytes:
    return b"".join(_ROW.pack(each.start - place, each.length, each.crc) for each in pieces)


def _unpacked(key: bytes, raw: bytes) -> Iterator[Piece]:
    place = _PLACE.unpack(key[-8:])[0]
    for start, length, crc in _ROW.iter_unpack(raw[: len(raw) - len(raw) % _ROW.size]):
        yield Piece(place + start, length, crc)
