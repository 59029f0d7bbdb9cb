"""Scouting: until it is known whether byte ranges can be had, one flight at a time asks.

A server without ranges answers each request with the whole.
"""

from collections.abc import Callable

import trio
from typing_extensions import override

from cafs.errors import CafsError
from cafs.fetch.flights.flight import Flight, Seat
from cafs.fetch.interfaces import Priority


class Scouting:
    """Whose turn it is to ask. ``proven`` says that ranges can be had: then everybody may.

    Those that wait have seats in the one that asks: it is as urgent as the most urgent of them.

    Args:
        crowd: called when somebody begins to wait: the one that asks may be more urgent by that.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, crowd: Callable[[], None]) -> None:
        self.proven = False
        self._crowd = crowd
        self._scout: Flight | None = None
        self._scouted = trio.Event()

    def appoint(self, flight: Flight) -> None:
        """Let a flight go first that begins first, whichever task runs first."""
        if not self.proven and self._scout is None:
            self._scout = flight

    async def turn(self, flight: Flight) -> None:
        """Wait for the flight's turn. Hold no slot meanwhile: the one that asks needs one.

        Cancellation: no effect.
        """
        while not self.proven and self._scout is not None and self._scout is not flight:
            scout, seat = self._scout, _Following(flight)
            scout.join(seat)
            try:
                self._crowd()
                await self._scouted.wait()
            finally:
                scout.leave(seat)
        if not self.proven:
            self._scout = flight

    def dismiss(self, flight: Flight) -> None:
        """The flight has its answer, or needs none."""
        if self._scout is flight:
            self._scout = None
            self._scouted.set()
            self._scouted = trio.Event()


class _Following(Seat):
    """The seat of a flight in the one whose answer it waits for, for all who want it."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight

    @override
    def priority(self) -> Priority:
        return self._flight.priority()

    @override
    def endless(self) -> bool:
        return self._flight.endless()

    @override
    def beat(self, count: int = 0) -> None:
        # They are not stuck; but none of these bytes are theirs.
        self._flight.beat()

    @override
    def note(self, reason: CafsError) -> None:
        self._flight.note(reason)

    @override
    def look(self, flight: Flight) -> None:
        """It is the answer that is waited for, not the bytes."""

    @override
    def fail(self, error: CafsError) -> None:
        """Who ends one flight for everybody ends this one too."""

    @override
    def awaited(self, flight: Flight) -> int:
        # With its first byte the answer is here.
        return flight.span.start + 1
