"""Rotation: which sources one flight has tried, and when to wait. Pure; acts on nothing.

A source that fails passes the turn to the next one. When all have failed there is a pause, then a
new round. A source that refused (no such thing, not allowed) is not asked again.
"""

from collections.abc import Sequence

from cafs.errors import CafsError


class Rotation:
    """The tries of one flight, over sources that are known by number.

    Which sources there are, and in which order they should be asked, is said each time anew: both
    may change while the flight lasts.

    Concurrency: one task.
    """

    def __init__(self) -> None:
        self._failed: set[int] = set()
        self._refusals: dict[int, CafsError] = {}
        self.rounds = 0
        """Rounds without progress in which every source failed."""

    def pick(self, order: Sequence[int]) -> int:
        """The source whose turn it is: the first that has not failed in this round.

        Args:
            order: all sources, not empty; the best first.
        """
        left = self._left(order) or list(order)
        fresh = (number for number in left if number not in self._failed)
        return next(fresh, left[0])

    def others(self, number: int, order: Sequence[int]) -> list[int]:
        """Sources besides that one whose turn would be next."""
        barred = {number, *self._failed, *self._refusals}
        return [each for each in order if each not in barred]

    def progressed(self) -> None:
        """Bytes came: what failed before no longer counts."""
        self.rounds = 0

    def failed(self, number: int, order: Sequence[int]) -> bool:
        """Pass the turn; whether the round is over, so that a pause is due."""
        self._failed.add(number)
        if not self._failed.issuperset(self._left(order)):
            return False
        self._failed.clear()
        self.rounds += 1
        return True

    def refused(self, number: int, error: CafsError, order: Sequence[int]) -> None:
        """Leave out a source.

        Raises:
            CafsError: that of the first source, when none is left.
        """
        self._refusals[number] = error
        if not self._left(order):
            raise self._refusals[min(self._refusals)]

    def _left(self, order: Sequence[int]) -> list[int]:
        return [number for number in order if number not in self._refusals]
