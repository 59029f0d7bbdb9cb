"""Flights: one request's worth of a raw stream on its way, and those who want it."""

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio
from typing_extensions import override

from cafs.errors import CafsError
from cafs.fetch.interfaces import Inflight, Priority
from cafs.model.span import Span
from cafs.store.disk.locking import SpanLock


class Flight:
    """A span that is being fetched, front to back.

    ``position`` is up to where its bytes are in the store. ``single`` says that it is the whole
    content in one response, which begins again at 0 when it breaks. ``error`` is why it ended
    early; it may also end early without one (``single`` was found necessary), and whoever still
    misses something looks again.

    Concurrency: one trio run; one task flies it.
    """

    def __init__(self, span: Span, *, single: bool = False) -> None:
        self.span = span
        self.single = single
        self.position = span.start
        self.farthest = span.start
        self.received = 0
        self.url = ""
        self.since = time.time()
        self.scope = trio.CancelScope()
        self.error: Exception | None = None
        self.landed = False
        self.seats: set[Seat] = set()
        self.write: Callable[[], Awaitable[None]] | None = None
        """Writes what has come and is kept back, while there may be such bytes."""
        self.lock: SpanLock | None = None
        """On what it still brings. What is behind it may be found to be wrong, and fetched again by
        another, while this one is still under way."""
        self._nudged = trio.Event()

    @property
    def rest(self) -> Span:
        """What it will still bring; all of it when it can begin again."""
        return self.span if self.single else Span(self.position, self.span.stop)

    def priority(self) -> Priority:
        """That of the most urgent who wants it."""
        return min((one.priority() for one in self.seats), default=Priority.PREFETCH)

    def unawaited(self) -> bool:
        """Whether only read-ahead wants it: then nobody minds if it fails."""
        return all(one.priority() is Priority.READAHEAD for one in self.seats)

    def endless(self) -> bool:
        """Whether somebody waits for it for ever."""
        return any(one.endless() for one in self.seats)

    def arrived(self, count: int, reached: int) -> None:
        """So many bytes came, up to ``reached``; only those beyond all before are progress."""
        self.received += count
        if reached > self.farthest:
            self.farthest = reached
            self.beat(count)

    def beat(self, count: int = 0) -> None:
        """It moves."""
        for seat in self.seats:
            seat.beat(count)

    def note(self, reason: CafsError) -> None:
        """A try failed."""
        for seat in self.seats:
            seat.note(reason)

    def reach(self, position: int) -> None:
        """The bytes up to ``position`` are in the store."""
        self.position = position
        self.farthest = max(self.farthest, position)
        if self.lock is not None and not self.single:
            self.lock.pass_by(position)
        for seat in self.seats:
            seat.look(self)

    def is_behind(self, position: int, least: int) -> bool:
        """Whether it is at least so far from a position within it, and no reader waits beyond it.

        Then who wants what lies there is served sooner by another.
        """
        if self.single or position >= self.span.stop or position - self.farthest < least:
            return False
        readers = (seat for seat in self.seats if seat.priority() is Priority.DEMAND)
        return all(0 < seat.awaited(self) <= position for seat in readers)

    def end_at(self, position: int) -> None:
        """Leave what lies from a position on to others."""
        self.span = Span(self.span.start, position)
        if self.lock is not None:
            self.lock.end_at(position)

    def due(self) -> int | None:
        """The nearest position beyond the present one that somebody waits for."""
        stops = (seat.awaited(self) for seat in self.seats)
        return min((stop for stop in stops if stop > self.position), default=None)

    def is_owing(self) -> bool:
        """Whether somebody waits for what has come, and is not in the store yet."""
        due = self.due()
        return self.write is not None and due is not None and due <= self.farthest

    def land(self) -> None:
        """It is over."""
        self.landed = True
        for seat in self.seats:
            seat.look(self)

    def join(self, seat: "Seat") -> None:
        """Somebody wants it; somebody new is worth another try at once."""
        if seat not in self.seats:
            self.seats.add(seat)
            self._nudged.set()

    async def pause(self, least_s: float, most_s: float) -> None:
        """Wait before another try: for ``most_s``, or only ``least_s`` when somebody joins.

        Cancellation: no effect.
        """
        self._nudged = trio.Event()
        await trio.sleep(least_s)
        with trio.move_on_after(most_s - least_s):
            await self._nudged.wait()

    def leave(self, seat: "Seat") -> None:
        """Somebody wants it no more; without the last one it ends."""
        self.seats.discard(seat)
        if not self.seats and not self.landed:
            self.scope.cancel()

    def cancel(self, error: CafsError) -> None:
        """End it for everybody who wants it, also for who does not wait at the moment."""
        self.error = error
        for seat in self.seats:
            seat.fail(error)
        self.scope.cancel()

    def view(self, id_: str, name: str) -> Inflight:
        """What is told of it."""
        return Inflight(
            id=id_,
            name=name,
            url=self.url,
            span=self.span,
            received=self.received,
            since=self.since,
            priority=self.priority(),
        )

    @override
    def __repr__(self) -> str:
        kind = "single" if self.single else "ranged"
        return f"<Flight {kind} {self.span} at {self.position}, {self.priority().name}>"


class Seat(Protocol):
    """One who wants a flight."""

    def priority(self) -> Priority:
        """How urgent it is."""

    def endless(self) -> bool:
        """Whether it waits for ever."""

    def beat(self, count: int = 0) -> None:
        """Bytes arrived."""

    def note(self, reason: CafsError) -> None:
        """A try failed."""

    def look(self, flight: Flight) -> None:
        """The flight came further, or landed."""

    def fail(self, error: CafsError) -> None:
        """A flight was ended for everybody."""

    def awaited(self, flight: Flight) -> int:
        """The position of the flight that it waits for; 0 for none."""
