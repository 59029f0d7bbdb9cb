"""Planning: cuts what is missing into what one request fetches. Pure; acts on nothing."""

from collections.abc import Iterable
from typing import Final

from cafs.model.span import Span, SpanSet

GRANULE: Final = 256 << 10
"""Ranges begin and end at multiples of this: a 4 KiB read costs one round trip either way, and a
program that is started reads its neighbourhood next."""
LONGEST: Final = 8 << 20
"""The most that one ranged request fetches, and that one lock covers."""
AHEAD: Final = 3 * LONGEST
"""How far ahead of its first missing byte a long read is fetched: four requests at once."""


def window(first: int, stop: int) -> Span:
    """What of a long read, whose first missing byte is ``first``, should be under way now.

    Its end is a multiple of ``LONGEST`` or the end of the read, so that a reader that moves on by
    small steps starts whole requests, not slivers.
    """
    edge = -(-(first + AHEAD) // LONGEST) * LONGEST
    return Span(first, max(first, min(stop, edge)))


def around(span: Span) -> Span:
    """What a fetch of ``span`` may bring at most."""
    return span.align(GRANULE)


def requests(span: Span, present: SpanSet, flying: Iterable[Span], size: int) -> list[Span]:
    """The ranges to ask for, so that with those under way all of ``span`` becomes present.

    Args:
        span: what is wanted.
        present: what the store has ``around`` it.
        flying: what is under way.
        size: of the stream.

    Returns:
        disjoint spans in order, below ``size``, none longer than ``LONGEST``, none with a byte
        that is present or under way.
    """
    covered = present.union(SpanSet(flying))
    wanted = covered.missing(span.clamp(size))
    if not wanted:
        return []
    gaps = covered.missing(around(span).clamp(size))
    return [
        Span(start, min(start + LONGEST, gap.stop))
        for gap in gaps
        if wanted.intersection(gap)
        for start in range(gap.start, gap.stop, LONGEST)
    ]
