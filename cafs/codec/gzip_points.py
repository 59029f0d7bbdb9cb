"""Decodes gzip from its front, and tells on the way where decoding can begin anew.

libz stops between two blocks when it is asked to. It is asked only where a point is due: so it runs
freely nearly all the time, and data that is all empty blocks cannot make it stop at each.

Where points lie depends on the data and the spacing alone, not on how the input came: whoever makes
an index of the same bytes gets the same.

- A point within a member is the first block boundary *behind* the byte where it is due. One right
  there is passed over, as whether libz has passed it by then depends on where its input was cut.
- A member's beginning needs no window, so it is a point where one is due; and in the first quarter
  of the spacing of a member none is made: many small members are grouped by their beginnings.

Source:
    RFC 1952 §2.2 (members follow each other); gzip(1): "trailing garbage ignored", zeros silently.
"""

from collections.abc import Iterator
from typing import Final

from typing_extensions import override

from cafs.codec.decoding import Counted, Pulled, Read
from cafs.codec.points import Point, PointedDecoder
from cafs.codec.windows import Referring
from cafs.codec.zlib_door import GZIP, WINDOW, DeflateError, Flush, Inflater
from cafs.errors import MalformedError
from cafs.model.limits import Limits

_INPUT: Final = 128 << 10
_OUTPUT: Final = 512 << 10
_MAGIC: Final = b"\x1f\x8b"
_WITHOUT: Final = 4
"""A member's first part without points, as a part of the spacing."""


class GzipPoints(PointedDecoder):
    """Decodes gzip, with points.

    Args:
        read: the input. Its errors pass through unchanged.
        name: what errors call the input.
        limits: ratio and size are obeyed.
        spacing: decoded bytes between two points, at least.

    Raises:
        UnsupportedError: there is no libz.
    """

    def __init__(self, read: Read, name: str, limits: Limits, spacing: int) -> None:
        source = Counted(read)
        self._members = _Members(source, name, spacing)
        self._pulled = Pulled(self._members.pieces(), source, name, limits)

    @override
    def read(self, size: int) -> bytes:
        return self._pulled.read(size)

    @override
    def points(self) -> list[Point]:
        told, self._members.points = self._members.points, []
        return told

    @override
    def consumed(self) -> int:
        return self._members.consumed


class _Members:
    """Decodes member after member.

    ``points`` are those that are not told yet; ``consumed`` is where the last member ended.
    """

    def __init__(self, source: Counted, name: str, spacing: int) -> None:
        self._source = source
        self._name = name
        self._spacing = spacing
        self._inflater = Inflater(GZIP, _OUTPUT)
        self._referring = Referring()
        self._total = 0
        self._due = 0
        self.points: list[Point] = []
        self.consumed = 0

    def pieces(self) -> Iterator[bytes]:
        """What they decode to.

        Raises:
            MalformedError: damaged, or it ends too early.
        """
        try:
            yield from self._all()
        except DeflateError as error:
            raise MalformedError(f"{self._name}: damaged gzip data: {error}") from error

    def _all(self) -> Iterator[bytes]:
        self._tell(Point(start=0, input_start=0, codec="gzip"))
        yield from self._member()
        while self._follows():
            begin = Point(start=self._total, input_start=self._at(), codec="gzip")
            self._inflater.again()
            if self._total >= self._due:
                yield from self._begun(begin)
            yield from self._member()

    def _member(self) -> Iterator[bytes]:
        """Decode a member, of which a byte may be decoded already."""
        first = self._total + max(self._spacing // _WITHOUT, 1)
        while not self._inflater.ended:
            yield from self._pass(max(self._due, first))
            yield from self._seek()
        self.consumed = self._at()

    def _begun(self, begin: Point) -> Iterator[bytes]:
        """Tell of a member's beginning, if there is a byte behind it."""
        while not self._inflater.ended:
            piece = self._run(1)
            if piece:
                self._tell(begin)
                yield piece
                return

    def _pass(self, due: int) -> Iterator[bytes]:
        """Go on to the byte that is due, and from there to where it must be written."""
        inflater = self._inflater
        while self._total < due and not inflater.ended:
            yield self._run(due - self._total)
        # It stops with input left for want of room only: then the boundaries there are behind it.
        while not (inflater.ended or inflater.left):
            self._run(0)

    def _seek(self) -> Iterator[bytes]:
        """Go on to the next block boundary, tell of it, and go on."""
        inflater = self._inflater
        between = None
        while between is None and not inflater.ended:
            yield self._run(_OUTPUT, Flush.BLOCK)
            between = inflater.between()
        if between is not None:
            yield self._behind(*between)

    def _behind(self, bits: int, value: int) -> bytes:
        """Go on behind a block boundary, and tell of it with its window if a byte is there."""
        inflater, start, at = self._inflater, self._total, self._at()
        window = inflater.window()
        self._referring.begin(len(window), bits, value)
        ahead: list[bytes] = []
        while self._total < start + WINDOW and not inflater.ended:
            left = self._refill()
            ahead.append(self._run(start + WINDOW - self._total))
            self._referring.feed(inflater.used(left))
        if self._total > start:
            self._tell(
                Point(
                    start=start,
                    input_start=at - 1 if bits else at,
                    codec="deflate",
                    state=-bits % 8,
                    window=self._referring.masked(window),
                )
            )
        return b"".join(ahead)

    def _tell(self, point: Point) -> None:
        self.points.append(point)
        self._due = point.start + self._spacing

    def _run(self, room: int, flush: Flush = Flush.NONE) -> bytes:
        self._refill()
        piece = self._inflater.run(room, flush)
        self._total += len(piece)
        return piece

    def _refill(self) -> int:
        """Make sure that there is input, and return how much of it."""
        inflater = self._inflater
        if not inflater.left:
            data = self._source.read(_INPUT)
            if not data:
                raise MalformedError(f"{self._name}: the gzip data ends too early")
            inflater.feed(data)
        return inflater.left

    def _at(self) -> int:
        """Where the input stands that was used."""
        return self._source.total - self._inflater.left

    def _follows(self) -> bool:
        """Whether another member follows; what else follows is ignored."""
        inflater = self._inflater
        while inflater.left < len(_MAGIC):
            more = self._source.read(_INPUT)
            if not more:
                return False
            inflater.feed(inflater.rest + more)
        return inflater.follows(_MAGIC)
