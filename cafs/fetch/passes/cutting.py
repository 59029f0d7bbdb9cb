"""Cutting: makes segments of what a first pass decodes, as it goes by."""

import hashlib
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from cafs.codec.points import Point, PointedDecoder
from cafs.codec.windows import pack
from cafs.fetch.passes.aside import Aside
from cafs.labour import worked
from cafs.model.record import Segment
from cafs.store.trees.tree_writing import TreeWriter

if TYPE_CHECKING:
    from hashlib import _Hash

SLICE: Final = 1 << 20
"""Bytes of a segment of what is not compressed."""
_BITWISE: Final = frozenset({"deflate", "bzip2"})
"""Codecs whose segments may begin within a byte: that one is of the segment before, too."""


class Cutter:
    """Adds a segment for each stretch between two points of a decoder to stream 0 of a tree.

    ``count`` is how many there are, when all has ended.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, source: PointedDecoder, writer: TreeWriter, aside: Aside) -> None:
        self._source = source
        self._writer = writer
        self._aside = aside
        self._points: deque[Point] = deque()
        self._hash: _Hash = hashlib.sha256()
        self._made: deque[tuple[Segment, bytes]] = deque()
        self.count = 0

    def add(self, offset: int, data: bytes | bytearray) -> None:
        """These were decoded next, and lie at ``offset``.

        Raises:
            StorageError: the store cannot be written.
        """
        self._points.extend(self._source.points())
        stop, at = offset + len(data), offset
        while len(self._points) > 1 and self._points[1].start < stop:
            following = self._points[1].start
            self._hash_on(data, at - offset, following - offset)
            at = following
            point = self._points.popleft()
            self._end(point, following, self._points[0].input_start + _shared(self._points[0]))
        self._hash_on(data, at - offset, len(data))
        self._hand_over()
        worked()

    def end(self, size: int) -> None:
        """All was decoded: so many bytes.

        Raises:
            StorageError: the store cannot be written.
        """
        self._points.extend(self._source.points())
        # What begins at the end has no bytes.
        self._end(self._points[0], size, self._source.consumed())
        self._aside.settle()
        self._hand_over()

    def _hash_on(self, data: bytes | bytearray, start: int, stop: int) -> None:
        if start < stop:
            self._aside.post(partial(self._hash.update, memoryview(data)[start:stop]))

    def _end(self, point: Point, stop: int, input_stop: int) -> None:
        """A segment ends: what was hashed since the last one is all of it."""
        if stop == point.start:
            return
        self._aside.post(partial(self._make, point, stop, input_stop, self._hash))
        self._hash = hashlib.sha256()
        self.count += 1

    def _make(self, point: Point, stop: int, input_stop: int, found: "_Hash") -> None:
        segment = Segment(
            start=point.start,
            length=stop - point.start,
            input_start=point.input_start,
            input_length=input_stop - point.input_start,
            codec=point.codec,
            state=point.state,
            sha256=found.digest(),
        )
        self._made.append((segment, pack(point.window) if point.window else b""))

    def _hand_over(self) -> None:
        """Write what was made, in the thread that writes."""
        while self._made:
            self._writer.add_segment(0, *self._made.popleft())


def _shared(point: Point) -> int:
    """How many bytes of the input of what follows are of the segment before, too."""
    return 1 if point.state and point.codec in _BITWISE else 0
