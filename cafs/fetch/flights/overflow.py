"""Overflow: bytes that came and cannot be stored, in memory, for those who wait for them.

Its size is bounded. What was read to its end, and what nobody has wanted for a moment, makes way,
least recently wanted first; what somebody may still be about to read does not, and then there is no
room for more. Content that must be checked as a whole is kept as a whole, once it was checked; room
is set aside for it before it is put together, so that many at once need no more than one.

What comes by when somebody is given what he waits for may be kept too: it makes way first. Room is
claimed for it while it is made, and nobody is refused because of that: what finds none in the end
is dropped. So there may be more than the limit for that long, by the part of it that claims get.
"""

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import Final

import msgspec
import trio

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet

LIMIT: Final = 32 << 20
"""Bytes that are kept at most, in one process."""
WANTED_S: Final = 2.0
"""For how long what came, or was read, is kept for those who may want it."""
_CLAIMS: Final = 4
"""The part of the limit that all who claim room have at most."""


class _Piece(msgspec.Struct):
    """Bytes of a stream, and when they were wanted last; ``read`` to their end, or not yet."""

    span: Span
    data: bytes
    wanted: float
    read: bool = False

    @property
    def size(self) -> int:
        return len(self.data)


class Whole(msgspec.Struct):
    """All bytes of a content that has the digest, in pieces."""

    digest: Digest
    pieces: Sequence[bytes]
    starts: Sequence[int]
    size: int
    wanted: float
    read: bool = False


