"""Lanes: the flights of one raw stream. They move bytes; whether those are right is for others."""

import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from typing_extensions import override

from cafs.errors import CafsError, CancelledError, OfflineError
from cafs.fetch.flights import planning
from cafs.fetch.flights.downloading import Downloader
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.hold import Flights, Hold
from cafs.fetch.flights.judging import Terms
from cafs.fetch.flights.readahead import ReadAhead
from cafs.fetch.interfaces import Inflight, Patience, Priority
from cafs.fetch.sources.budget import Budget
from cafs.fetch.sources.failures import Failures
from cafs.fetch.sources.slots import Slots
from cafs.fetch.sources.sources import place_of
from cafs.metrics import Metrics
from cafs.model.span import Span, SpanSet

IDLE_S: Final = 2.0
"""For how long it is fetched ahead of nobody. That a reader has gone between two reads is told by
no one, and a file is never closed here; one that computes on what it read is usually back sooner,
and loses no more than the read-ahead that is still under way."""
_LOG = logging.getLogger(__name__)


class Lane(Flights):
    """Makes spans of one raw stream present.

    Concurrency: any number of tasks of one trio run; nothing between reading and writing the
    shared state awaits.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        downloader: Downloader,
        *,
        failures: Failures,
        budget: Budget,
        slots: Slots,
        metrics: Metrics,
        landed: Callable[[], None] = lambda: None,
    ) -> None:
        self.downloader = downloader
        self.landed = landed
        """Called after each flight."""
        self.id = secrets.token_hex(4)
        """Names the lane to people, who may have several processes to look through."""
        self._nursery = nursery
        self._failures = failures
        self._budget = budget
        self._slots = slots
        self._metrics = metrics
        self._flights: list[Flight] = []
        self._readahead = ReadAhead()
        self._ahead: Hold | None = None
        self._tended = False
        self._touched = 0.0
        self._waiting = 0
        self._host = ""

    @property
    def terms(self) -> Terms:
        """What was promised of the stream."""
        return self.downloader.terms

    @property
    def end(self) -> int:
        """The size; while that is unknown, more than it may be: so it is never whole by then."""
        size = self.downloader.size
        return self.terms.limit + 1 if size is None else size

    @property
    def short(self) -> bool:
        """Whether the disk is full: then nothing is fetched before it is wanted."""
        return self.downloader.deposit.shortage.lasting()

    def is_stored(self) -> bool:
        """Whether all of it is in the store."""
        return self.downloader.deposit.is_stored(self.end)

    async def read(self, span: Span) -> bytes | None:
        """Read what has come; None when any byte is absent. The bytes may be unverified.

        Raises:
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        if not span.length:
            await trio.lowlevel.checkpoint()
            return b""
        return await self.downloader.deposit.read(span)

    def inflight(self) -> list[Inflight]:
        """What is under way."""
        return [flight.view(self.id, self.terms.name) for flight in self._flights]

    def cancel(self) -> bool:
        """End every flight for everybody who wants it; whether there was one.

        Whoever asks in the next second is told the same: the kernel asks twice.
        """
        self.rest()
        flights = [flight for flight in self._flights if flight.seats]
        if flights:
            error = CancelledError(f"{self.terms.name}: the fetch was cancelled")
            self._failures.remember(self.terms.key, error)
            for flight in flights:
                flight.cancel(error)
        return bool(flights)

    def hold(self, patience: Patience, granule: int = planning.GRANULE) -> Hold:
        """A hold on flights, whose ranges begin and end at multiples of ``granule``; release it."""
        return Hold(self, self.terms.name, patience, granule)

    async def ensure(
        self,
        span: Span,
        patience: Patience,
        then: Callable[[], Awaitable[None]] | None = None,
        granule: int = planning.GRANULE,
    ) -> None:
        """Wait until the span is in the store; ``then`` is awaited before what brings it may end.

        Raises:
            CafsError: as ``Content.ensure``.

        Cancellation: as ``Content.ensure``; with the last reader its read-ahead ends too.
        """
        if any(flight.rest.overlaps(span) for flight in self._flights):
            self._metrics.add("fetch.joined")
        self._waiting += 1
        satisfied = False
        try:
            with self.hold(patience, granule) as hold:
                await hold.ensure(span)
                if then is not None:
                    await then()
            satisfied = True
        finally:
            self._waiting -= 1
            if not satisfied and not self._waiting:
                self.rest()

    def passed(self, span: Span) -> None:
        """Note that a reader reads the span, and fetch ahead of it when it goes forward."""
        self._touched = trio.current_time()
        at_once, gap = self.useful(Priority.READAHEAD), self.gap()
        limit = self.downloader.ahead()
        ahead = self._readahead.advise(span, self.end, at_once=at_once, gap=gap, limit=limit)
        if ahead is not None:
            self.follow(ahead)

    def follow(self, ahead: Span, granule: int = planning.GRANULE) -> None:
        """Let a span come that somebody who goes forward will read, for as long as he does."""
        self._touched = trio.current_time()
        if self.downloader.single or self.short or not self.missing(ahead):
            return
        if self._ahead is None:
            self._ahead = self.hold(Patience(None, Priority.READAHEAD))
        self._ahead.want(ahead, granule)
        if not self._tended:
            self._tended = True
            self._nursery.start_soon(self._tend, self._ahead)

    def gap(self) -> int:
        """The most bytes that cost less than another request."""
        return self.downloader.gap(self._host)

    def rest(self) -> None:
        """Let go of what is fetched ahead."""
        if self._ahead is not None:
            self._ahead.release()

    @override
    def missing(self, span: Span) -> SpanSet:
        wanted = span.clamp(self.end)
        return self.downloader.deposit.present(wanted).missing(wanted)

    @override
    def check(self, span: Span, patience: Patience) -> None:
        self._failures.check(self.terms.key, patience, span=span)
        if not self.downloader.sources:
            raise OfflineError(
                f"{self.terms.name} is not in the store, and no source of it is known",
                hint="name a ref that has it in cafs.toml",
            )
        self._budget.check(self.terms.name)

    @override
    def book(self, span: Span, granule: int) -> list[Flight]:
        if self.downloader.single:
            if not self._flights:
                self._start(Flight(Span(0, self.end), single=True))
            return list(self._flights)
        flying = [flight.rest for flight in self._flights]
        present = self.downloader.deposit.present(planning.around(span, granule))
        for each in planning.requests(span, present, flying, self.end, granule):
            self._start(Flight(each))
        wanted = span.clamp(self.end)
        found = [one for one in self._flights if one.rest.overlaps(wanted)]
        return sorted(found, key=lambda flight: flight.span.start)

    @override
    def overtake(self, span: Span, granule: int) -> None:
        start, least = planning.around(span, granule).start, max(planning.NEAR, self.gap())
        for flight in self._flights:
            if flight.is_behind(start, least):
                left = Span(start, flight.span.stop)
                flight.end_at(start)
                if self._ahead is not None and self._ahead in flight.seats:
                    # What is fetched ahead is advised once: the rest of it comes behind the reader.
                    self._ahead.want(left, granule)
                return  # no other brings that

    @override
    def abandoned(self, span: Span, error: CafsError, patience: Patience) -> None:
        waited_s = math.inf if patience.deadline_s is None else patience.deadline_s
        self._failures.remember(self.terms.key, error, span=span, deadline_s=waited_s)

    @override
    def crowd(self) -> None:
        self._slots.give()

    @override
    def useful(self, priority: Priority) -> int:
        return self._slots.useful(self._host, priority)

    @override
    def hurry(self, flight: Flight) -> None:
        if flight.is_owing():
            self._nursery.start_soon(self._write, flight)

    async def _write(self, flight: Flight) -> None:
        """Write what a flight keeps back; not in the task of a reader, who may be killed."""
        if flight.write is None:
            return
        try:
            await flight.write()
        except CafsError as error:
            # The bytes are still the flight's, which fails by them itself.
            _LOG.info("fetch.flight.unwritten: %s", error.line)

    async def _tend(self, ahead: Hold) -> None:
        """Let go of what is fetched ahead once nobody has read, or waited, for a while."""
        while ahead.flying:
            await trio.sleep_until(self._touched + IDLE_S)
            now = trio.current_time()
            if self._waiting:
                self._touched = now
            elif now >= self._touched + IDLE_S:
                self.rest()
        self._tended = False

    def _start(self, flight: Flight) -> None:
        self._flights.append(flight)
        self.downloader.appoint(flight)
        self._nursery.start_soon(self._fly, flight)

    async def _fly(self, flight: Flight) -> None:
        try:
            with flight.scope:
                await self.downloader.fly(flight)
        except CafsError as error:
            flight.error = error
            if not flight.unawaited():
                self._failures.remember(self.terms.key, error, span=flight.rest)
        except Exception as bug:  # noqa: BLE001 - carried to those who wait, who raise it
            flight.error = bug
            _LOG.exception("fetch.flight.broke: %r", flight)
        finally:
            self._flights.remove(flight)
            self._host = place_of(flight.url) if flight.url else self._host
            flight.land()
            self.landed()
