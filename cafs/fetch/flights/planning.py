"""Planning: cuts what is missing into what one request fetches. Pure; acts on nothing."""

from collections.abc import Iterable
from typing import Final

from cafs.fetch.sources.rating import Figures
from cafs.model.span import Span, SpanSet

GRANULE: Final = 256 << 10
"""Ranges begin and end at multiples of this: a 4 KiB read costs one round trip either way, and a
program that is started reads its neighbourhood next."""
FINE: Final = 64 << 10
"""The same for segments, of which it is known what is needed, where nothing tells what lies beside
them: for members of a zip that an index vouches for, of which it is not known where exactly they
begin, and for input that did not come with what is beside it. What surrounds small ones comes with
them, since files are read by their directories; large ones cost hardly more than they are."""
BESIDE: Final = 48 << 10
"""The same where it is known too what lies beside them (``content/beside.py``)."""
EXACT: Final = 1
"""The same where nothing else shall come."""
LONGEST: Final = 8 << 20
"""The most that one ranged request fetches, and that one lock covers."""
AT_ONCE: Final = 4
"""Requests for a long read that are under way at once, where more are not known to help."""
NEAR: Final = 2 << 20
"""Bytes that a reader waits for in a flight that is for others, before he gets one of his own: the
kernel sends so much of one that goes forward at once."""
LARGEST_GAP: Final = 8 << 20
"""A gap that is fetched too is never larger than this, whatever a request costs."""


def worth(figures: Figures | None) -> int:
    """The most bytes that cost less than another request; 0 when nothing is known of the host."""
    if figures is None:
        return 0
    return min(LARGEST_GAP, int(figures.latency_s * figures.rate))


def window(first: int, stop: int, at_once: int = AT_ONCE) -> Span:
    """What of a long read, whose first missing byte is ``first``, should be under way now.

    Its end is a multiple of ``LONGEST`` or the end of the read, so that a reader that moves on by
    small steps starts whole requests, not slivers. ``at_once`` is how many requests are of use.
    """
    ahead = (max(at_once, AT_ONCE) - 1) * LONGEST
    edge = -(-(first + ahead) // LONGEST) * LONGEST
    return Span(first, max(first, min(stop, edge)))


def around(span: Span, granule: int = GRANULE) -> Span:
    """What a fetch of ``span`` may bring at most."""
    return span.align(granule)


def joined(spans: Iterable[Span], gap: int) -> list[Span]:
    """Spans in order, as one where no more than ``gap`` bytes lie between them."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: one.start):
        if found and span.start <= found[-1].stop + gap:
            found[-1] = Span(found[-1].start, max(found[-1].stop, span.stop))
        else:
            found.append(span)
    return found


def requests(
    span: Span, present: SpanSet, flying: Iterable[Span], size: int, granule: int = GRANULE
) -> list[Span]:
    """The ranges to ask for, so that with those under way all of ``span`` becomes present.

    Args:
        span: what is wanted.
        present: what the store has ``around`` it.
        flying: what is under way.
        size: of the stream.
        granule: ranges begin and end at multiples of this.

    Returns:
        disjoint spans in order, below ``size``, none longer than ``LONGEST``, none with a byte
        that is present or under way.
    """
    covered = present.union(SpanSet(flying))
    wanted = covered.missing(span.clamp(size))
    return [
        Span(start, min(start + LONGEST, gap.stop))
        for gap in covered.missing(around(span, granule).clamp(size))
        if wanted.intersection(gap)
        for start in range(gap.start, gap.stop, LONGEST)
    ]