class Overflow:
    """What one process keeps of bytes that cannot be stored.

    ``size`` counts bytes that are kept, and those that room is set aside for; not what is claimed.

    Concurrency: any number of tasks of one trio run; nothing here awaits, but ``set_aside``.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.size = 0
        self._starts: dict[StreamKey, list[int]] = {}
        self._together: dict[StreamKey, float] = {}
        self._kept: OrderedDict[tuple[StreamKey, int], _Piece | Whole] = OrderedDict()
        self._aside: dict[StreamKey, int] = {}
        self._claimed = 0
        self._queue = trio.Lock()
        self._freed = trio.Event()

    def put(
        self,
        key: StreamKey,
        offset: int,
        data: bytes,
        *,
        together: bool = False,
        awaited: bool = True,
    ) -> bool:
        """Keep bytes of a stream, those that are not kept yet; False when there is no room.

        ``together`` says that one byte of the stream is of no use without all others. What is not
        ``awaited`` makes way as soon as anybody needs the room.
        """
        span = Span(offset, offset + len(data))
        gaps = self.spans(key, span).missing(span)
        if not self._make_room(gaps.total, claimed=0 if awaited else self._claimed):
            return False
        now = trio.current_time() if awaited else -inf
        if together:
            self._together[key] = now
        for gap in gaps:
            part = data if gap == span else data[gap.start - offset : gap.stop - offset]
            self._kept[key, gap.start] = _Piece(gap, part, now)
            if not awaited:
                self._kept.move_to_end((key, gap.start), last=False)
            insort(self._starts.setdefault(key, []), gap.start)
            self.size += len(part)
        return True

    def spans(self, key: StreamKey, around: Span | None = None) -> SpanSet:
        """What is kept of a stream; what does not touch ``around`` may be left out."""
        if key not in self._starts:
            return SpanSet()
        pieces = self._pieces(key) if around is None else self._overlapping(key, around)
        return SpanSet(piece.span for piece in pieces)

    def parts(self, key: StreamKey, span: Span) -> list[tuple[int, bytes]]:
        """What is kept of a span, in order: offsets and bytes. It is wanted, and read."""
        found: list[tuple[int, bytes]] = []
        now = trio.current_time()
        if key in self._together:
            self._together[key] = now
        for piece in self._overlapping(key, span):
            start, stop = max(piece.span.start, span.start), min(piece.span.stop, span.stop)
            found.append((start, piece.data[start - piece.span.start : stop - piece.span.start]))
            piece.wanted = now
            piece.read = piece.read or stop == piece.span.stop
            self._kept.move_to_end((key, piece.span.start))
        return found

    def piece(self, key: StreamKey, offset: int) -> bytes | None:
        """What is kept of a stream from an offset on, as it lies there, if anything is."""
        for piece in self._overlapping(key, Span(offset, offset + 1)):
            return piece.data[offset - piece.span.start :]
        return None

    @asynccontextmanager
    async def set_aside(self, key: StreamKey, size: int) -> AsyncIterator[bool]:
        """Set room aside for a content that is put together, beyond what is kept of its stream.

        Whoever has some waits for no more, so that it comes back; who comes first gets it first.
        ``keep_whole`` uses it; what is kept of the stream stays meanwhile.

        Args:
            key: the stream, of which one at a time is put together.
            size: bytes of all of the content.

        Returns:
            Whether there is room; not where that is taken by what others are about to read.

        Cancellation: none is set aside.
        """
        async with self._queue:
            while not (found := self._take(key, size)) and self._aside:
                await self._freed.wait()
        try:
            yield found
        finally:
            self._give_back(key)

    def _take(self, key: StreamKey, size: int) -> bool:
        held = sum(self._kept[key, start].size for start in self._starts.get(key, ()))
        count = max(0, size - held)
        if not self._make_room(count, spare=key):
            return False
        self._aside[key] = count
        self.size += count
        return True

    def _give_back(self, key: StreamKey) -> None:
        self.size -= self._aside.pop(key, 0)
        self._freed.set()
        self._freed = trio.Event()

    @contextmanager
    def claim(self, wanted: int) -> Iterator[int]:
        """Set room aside for bytes that are being made, as much as there is, up to ``wanted``.

        At the end it comes back; who puts them then finds it, unless who waits for bytes has been
        given it meanwhile. It waits for nobody.
        """
        count = max(0, min(wanted, self.limit // _CLAIMS - self._claimed, self._room()))
        self._make_room(count, claimed=self._claimed)
        self._claimed += count
        try:
            yield count
        finally:
            self._claimed -= count

    def keep_whole(self, key: StreamKey, digest: Digest, pieces: Sequence[bytes]) -> bool:
        """Keep all of a content, which was checked, instead of what is kept of its stream.

        Returns:
            False when there is no room; then what was kept, is.
        """
        self._give_back(key)
        size = sum(map(len, pieces))
        held = [(key, start) for start in self._starts.get(key, ())]
        if not self._make_room(size - sum(self._kept[each].size for each in held), spare=key):
            return False
        self.drop(key)
        starts, at = [], 0
        for piece in pieces:
            starts.append(at)
            at += len(piece)
        self._kept[key, -1] = Whole(digest, tuple(pieces), starts, size, trio.current_time())
        self.size += size
        return True

    def whole(self, key: StreamKey) -> Digest | None:
        """The digest of a content of which all is kept, and was checked; else None."""
        found = self._kept.get((key, -1))
        return found.digest if isinstance(found, Whole) else None

    def read_whole(self, key: StreamKey, offset: int, length: int) -> bytes | None:
        """Read a content of which all is kept; short at its end. None when it is not."""
        found = self._kept.get((key, -1))
        if not isinstance(found, Whole):
            return None
        found.wanted = trio.current_time()
        self._kept.move_to_end((key, -1))
        stop = min(offset + length, found.size)
        if offset >= stop:
            return b""
        data: list[bytes] = []
        number = bisect_right(found.starts, offset) - 1
        while offset < stop:
            start, piece = found.starts[number], found.pieces[number]
            data.append(piece[offset - start : stop - start])
            offset = start + len(piece)
            number += 1
        return data[0] if len(data) == 1 else b"".join(data)

    def drop(self, key: StreamKey) -> None:
        """Forget what is kept of a stream, and its whole."""
        for start in (*self._starts.get(key, ()), -1):
            self._remove(key, start)

    def cut(self, key: StreamKey, span: Span) -> None:
        """Forget what is kept of a stream where it touches a span."""
        for piece in self._overlapping(key, span):
            self._remove(key, piece.span.start)

    def _pieces(self, key: StreamKey) -> Iterator[_Piece]:
        for start in self._starts.get(key, ()):
            piece = self._kept[key, start]
            if isinstance(piece, _Piece):
                yield piece

    def _overlapping(self, key: StreamKey, span: Span) -> list[_Piece]:
        starts = self._starts.get(key, [])
        first = max(0, bisect_right(starts, span.start) - 1)
        found: list[_Piece] = []
        for start in starts[first:]:
            piece = self._kept[key, start]
            if start >= span.stop:
                break
            if isinstance(piece, _Piece) and piece.span.overlaps(span):
                found.append(piece)
        return found

    def _make_room(self, count: int, *, claimed: int = 0, spare: StreamKey | None = None) -> bool:
        """Let go of what makes way, if there is room enough then beside ``claimed``; whether so."""
        lacking = self.size + claimed + count - self.limit
        going: dict[StreamKey, list[int]] = {}
        for key, start, size in self._idle(spare) if lacking > 0 else ():
            going.setdefault(key, []).append(start)
            lacking -= size
            if lacking <= 0:
                break
        if lacking > 0:
            return False
        for key, starts in going.items():
            for start in starts if key not in self._together else tuple(self._starts[key]):
                self._remove(key, start)
        return True

    def _room(self) -> int:
        """Bytes, beside what is claimed, for which there is room if all that makes way does."""
        return self.limit - self.size - self._claimed + sum(size for _, _, size in self._idle(None))

    def _idle(self, spare: StreamKey | None) -> Iterator[tuple[StreamKey, int, int]]:
        """What makes way, and its sizes, least recently wanted first; nothing of ``spare``."""
        before = trio.current_time() - WANTED_S
        for (key, start), piece in self._kept.items():
            last = self._together.get(key)
            read = piece.read and last is None
            free = key != spare and key not in self._aside
            if free and (read or (piece.wanted if last is None else last) <= before):
                yield key, start, piece.size

    def _remove(self, key: StreamKey, start: int) -> None:
        piece = self._kept.pop((key, start), None)
        if piece is None:
            return
        self.size -= piece.size
        if isinstance(piece, _Piece):
            starts = self._starts[key]
            starts.remove(start)
            if not starts:
                del self._starts[key]
                self._together.pop(key, None)
