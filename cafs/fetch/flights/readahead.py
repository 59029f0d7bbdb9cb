"""Read-ahead: decides what to fetch before it is asked for. Pure; acts on nothing.

A run is a reader that goes forward. Several runs of one content are told apart, because tools read
several members of an archive side by side. The kernel sends the reads of one run slightly out of
order and in parallel, so a read belongs to a run when it is near its end.
"""

from dataclasses import dataclass
from typing import Final

from cafs.model.span import Span

SMALLEST: Final = 1 << 20
"""The first window: what the kernel itself asks for at most in one go."""
LARGEST: Final = 8 << 20
"""The last window: at 1 Gbit/s a request of 70 ms, so that latency no longer counts."""
NEAR: Final = 1 << 20
"""How far from its end a read still goes on with a run: the kernel sends some out of order."""
_RUNS: Final = 8


@dataclass(slots=True)
class _Run:
    start: int
    reached: int
    frontier: int
    window: int


class ReadAhead:
    """Watches the reads of one content, and says what should be on its way.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def advise(
        self,
        span: Span,
        size: int,
        *,
        at_once: int = 2,
        gap: int = 0,
        limit: int | None = None,
    ) -> Span | None:
        """What to fetch ahead now that ``span`` is read; None for nothing.

        The window is 1 MiB at first and doubles up to 8 MiB with each use. The next one is due
        as soon as less than a window lies between the reader and the end of what was advised, so
        that there is always one under way beyond the one being read. Where more requests at once
        help, that distance grows further, as far as the reader has come.

        Args:
            span: what is read.
            size: of the content.
            at_once: how many requests under way are of use.
            gap: bytes that cost less than another request: a reader that leaves out no more than
                that goes forward still.
            limit: bytes between the reader and the end of what is advised, at most; for that, two
                windows share it. None for no limit.
        """
        run = self._run(span, max(NEAR, gap))
        if run is None:
            return None
        run.reached = max(run.reached, span.stop)
        run.frontier = max(run.frontier, run.reached)
        window = run.window if limit is None else max(1, min(run.window, limit // 2))
        most = max(window, min((at_once - 1) * LARGEST, run.reached - run.start))
        if limit is not None:
            most = min(most, limit - window + 1)
        if run.frontier - run.reached >= most or run.frontier >= size:
            return None
        ahead = Span(run.frontier, min(size, run.frontier + window))
        run.frontier = ahead.stop
        run.window = min(LARGEST, 2 * run.window)
        return ahead

    def _run(self, span: Span, near: int) -> _Run | None:
        """The run that the read goes on; a read that begins one asks for nothing yet."""
        for run in self._runs:
            ahead = span.start - run.reached
            if -NEAR <= ahead <= near and span.start >= run.start:
                self._runs.remove(run)
                self._runs.append(run)
                return run if span.stop > run.reached else None
        self._runs.append(_Run(span.start, span.stop, span.stop, SMALLEST))
        del self._runs[:-_RUNS]
        return None
