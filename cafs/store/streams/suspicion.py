"""Suspicion: where a disk has changed one piece of a stream, and another, more is looked for.

A flipped bit costs its piece, 64 KiB, and nothing else is read for that. Where piece after piece is
wrong, as of a file in whose place another was put, each would be found alone, and fetched alone. So
what is looked at around a find grows eightfold with each that was followed by more of the same.
"""

import os
from collections.abc import Callable, Iterable
from typing import Final

from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.tables.sums import PIECE, Piece

_MOST: Final = 256 << 20
"""Bytes that are looked at for one find at most: less than a second."""
_STEP: Final = 4 << 20
"""Bytes whose pieces are looked up together."""
_GROWTH: Final = 8
Known = Callable[[Span], Iterable[Piece]]
"""The pieces of what is present that share a byte with a span, ascending."""


class Suspicion:
    """How much of each stream was found to be wrong lately.

    Concurrency: any number of worker threads; those that look at one stream hold its gate.
    """

    def __init__(self) -> None:
        self._scopes: dict[StreamKey, int] = {}

    def forget(self, key: StreamKey) -> None:
        """The stream begins anew."""
        self._scopes.pop(key, None)

    def follow(self, key: StreamKey, descriptor: int, bad: Span, known: Known) -> list[Span]:
        """What is wrong from a wrong piece on, that piece first; as far as it is worth looking.

        Raises:
            OSError: the disk failed.
        """
        scope = self._scopes.get(key, PIECE)
        lost, looked = [bad], 0
        stop = bad.start + scope
        for start in range(bad.stop, stop, _STEP):
            for piece in known(Span(start, min(start + _STEP, stop))):
                if piece.start < bad.stop:
                    continue
                looked += piece.length
                if not piece.holds(memoryview(os.pread(descriptor, piece.length, piece.start))):
                    lost.append(piece.span)
        wrong = sum(span.length for span in lost[1:])
        if 2 * wrong >= looked:
            self._scopes[key] = min(scope * _GROWTH, _MOST)
        else:
            self.forget(key)
        return lost
