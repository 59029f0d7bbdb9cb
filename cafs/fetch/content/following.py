"""Following: decides what of a decoded stream to make before it is asked for. Pure.

A program that is run is mapped, and the kernel reads it here and there, mostly forward; what such a
reader leaves out is hardly ever wanted, and a segment of it may be a megabyte. So only a reader
who reads nearly all that he comes by is followed, and no further than he has come. (Of raw bytes,
where the next request costs more than what it brings, ``readahead`` decides.)
"""

from typing import Final

from cafs.fetch.flights.runs import Runs
from cafs.model.span import Span

LEAST: Final = 1 << 20
"""Bytes that are read in one go before anything is made ahead: the kernel reads 128 to 512 KiB
around a page that a program touches."""
LARGEST: Final = 8 << 20
"""What is advised at once, at most."""
FARTHEST: Final = 32 << 20
"""The most that is made ahead of one reader."""
_DENSE: Final = 7 / 8
"""The part of its way that a reader reads who is followed."""


class Following:
    """Watches the reads of one content, and says what should be made next.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._runs = Runs()

    def advise(
        self, span: Span, size: int, *, file: Span | None = None, limit: int | None = None
    ) -> Span | None:
        """What to make ahead now that ``span`` is read; None for nothing.

        Args:
            span: what is read.
            size: of the content.
            file: what he reads a part of, where that is known: he is not followed beyond its end
                unless he came from before its beginning.
            limit: bytes between the reader and the end of what is advised, at most; None for any.
        """
        run = self._runs.note(span)
        way = run.reached - run.start
        stop = size if file is None or run.start < file.start else min(size, file.stop)
        if run.read < max(LEAST, _DENSE * way):
            return None
        farthest = min(FARTHEST, run.read, FARTHEST if limit is None else limit)
        # A new stretch is due when half of the last one has been read.
        if 2 * (run.frontier - run.reached) >= farthest or run.frontier >= stop:
            return None
        return run.advise(min(stop, run.reached + farthest, run.frontier + LARGEST))
