"""Rotation: which source is tried next, and when to wait. Pure; acts on nothing.

A source that fails passes the turn to the next one. When all have failed there is a pause, then a
new round. A source that refused (no such thing, not allowed) is not asked again.
"""

from cafs.errors import CafsError


class Rotation:
    """The order of tries of one flight, over sources numbered from 0.

    Args:
        count: how many sources there are; at least one.
        first: the one to begin with: it worked last.

    Concurrency: one task.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        self._left = [(first + step) % count for step in range(count)]
        self._turn = 0
        self._refusals: list[tuple[int, CafsError]] = []
        self.rounds = 0
        """Rounds without progress in which every source failed."""

    @property
    def current(self) -> int:
        """The source whose turn it is."""
        return self._left[self._turn]

    def progressed(self) -> None:
        """Bytes came: what failed before no longer counts."""
        self.rounds = 0

    def failed(self) -> bool:
        """Pass the turn; whether the round is over, so that a pause is due."""
        self._turn = (self._turn + 1) % len(self._left)
        if self._turn:
            return False
        self.rounds += 1
        return True

    def refused(self, error: CafsError) -> None:
        """Leave out the current source.

        Raises:
            CafsError: that of the first source, when none is left.
        """
        self._refusals.append((self.current, error))
        del self._left[self._turn]
        if not self._left:
            raise min(self._refusals, key=lambda refusal: refusal[0])[1]
        self._turn %= len(self._left)
