"""Climbing: finds how many connections help, by trying one step more. Pure; acts on nothing.

More connections help where each of them is slow by itself: a long round trip, a limit for each
connection, small files. Where the line or the server is full they only get in each other's way.
"""

from typing import Final

PERIOD_S: Final = 0.5
"""How long is measured before it is judged: some round trips, and many pieces of bodies."""
WORTH: Final = 0.25
"""The part of the hoped-for gain that must come: half as many connections again, an eighth more."""
_FULL: Final = 0.8
"""The part of a period for which as many as allowed must have been under way for it to count."""
_PAUSE_S: Final = (5.0, 60.0)
"""Until a step that was of no use is tried again: at first, and at most."""


class Climb:
    """A number of connections, between ``least`` and ``most``, that follows what they bring.

    It doubles while that helps, then tries half as many again from time to time. Work is what is
    done, in any unit: bytes, with something for each answer.

    Concurrency: one trio run; nothing here awaits. Times are of one clock, and go forward.
    """

    def __init__(self, least: int, most: int) -> None:
        self.width = min(least, most)
        self._most = most
        self._proven = self.width
        self._rate: float | None = None
        self._pause_s = _PAUSE_S[0]
        self._not_before = 0.0
        self._rising = True
        self._busy = 0
        self._begun: float | None = None
        self._changed = 0.0
        self._full_s = 0.0
        self._work = 0

    def busy(self, count: int, now: float) -> None:
        """So many connections are used from now on."""
        self._elapse(now)
        self._busy = count
        if self._begun is None and count >= self.width:
            self._begin(now)

    def done(self, work: int, now: float) -> None:
        """So much was done."""
        if self._begun is None:
            return
        self._work += work
        if now - self._begun < PERIOD_S:
            return
        self._elapse(now)
        elapsed_s = now - self._begun
        if self._full_s >= _FULL * elapsed_s:
            self._judge(self._work / elapsed_s, now)
        self._begun = None
        if self._busy >= self.width:
            self._begin(now)

    def _begin(self, now: float) -> None:
        self._begun = self._changed = now
        self._full_s = 0.0
        self._work = 0

    def _elapse(self, now: float) -> None:
        if self._begun is not None and self._busy >= self.width:
            self._full_s += now - self._changed
        self._changed = now

    def _judge(self, rate: float, now: float) -> None:
        if self.width > self._proven and self._rate is not None:
            gain = rate / self._rate - 1 if self._rate else 1.0
            if gain < WORTH * (self.width / self._proven - 1):
                self._fall_back(now)
                return
            self._pause_s = _PAUSE_S[0]
        self._proven, self._rate = self.width, rate
        if now >= self._not_before:
            step = self.width if self._rising else self.width // 2
            self.width = min(self._most, self.width + max(1, step))

    def _fall_back(self, now: float) -> None:
        self.width = self._proven
        # A doubling that was too much may still have room for half of it: that is tried at once.
        self._not_before = now if self._rising else now + self._pause_s
        if not self._rising:
            self._pause_s = min(_PAUSE_S[1], 2 * self._pause_s)
        self._rising = False
