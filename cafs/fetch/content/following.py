"""Following: decides what of a decoded stream to make before it is asked for. Pure.

A program that is run is mapped, and the kernel reads it here and there, mostly forward; what such a
reader leaves out is hardly ever wanted, and a segment of it may be a megabyte. So only a reader
who reads nearly all that he comes by is followed, and no further than he has come. (Of raw bytes,
where the next request costs more than what it brings, ``readahead`` decides.)
"""

from dataclasses import dataclass
from typing import Final

from cafs.model.span import Span

LEAST: Final = 1 << 20
"""Bytes that are read in one go before anything is made ahead: the kernel reads 128 to 512 KiB
around a page that a program touches."""
LARGEST: Final = 8 << 20
"""What is advised at once, at most."""
FARTHEST: Final = 32 << 20
"""The most that is made ahead of one reader."""
_NEAR: Final = 1 << 20
"""How far from its end a read still goes on with a run: the kernel sends some out of order."""
_DENSE: Final = 7 / 8
"""The part of its way that a reader reads who is followed."""
_RUNS: Final = 8


@dataclass(slots=True)
class _Run:
    start: int
    reached: int
    frontier: int
    read: int


class Following:
    """Watches the reads of one content, and says what should be made next.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def advise(self, span: Span, size: int, *, limit: int | None = None) -> Span | None:
        """What to make ahead now that ``span`` is read; None for nothing.

        Args:
            span: what is read.
            size: of the content.
            limit: bytes between the reader and the end of what is advised, at most; None for any.
        """
        run = self._run(span)
        way = run.reached - run.start
        if run.read < max(LEAST, _DENSE * way):
            return None
        farthest = min(FARTHEST, run.read, FARTHEST if limit is None else limit)
        run.frontier = max(run.frontier, run.reached)
        # A new stretch is due when half of the last one has been read.
        if 2 * (run.frontier - run.reached) >= farthest or run.frontier >= size:
            return None
        stop = min(size, run.reached + farthest, run.frontier + LARGEST)
        ahead = Span(run.frontier, stop)
        run.frontier = stop
        return ahead

    def _run(self, span: Span) -> _Run:
        """The run that the read goes on, or the new one that it begins."""
        for run in self._runs:
            if abs(span.start - run.reached) <= _NEAR:
                self._runs.remove(run)
                self._runs.append(run)
                run.start = min(run.start, span.start)
                run.reached = max(run.reached, span.stop)
                run.read = min(run.reached - run.start, run.read + span.length)
                return run
        self._runs.append(_Run(span.start, span.stop, span.stop, span.length))
        del self._runs[:-_RUNS]
        return self._runs[-1]
