"""Holds: what one reader, or a read-ahead, wants of a lane's flights."""

from types import TracebackType
from typing import Protocol, Self

from typing_extensions import override

from cafs.errors import CafsError, SourceError
from cafs.fetch.flights import planning
from cafs.fetch.flights.flight import Flight, Seat
from cafs.fetch.flights.waiting import Waiter
from cafs.fetch.interfaces import Patience, Priority
from cafs.model.span import Span, SpanSet


class Flights(Protocol):
    """Where a hold gets its flights from."""

    def missing(self, span: Span) -> SpanSet:
        """What of the span is not in the store."""

    def book(self, span: Span, granule: int) -> list[Flight]:
        """The flights that bring what is missing of the span, in order, started where needed.

        What is started begins and ends at multiples of ``granule``.
        """

    def overtake(self, span: Span, granule: int) -> None:
        """A reader begins to wait: no flight that is far from the span, for others, keeps it."""

    def check(self, span: Span, patience: Patience) -> None:
        """Fail at once where it failed a moment ago, or where nothing may be fetched."""

    def abandoned(self, span: Span, error: CafsError, patience: Patience) -> None:
        """A reader's patience ended before the span had come."""

    def crowd(self) -> None:
        """The wishes changed: who is next may have changed."""

    def hurry(self, flight: Flight) -> None:
        """Somebody begins to wait for a flight: what of it has come must not wait any longer."""

    def useful(self, priority: Priority) -> int:
        """How many requests at once are of use to one who wants much, and is so urgent."""


class Hold(Waiter, Seat):
    """Keeps flights going for as long as it is held.

    Concurrency: one task.
    """

    def __init__(
        self,
        flights: Flights,
        what: str,
        patience: Patience,
        granule: int = planning.GRANULE,
    ) -> None:
        super().__init__(what, patience)
        self._source = flights
        self._granule = granule
        self._flights: list[Flight] = []
        self._awaited: tuple[Flight, int] | None = None
        self._ended: CafsError | None = None

    @property
    def flying(self) -> bool:
        """Whether anything of what it wants is still under way."""
        return any(not flight.landed for flight in self._flights)

    def want(self, span: Span, granule: int | None = None) -> list[Flight]:
        """Let the span come, without waiting; the flights that bring it, in order.

        ``granule`` stands for that of the hold. None do once a flight of this hold was ended for
        everybody.
        """
        if self._ended is not None:
            return []
        flights = self._source.book(span, granule or self._granule)
        for flight in flights:
            flight.join(self)
        self._flights = [one for one in self._flights if not one.landed and one not in flights]
        self._flights += flights
        self._source.crowd()
        return flights

    def window(self, first: int, stop: int) -> Span:
        """What of a long read, whose first missing byte is ``first``, should be under way now."""
        return planning.window(first, stop, self._source.useful(self.priority()))

    async def ensure(self, span: Span) -> None:
        """Wait until the span is in the store; long ones are fetched by several flights at once.

        Raises:
            CafsError: as ``Content.ensure``.

        Cancellation: no effect; the flights go on until the hold is released.
        """
        while missing := self._source.missing(span):
            if self._ended is not None:
                raise self._ended.with_traceback(None)
            first = next(iter(missing))
            self._source.check(first, self.patience)
            self.patience.begin()
            if self.priority() is Priority.DEMAND:
                self._source.overtake(first, self._granule)
            flights = self.want(self.window(first.start, span.stop))
            if not flights:
                # It came while we looked: a write that outlived its flight, or another process.
                continue
            flight = flights[0]
            stop = min(first.stop, flight.span.stop)
            await self._reached(flight, stop)
            if flight.error is not None and flight.position < stop:
                raise flight.error.with_traceback(None)

    async def _reached(self, flight: Flight, stop: int) -> None:
        self._awaited = (flight, stop)
        self._source.hurry(flight)
        try:
            await self.wait()
        except SourceError as error:
            self._source.abandoned(Span(flight.position, stop), error, self.patience)
            raise
        finally:
            self._awaited = None

    def release(self) -> None:
        """Want nothing any more."""
        flights, self._flights = self._flights, []
        for flight in flights:
            flight.leave(self)

    @override
    def endless(self) -> bool:
        return self.patience.deadline_s is None

    @override
    def look(self, flight: Flight) -> None:
        if flight.landed or 0 < self.awaited(flight) <= flight.position:
            self.wake()

    @override
    def fail(self, error: CafsError) -> None:
        self._ended = error
        self.wake()

    @override
    def awaited(self, flight: Flight) -> int:
        if self._awaited is None or flight is not self._awaited[0]:
            return 0
        return self._awaited[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
