"""Blaming: finds out whose bytes were wrong, when content is not what its pin says.

While content comes from several sources, it is noted which of them sent which piece, with a hash of
the piece. When the whole does not have the promised digest, one source at a time brings all of it,
with its own pieces spared. A whole that is of one source and wrong condemns that source; a whole
that is right convicts all who sent other pieces before.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio
from typing_extensions import override

from cafs.errors import DigestMismatchError
from cafs.fetch.sources.sources import Sources
from cafs.model.span import Span, SpanSet

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK: Final = 1 << 20
_LOG = logging.getLogger(__name__)
Read = Callable[[int, int], Awaitable[bytes]]
"""Reads so many bytes at an offset of the right content."""


class Piece:
    """What one source sent in one response, as far as it was used: adjacent bytes.

    Concurrency: one task, or one worker thread, at a time.
    """

    def __init__(self, number: int, start: int, *, hashing: bool) -> None:
        self.number = number
        self.span = Span(start, start)
        self._hash: _Hash | None = hashlib.sha256() if hashing else None

    @property
    def hashing(self) -> bool:
        """Whether ``add`` costs time, so that it belongs into a worker thread."""
        return self._hash is not None

    def add(self, data: bytes) -> None:
        """These came next."""
        self.span = Span(self.span.start, self.span.stop + len(data))
        if self._hash is not None:
            self._hash.update(data)

    async def agrees(self, read: Read) -> bool:
        """Whether the right content is the same where this piece is.

        Cancellation: no effect.
        """
        if self._hash is None:
            return True
        right = hashlib.sha256()
        for start in range(self.span.start, self.span.stop, _CHUNK):
            data = await read(start, min(_CHUNK, self.span.stop - start))
            await trio.to_thread.run_sync(right.update, data)
        return right.digest() == self._hash.digest()

    @override
    def __repr__(self) -> str:
        return f"<Piece {self.span} of source {self.number}>"


class Blame:
    """Who sent what of one content with a pin, and whose bytes were wrong.

    ``attempts`` counts the wholes that were wrong: what was seen of the content before the last of
    them is not what is there now.

    Concurrency: one trio run; only ``settle`` awaits.
    """

    def __init__(self, sources: Sources, name: str) -> None:
        self.attempts = 0
        self._sources = sources
        self._name = name
        self._pieces: list[Piece] = []
        self._mixed: list[Piece] = []
        self._spared = SpanSet()
        self._tried: set[int] = set()
        self._guilty: dict[int, str] = {}

    @property
    def hopeful(self) -> bool:
        """Whether it was wrong, and may be right when it is fetched again."""
        return bool(self._tried)

    def begin(self, number: int, start: int) -> Piece:
        """A source begins to send; the piece is to be told what is used of it."""
        piece = Piece(number, start, hashing=len(self._sources) > 1)
        self._pieces.append(piece)
        return piece

    def forget(self) -> None:
        """What came so far was thrown away, whole and right or not."""
        self._pieces.clear()

    def doubt(self, span: Span) -> bool:
        """Bytes of a span were wrong, and are thrown away: who sent them is asked last.

        Who it was is found out when the whole has passed its gate, if it ever does.

        Returns:
            whether somebody else may have the right ones.
        """
        sent = [piece for piece in self._pieces if piece.span.overlaps(span)]
        self._pieces = [piece for piece in self._pieces if piece not in sent]
        self._mixed += sent
        for number in sorted({piece.number for piece in sent}):
            host = self._sources.host(number)
            _LOG.warning("fetch.mirror.doubted host=%s: %s: wrong in %s", host, self._name, span)
        return self._sources.doubt(piece.number for piece in sent)

    @property
    def unsettled(self) -> bool:
        """Whether, once the right content is there, it is to be found out whose was wrong."""
        return bool(self.attempts or self._mixed)

    def wrong(self, error: DigestMismatchError, size: int) -> None:
        """The whole does not have the promised digest, and has been put aside."""
        pieces, self._pieces = self._pieces, []
        if not pieces and self._tried:
            return  # somebody has said so already
        self.attempts += 1
        # Who sent nothing, and that was all, has sent the whole.
        senders = {piece.number for piece in pieces if piece.span.length or not size}
        if len(senders) == 1 and _union(pieces).covers(Span(0, size)):
            self._condemn(senders.pop(), error)
        else:
            self._mixed += pieces
        self._next(pieces, senders)

    def take_spared(self) -> SpanSet:
        """What of the wrong whole is of the source that is asked alone now; once."""
        spared, self._spared = self._spared, SpanSet()
        return spared

    def spare(self, spans: SpanSet) -> None:
        """So much of it was taken over."""
        if self._sources.only is not None:
            for span in spans:
                piece = Piece(self._sources.only, span.start, hashing=False)
                piece.span = span
                self._pieces.append(piece)

    async def settle(self, read: Read) -> None:
        """Name those who were wrong, now that the right content is there.

        Cancellation: nobody else is named.
        """
        mixed, self._mixed = self._mixed, []
        self._tried.clear()
        self._sources.isolate(None)
        for piece in mixed:
            if piece.number not in self._guilty and not await piece.agrees(read):
                self._accuse(piece.number, f"{self._name}: its bytes in {piece.span} were wrong")
        guilty, self._guilty = self._guilty, {}
        for number, why in guilty.items():
            # Once for each content: from now on others are asked.
            _LOG.warning("fetch.mirror.wrong host=%s: %s", self._sources.host(number), why)

    def _condemn(self, number: int, error: DigestMismatchError) -> None:
        self._accuse(number, f"{self._name}: it has {error.actual}, not {error.expected}")

    def _accuse(self, number: int, why: str) -> None:
        self._guilty[number] = why
        self._sources.condemn(number, why)

    def _next(self, pieces: Iterable[Piece], senders: set[int]) -> None:
        """Let the next source show what it has, or give up until somebody asks again."""
        if self._sources.only is not None and senders <= {self._sources.only}:
            # Else it only stepped in for another that gave no more, and has not been alone yet.
            self._tried.add(self._sources.only)
        left = [number for number in self._sources.suspects() if number not in self._tried]
        if left:
            self._tried.add(left[0])
            self._sources.isolate(left[0])
            self._spared = _union(piece for piece in pieces if piece.number == left[0])
            return
        for forgotten in (self._tried, self._mixed, self._guilty):
            forgotten.clear()
        self._sources.pardon()


def _union(pieces: Iterable[Piece]) -> SpanSet:
    return SpanSet(piece.span for piece in pieces)
