"""Points of formats whose parts need nothing of what comes before them.

Such a part is a frame of zstd, a block of xz or bzip2, a slice of what is not compressed. A point
is where one begins, at least ``spacing`` decoded bytes behind the last point: smaller ones go into
one segment. Where points lie is told by the data and the spacing alone.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol

from typing_extensions import override

from cafs.codec.decoding import Counted, Pulled, Read
from cafs.codec.points import Point, PointedDecoder
from cafs.model.limits import Limits


class Walk(Protocol):
    """Decodes part after part.

    ``begun`` is where the part of the last piece begins in the input, and the ``state`` that a
    point there has; ``consumed`` is where the last part ended.

    Concurrency: one caller at a time, in a thread.
    """

    begun: tuple[int, int]
    consumed: int

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """What they decode to; no piece is empty, none is of two parts.

        Raises:
            MalformedError, UnsupportedError: as ``Decoder.read``.
        """


class FramePoints(PointedDecoder):
    """Decodes what a walk goes through, with points.

    Args:
        codec: of the points.
        walk: pulls its input from ``source``.
        source: for the ratio.
        name: what errors call the input.
        limits: ratio and size are obeyed.
        spacing: decoded bytes between two points, at least.
    """

    def __init__(
        self, codec: str, walk: Walk, source: Counted, *, name: str, limits: Limits, spacing: int
    ) -> None:
        self._codec = codec
        self._walk = walk
        self._spacing = spacing
        self._points: list[Point] = []
        self._pulled = Pulled(self._pieces(), source, name, limits)

    @override
    def read(self, size: int) -> bytes:
        return self._pulled.read(size)

    @override
    def points(self) -> list[Point]:
        told, self._points = self._points, []
        return told

    @override
    def consumed(self) -> int:
        return self._walk.consumed

    def _pieces(self) -> Iterator[bytes]:
        walk, last, total, due = self._walk, (-1, 0), 0, 0
        for piece in walk.pieces():
            if walk.begun != last:
                last = walk.begun
                if total >= due:
                    self._tell(total, *last)
                    due = total + self._spacing
            total += len(piece)
            yield piece
        if not total:
            self._tell(0, 0, 0)

    def _tell(self, start: int, input_start: int, state: int) -> None:
        point = Point(start=start, input_start=input_start, codec=self._codec, state=state)
        self._points.append(point)


class Slices(Walk):
    """Slices of what is not compressed."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self.begun = (0, 0)
        self.consumed = 0

    @override
    def pieces(self) -> Iterator[bytes]:
        while data := self._read(self._size - self.consumed % self._size):
            self.begun = (self.consumed - self.consumed % self._size, 0)
            self.consumed += len(data)
            yield data
