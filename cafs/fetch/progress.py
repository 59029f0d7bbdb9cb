"""Progress reports: bytes so far of a true total, not too often, never fatal."""

import logging
import math
from collections.abc import Callable

import trio
from typing_extensions import override

from cafs.fetch.pulse import Pulse

_LOG = logging.getLogger(__name__)


class Progress:
    """Tells a function how far a fetch has come (Y-17).

    The function is called with ``(0, total)`` first, then at most every ``min_interval_s`` seconds,
    and once more at the end. What it raises is logged, and fails nothing.

    Concurrency: one trio run.
    """

    def __init__(self, fn: Callable[[int, int], None], min_interval_s: float = 1.0) -> None:
        self._fn = fn
        self._interval_s = min_interval_s
        self._last = -math.inf
        self._done = 0
        self._total = 0

    def start(self, total: int) -> None:
        """Say that nothing of ``total`` bytes is there yet."""
        self._total = total
        self._done = 0
        self._tell()

    def add(self, count: int) -> None:
        """Count bytes; bytes that had to be fetched again never make it more than the total."""
        self._done = min(self._total, self._done + count)
        if trio.current_time() - self._last >= self._interval_s:
            self._tell()

    def expect(self, count: int) -> None:
        """Say that so many bytes more are to come than was known."""
        self._total += count

    def finish(self, *, whole: bool) -> None:
        """Say how it ended; ``whole`` when every byte is there."""
        if whole:
            self._done = self._total
        self._tell()

    def _tell(self) -> None:
        self._last = trio.current_time()
        try:
            self._fn(self._done, self._total)
        except Exception:  # noqa: BLE001 - a listener's bug must not fail a read (rule 5)
            _LOG.warning("fetch.progress.failed", exc_info=True)


class Tally(Pulse):
    """A pulse that counts what arrives into a progress report.

    Concurrency: as ``Pulse``.
    """

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    @override
    def beat(self, count: int = 0) -> None:
        super().beat(count)
        if count:
            self._progress.add(count)


class Passage(Pulse):
    """A pulse that counts what is worked through into a progress report, and nothing twice.

    A pass may begin anew: what it reads again is no progress.

    Concurrency: as ``Pulse``.
    """

    def __init__(self, progress: Progress, size: int, *, beyond: Pulse | None = None) -> None:
        super().__init__(beyond)
        self._progress = progress
        self._left = size

    @override
    def passed(self, count: int) -> None:
        super().passed(count)
        count = min(count, self._left)
        self._left -= count
        self._progress.add(count)

    def finish(self) -> None:
        """All of it is done, whoever has done it, and when."""
        self._progress.add(self._left)
        self._left = 0


def folded(progress: Progress) -> Callable[[int, int], None]:
    """A function for a progress report that is a part of another one, which did not expect it."""
    last = (0, 0)

    def report(done: int, total: int) -> None:
        nonlocal last
        progress.expect(total - last[1])
        progress.add(done - last[0])
        last = (done, total)

    return report
