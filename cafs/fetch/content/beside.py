"""What comes with segments that are wanted: which of their neighbours are worth their bytes. Pure.

A request takes as long as many bytes do, so some of what lies beside the wanted comes with it, if
it is likely to be wanted next. Always that is what lies in the same 48 KiB (``BESIDE``) of the
input, since files are read by their directories. Beyond, it goes by blocks, each twice as long as
the one before: the longest that is here for the most part comes whole, since who has read so much
of it mostly reads the rest too. A program that is mapped is read so, here and there, and in the end
nearly all of it. A long block ends where its file does, for what is behind that is another matter.

Only whole segments come, since of a part nothing can be decoded, and none that are long, or further
from the next in the input than 48 KiB: those cost hardly less than a request of their own.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, takewhile
from typing import Final

from cafs.fetch.content.shared_input import Find, nearest
from cafs.fetch.content.together import STRETCH
from cafs.fetch.flights.planning import BESIDE, joined
from cafs.model.record import Segment
from cafs.model.span import Span, SpanSet

_ANYWHERE: Final = 64 << 10, STRETCH, 1 / 2
"""The shortest block, and the longest, whatever files lie there; what of it must be here."""
_WITHIN: Final = 256 << 10, 2 << 20, 3 / 5
"""The same of blocks of one file."""
_SHORT: Final = 256 << 10
"""Input of a segment that comes though nobody wants it yet, at most."""
_MOST: Final = 512
"""Segments that are looked at on either side: a table may say that each is of one byte."""
_FILES: Final = 32


class Files:
    """Where the files lie that were read last.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._known: dict[int, Span] = {}

    def note(self, file: Span) -> None:
        """A file is read."""
        self._known.pop(file.start, None)
        self._known[file.start] = file
        if len(self._known) > _FILES:
            del self._known[next(iter(self._known))]

    def around(self, span: Span) -> Span | None:
        """The one that shares a byte with a span, and was read last; None where none is known."""
        return next((one for one in reversed(self._known.values()) if one.overlaps(span)), None)


def beside(
    wanted: Sequence[Segment],
    file: Span | None,
    find: Find,
    missing: Callable[[Span], SpanSet],
    limit: int | None = None,
) -> Sequence[Span]:
    """Where the input lies that should come now: of segments, and of some beside them.

    Args:
        wanted: the segments, ascending.
        file: the file that they are of, in the stream; None where that is not known.
        find: the segments of the stream.
        missing: which raw bytes of a span are not here.
        limit: of the stream, so many bytes come as a block at most; None for any.

    Returns:
        spans of raw bytes, ascending; of segments that follow each other, with what lies between
        where that is no more than ``BESIDE``: an index may have them anywhere.
    """
    absent = missing(_reach(wanted))
    gaps = [each for each, one in enumerate(wanted) if absent.overlaps(_input(one))]
    if not gaps:
        return ()
    wanted = wanted[gaps[0] : gaps[-1] + 1]
    stretch = Span(wanted[0].start, _place(wanted[-1]).stop)
    blocks = [one for one in _blocks(stretch, file) if limit is None or one[0].length <= limit]
    start = min((one.start for one, _ in blocks), default=stretch.start)
    stop = max((one.stop for one, _ in blocks), default=stretch.stop)
    before = nearest(find, Span(min(start, stretch.start), stretch.start), _MOST)
    after = find(Span(stretch.stop, max(stop, stretch.stop)), _MOST)
    around = [*before, *wanted, *after]
    absent = missing(_reach(around))
    lacking = {one.start for one in around if absent.overlaps(_input(one))}
    here = [_place(one) for one in around if one.start not in lacking]
    block = _full(blocks, SpanSet([*here, *map(_place, wanted)]))
    near = _reach(wanted).align(BESIDE)

    def comes(one: Segment) -> bool:
        """Whether a segment comes too, when all between it and what is wanted does."""
        close = _holds(near, _input(one)) or _holds(block, _place(one))
        return close and one.input_length <= _SHORT and one.start in lacking

    ahead = [*takewhile(comes, reversed(before))][::-1]
    run = [*ahead, *wanted, *takewhile(comes, after)]
    parts = groupby(run, lambda one: one.start in lacking)
    asked = _reach(wanted)
    found = [joined(map(_input, part), BESIDE) for lacks, part in parts if lacks]
    # Apart from all that is wanted lies what came to it over a gap.
    return [one for spans in found for one in spans if one.overlaps(asked)]


def _blocks(span: Span, file: Span | None) -> Iterator[tuple[Span, float]]:
    """Blocks around a span, and the part of each that must be here so that it comes whole."""
    shortest, longest, part = _ANYWHERE
    for size in _doubled(shortest, longest):
        yield span.align(size), part
    if file is None:
        return
    inside = Span(max(0, span.start - file.start), max(0, span.stop - file.start))
    shortest, longest, part = _WITHIN
    for size in _doubled(shortest, longest):
        block = inside.align(size).clamp(file.length)
        yield Span(file.start + block.start, file.start + block.stop), part


def _doubled(size: int, longest: int) -> Iterator[int]:
    while size <= longest:
        yield size
        size *= 2


def _full(blocks: Sequence[tuple[Span, float]], here: SpanSet) -> Span:
    """The longest of the blocks that is here for the most part; empty where none is."""
    dense = [one for one, part in blocks if here.intersection(one).total >= part * one.length]
    return max(dense, key=lambda one: one.length, default=Span(0, 0))


def _place(one: Segment) -> Span:
    return Span(one.start, one.start + one.length)


def _input(one: Segment) -> Span:
    return Span(one.input_start, one.input_start + one.input_length)


def _reach(run: Sequence[Segment]) -> Span:
    """Where the input of all of them lies, with what lies between."""
    return Span(run[0].input_start, max(one.input_start + one.input_length for one in run))


def _holds(whole: Span, part: Span) -> bool:
    return whole.start <= part.start and part.stop <= whole.stop
