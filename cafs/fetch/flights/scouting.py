"""Scouting: until it is known whether byte ranges can be had, one flight at a time asks.

A server without ranges answers each request with the whole.
"""

import trio

from cafs.fetch.flights.flight import Flight


class Scouting:
    """Whose turn it is to ask. ``proven`` says that ranges can be had: then everybody may.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self) -> None:
        self.proven = False
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
        while not self.proven and self._scout not in {None, flight}:
            await self._scouted.wait()
        if not self.proven:
            self._scout = flight

    def dismiss(self, flight: Flight) -> None:
        """The flight has its answer, or needs none."""
        if self._scout is flight:
            self._scout = None
            self._scouted.set()
            self._scouted = trio.Event()
