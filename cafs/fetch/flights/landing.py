"""Landing: brings what one answer has into the deposit, and leaves a source that is too slow."""

from functools import partial
from typing import Final

import trio

from cafs.errors import ContentError, SizeMismatchError, UnsupportedError
from cafs.fetch.flights.blaming import Blame
from cafs.fetch.flights.depositing import Deposit
from cafs.fetch.flights.filling import Filling
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.judging import Terms, wrong_size
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.recovering import Try
from cafs.fetch.sources.sources import Sources
from cafs.fetch.sources.timing import Timed
from cafs.model.span import Span
from cafs.transport.interfaces import Response

_PATIENT_S: Final = 1.0
"""How long a body may come before it is asked whether another source would be much faster."""


class Landing:
    """Lands the answers to the requests of one content.

    Concurrency: any number of flights of one trio run; the spans of those under way are disjoint.
    """

    def __init__(
        self, terms: Terms, deposit: Deposit, sources: Sources, blame: Blame, *, means: Means
    ) -> None:
        self._terms = terms
        self._deposit = deposit
        self._sources = sources
        self._blame = blame
        self._budget = means.budget
        self._ratings = means.ratings

    @property
    def unsure(self) -> bool:
        """Whether the size may yet turn out to be another: nobody promised one, and a pin decides.

        Without a pin it is known when a whole response has come.
        """
        size = self._deposit.size
        return size is None or (self._terms.pinned and self._terms.size is None)

    async def begin(self, flight: Flight) -> None:
        """Begin at 0. What came of another response is forgotten, unless it is of one version."""
        flight.position = 0
        if self.unsure and self._deposit.size is not None:
            # Its size was that of a whole that was wrong, or that another source may contradict.
            self._deposit.size = None
            flight.span = Span(0, self._terms.limit + 1)
            await self._forget()
        elif not self._terms.steady and self._deposit.present():
            await self._forget()

    async def _forget(self) -> None:
        await self._deposit.forget()
        self._blame.forget()

    async def receive(self, flight: Flight, attempt: Try, response: Response, timed: Timed) -> None:
        """Bring what an answer has of a flight's gap: it may be less, which is no failure.

        Args:
            flight: it goes on where the flight is.
            attempt: what was asked for, of whom.
            response: the answer, as fast as it may be received.
            timed: the same, as it is counted.

        Raises:
            CafsError: as ``Filling``; or what came is of another size than was promised.

        Cancellation: what has come stays.
        """
        try:
            await self._receive(flight, attempt, response, timed)
        except SizeMismatchError:
            raise
        except ContentError:
            # What came is known to be damaged, and nobody will check it again.
            await self._forget()
            raise

    async def _receive(
        self, flight: Flight, attempt: Try, response: Response, timed: Timed
    ) -> None:
        number, pinned = attempt.number, self._terms.pinned
        filling = Filling(
            flight=flight,
            write=partial(self._deposit.write, urgency=flight.priority),
            budget=self._budget,
            piece=self._blame.begin(number, flight.position) if pinned else None,
            name=self._terms.name,
        )
        answered = response.head.span
        if flight.single:
            stop = flight.span.stop if answered is None else answered.stop
        else:
            stop = attempt.gap.stop if answered is None else min(attempt.gap.stop, answered.stop)
        unsized = answered is None and self._deposit.size is None

        def leave(reached: int) -> bool:
            rest = stop - reached
            if timed.waited_s < _PATIENT_S or not rest or not pinned or unsized:
                return False
            rate = timed.received / timed.waited_s
            # Of a whole response, another source would have to begin again.
            anew = stop if flight.single else rest
            return self._sources.worth_leaving(number, attempt.others, rest, rate, anew)

        complete = False
        try:
            if self._deposit.awaits(Span(flight.position, stop)):
                write = partial(self._deposit.write_whole, urgency=flight.priority)
                complete = await filling.take_whole(response, self._bound, write, leave)
            elif flight.single:
                complete = await filling.take_all(response, self._bound, leave)
            else:
                await filling.take_until(response, stop, leave)
        finally:
            self._ratings.received(
                self._sources.host(number), timed.received, timed.waited_s, trio.current_time()
            )
        if complete:
            await self._complete(flight)
        if complete or flight.position >= min(stop, flight.span.stop):
            self._sources.accept(number)

    async def _complete(self, flight: Flight) -> None:
        """The whole response has come: the size is known, or confirmed."""
        if self._deposit.size is not None and flight.position != self._deposit.size:
            raise wrong_size(self._terms, self._deposit.size, flight.position)
        if self._deposit.size is None:
            await self._deposit.set_size(flight.position)
        flight.span = Span(0, flight.position)

    def _bound(self, length: int) -> None:
        if self._deposit.size is not None and length > self._deposit.size:
            raise wrong_size(self._terms, self._deposit.size, length)
        if length > self._terms.limit:
            raise UnsupportedError(
                f"{self._terms.name}: the source tells no size, and sends more than "
                f"{self._terms.limit} bytes"
            )
