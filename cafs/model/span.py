"""Spans and span sets: which bytes of a stream are meant, and which are present."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

import msgspec
from typing_extensions import override


class Span(msgspec.Struct, frozen=True, order=True):
    """A half-open byte range ``[start, stop)``, never negative, possibly empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        """Refuse what is no range."""
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"no span: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        """Bytes in the span."""
        return self.stop - self.start

    def clamp(self, size: int) -> "Span":
        """The part of the span below ``size``."""
        return Span(min(self.start, size), min(self.stop, size))

    def align(self, granule: int) -> "Span":
        """The smallest span around this one whose ends are multiples of ``granule``."""
        return Span(self.start // granule * granule, -(-self.stop // granule) * granule)

    def overlaps(self, other: "Span") -> bool:
        """Whether the two share a byte."""
        return self.start < other.stop and other.start < self.stop

    @override
    def __str__(self) -> str:
        return f"[{self.start}, {self.stop})"


class SpanSet:
    """An immutable set of bytes, held as sorted, disjoint, non-adjacent, non-empty spans.

    Two sets of the same bytes are equal and hash alike. All operations are O(number of spans).
    """

    __slots__ = ("_starts", "_stops")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        starts: list[int] = []
        stops: list[int] = []
        for span in sorted(spans):
            if span.start == span.stop:
                continue
            if stops and span.start <= stops[-1]:
                stops[-1] = max(stops[-1], span.stop)
            else:
                starts.append(span.start)
                stops.append(span.stop)
        self._starts = starts
        self._stops = stops

    @property
    def bounds(self) -> tuple[int, ...]:
        """``start, stop, start, stop, …``, ascending."""
        return tuple(edge for pair in zip(self._starts, self._stops, strict=True) for edge in pair)

    @property
    def total(self) -> int:
        """Bytes in the set."""
        return sum(self._stops) - sum(self._starts)

    def covers(self, span: Span) -> bool:
        """Whether every byte of the span is in the set. An empty span always is."""
        if span.start == span.stop:
            return True
        at = bisect_right(self._starts, span.start) - 1
        return at >= 0 and self._stops[at] >= span.stop

    def overlaps(self, span: Span) -> bool:
        """Whether any byte of the span is in the set."""
        at = bisect_right(self._stops, span.start)
        return at < len(self._starts) and self._starts[at] < span.stop and span.start < span.stop

    def intersection(self, span: Span) -> "SpanSet":
        """The bytes of the set inside the span."""
        low = bisect_right(self._stops, span.start)
        high = bisect_left(self._starts, span.stop)
        return SpanSet(
            Span(max(self._starts[i], span.start), min(self._stops[i], span.stop))
            for i in range(low, high)
        )

    def missing(self, span: Span) -> "SpanSet":
        """The bytes of the span that are not in the set."""
        gaps: list[Span] = []
        at = span.start
        for present in self.intersection(span):
            gaps.append(Span(at, present.start))
            at = present.stop
        gaps.append(Span(at, span.stop))
        return SpanSet(gaps)

    def add(self, span: Span) -> "SpanSet":
        """This set and the span."""
        return SpanSet([*self, span])

    def remove(self, span: Span) -> "SpanSet":
        """This set without the span."""
        kept: list[Span] = []
        for each in self:
            if not each.overlaps(span):
                kept.append(each)
                continue
            if each.start < span.start:
                kept.append(Span(each.start, span.start))
            if span.stop < each.stop:
                kept.append(Span(span.stop, each.stop))
        return SpanSet(kept)

    def union(self, other: "SpanSet") -> "SpanSet":
        """The bytes of either set."""
        return SpanSet([*self, *other])

    def __iter__(self) -> Iterator[Span]:
        return (Span(*pair) for pair in zip(self._starts, self._stops, strict=True))

    def __len__(self) -> int:
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, SpanSet) and self.bounds == other.bounds

    @override
    def __hash__(self) -> int:
        return hash(self.bounds)

    @override
    def __repr__(self) -> str:
        return f"SpanSet({' '.join(map(str, self))})"
