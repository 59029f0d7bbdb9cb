"""Read-ahead: decides what to fetch before it is asked for. Pure; acts on nothing."""

from typing import Final

from cafs.fetch.flights.runs import NEAR, Runs
from cafs.model.span import Span

SMALLEST: Final = 1 << 20
"""The first window: what the kernel itself asks for at most in one go."""
LARGEST: Final = 8 << 20
"""The last window: at 1 Gbit/s a request of 70 ms, so that latency no longer counts."""
_DOUBLINGS: Final = (LARGEST // SMALLEST).bit_length() - 1


class ReadAhead:
    """Watches the reads of one content, and says what should be on its way.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._runs = Runs()

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
        run = self._runs.note(span, max(NEAR, gap))
        if not run.forward:
            return None
        window = SMALLEST << min(run.advised, _DOUBLINGS)
        if limit is not None:
            window = max(1, min(window, limit // 2))
        most = max(window, min((at_once - 1) * LARGEST, run.reached - run.start))
        if limit is not None:
            most = min(most, limit - window + 1)
        if run.frontier - run.reached >= most or run.frontier >= size:
            return None
        return run.advise(min(size, run.frontier + window))
