"""Downloading: brings one flight's bytes into the store, by as many requests as it takes.

A broken body is continued where it stopped, from whichever source is best then. What cannot be
continued (one response only) begins again at 0, and nothing of two responses is ever mixed. Content
with a pin may come from several sources at once: its digest tells whether that was right, and
``blaming`` whose fault it was if not.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from cafs.errors import CafsError, DeadlineError, RefusedError
from cafs.fetch.flights.blaming import Blame
from cafs.fetch.flights.depositing import Deposit
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.judging import Terms, judge
from cafs.fetch.flights.landing import Landing
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.planning import worth
from cafs.fetch.flights.recovering import Recovery, Try
from cafs.fetch.flights.scouting import Scouting
from cafs.fetch.interfaces import Source
from cafs.fetch.sources.rotation import Rotation
from cafs.fetch.sources.sources import Sources
from cafs.fetch.sources.timing import Timed
from cafs.model.address import shown
from cafs.model.pacing import HASTE_S
from cafs.model.span import Span
from cafs.store.disk.locking import SpanLock
from cafs.transport.interfaces import Request, Response

_PARTIAL: Final = 206
_POLL_S: Final = (0.002, 0.1)
"""How often a span that another process fetches is looked at: at first, and at last."""


class Downloader:
    """Downloads the raw bytes of one stream.

    ``single`` says that only whole responses can be had. ``deposit`` is where the bytes go.

    Concurrency: any number of flights of one trio run; the spans of those under way are disjoint.
    """

    def __init__(self, terms: Terms, means: Means, sources: Sequence[Source]) -> None:
        self.terms = terms
        self.sources = Sources(sources, means.ratings)
        self.blame = Blame(self.sources, terms.name)
        self.deposit = Deposit(terms, means.streams, means.overflow, means.shortage)
        self.single = not terms.ranges or terms.size is None
        self.first: Response | None = None
        """A response that is open already, for the first flight that can use it: a whole one while
        ``single``, else one of the first bytes."""
        self.first_url = ""
        """The URL of the source that it is from."""
        self._means = means
        self._landing = Landing(terms, self.deposit, self.sources, self.blame, means=means)
        self._scouting = Scouting(means.slots.give)
        self._recovery = Recovery(
            terms, self.sources, ratings=means.ratings, policy=means.policy, metrics=means.metrics
        )

    def appoint(self, flight: Flight) -> None:
        """Let the flight, which begins first, ask first, as long as nothing is known of ranges."""
        self._scouting.appoint(flight)

    def hold(self, span: Span | None = None) -> AbstractAsyncContextManager[None]:
        """Keep what comes of a span, or of all, from being removed at once to make room."""
        return self._means.streams.hold(self.terms.key, span)

    async def fly(self, flight: Flight) -> None:
        """Bring what the flight still lacks.

        Returns without all of it when only whole responses can be had and the flight is not one.

        Raises:
            CafsError: as ``Content.ensure``; what has come stays.

        Cancellation: what has come stays.
        """
        try:
            await self._means.settled()
            async with self.hold(flight.span):
                await self._fly(flight)
        finally:
            self._scouting.dismiss(flight)

    async def _fly(self, flight: Flight) -> None:
        await self.deposit.prepare(flight.span, flight.priority)
        lock = await self._locked(flight)
        if lock is None:
            return
        with lock:
            flight.lock = lock
            rotation = Rotation()
            while self._fits(flight) and (gap := self._gap(flight)) is not None:
                await self._scouting.turn(flight)
                attempt = self._next(flight, gap, rotation)
                farthest = flight.farthest
                try:
                    await self._request(flight, attempt)
                except CafsError as error:
                    if flight.farthest > farthest:
                        rotation.progressed()
                    await self._recovery.recover(flight, rotation, attempt, error)
                else:
                    rotation.progressed()
                    stop = flight.span.stop if flight.single else min(gap.stop, flight.span.stop)
                    if self._fits(flight) and flight.position < stop and attempt.others:
                        # It was left half way, being slow: it is not the next to be asked.
                        rotation.failed(attempt.number, attempt.order)

    def _next(self, flight: Flight, gap: Span, rotation: Rotation) -> Try:
        order = self.sources.order(gap.length)
        number = rotation.pick(order)
        if self._lent(flight, gap):
            number = self.sources.number(self.first_url)
        others = rotation.others(number, order)
        patient = rotation.rounds > 0
        return Try(gap=gap, number=number, order=order, others=others, patient=patient)

    @property
    def size(self) -> int | None:
        """Bytes, once that is known."""
        return self.deposit.size

    def _lent(self, flight: Flight, gap: Span) -> bool:
        """Whether a response that is open already has what the flight lacks next."""
        if self.first is None:
            return False
        span = self.first.head.span if self.first.head.status == _PARTIAL else None
        if flight.single:
            return span is None
        return span is not None and span.start == gap.start

    @property
    def unsure(self) -> bool:
        """Whether the size may yet turn out to be another; as ``Landing.unsure``."""
        return self._landing.unsure

    def gap(self, host: str) -> int:
        """The most bytes that cost less than another request to the host."""
        return worth(self._means.ratings.figures(host))

    def ahead(self) -> int | None:
        """As ``Means.ahead``."""
        return self._means.ahead()

    def _fits(self, flight: Flight) -> bool:
        return flight.single or not self.single

    def _gap(self, flight: Flight) -> Span | None:
        """What the flight lacks next; None when it is complete, by whose work ever."""
        stream = self.deposit.stream
        if flight.single and (stream is None or stream.digest() is None):
            return None if flight.position >= flight.span.stop else flight.span
        if flight.single and stream is not None:
            self.deposit.size = stream.size
            flight.span = Span(0, stream.size or 0)
        rest = Span(flight.position, flight.span.stop)
        missing = self.deposit.present(rest).missing(rest)
        gap = next(iter(missing), None)
        reached = flight.span.stop if gap is None else gap.start
        if reached > flight.position:
            flight.beat()
            flight.reach(reached)
        return gap

    async def _locked(self, flight: Flight) -> SpanLock | None:
        """The lock on the flight's span; None when there is nothing left to fetch."""
        pause_s, longest_s = _POLL_S
        while self._gap(flight) is not None:
            lock = self.deposit.try_lock(Span(flight.position, flight.span.stop))
            if lock is not None:
                return lock
            await trio.sleep(pause_s)
            pause_s = min(longest_s, 2 * pause_s)
        return None

    async def _request(self, flight: Flight, attempt: Try) -> None:
        source, host = self.sources[attempt.number], self.sources.host(attempt.number)
        slots, share = self._means.slots, self.terms.key
        with self._means.ratings.asking(host):
            async with slots.hold(
                host,
                flight.priority,
                share=share,
                beat=flight.beat,
                open_already=self._lent(flight, attempt.gap),
            ) as slot:
                flight.url = source.url
                self._means.budget.check(self.terms.name)
                response = await self._open(flight, attempt)
                if response is None:
                    return
                timed = Timed(response, _patience_s(attempt))
                async with slot.paced(timed) as paced:
                    with self._means.ratings.sending(host):
                        await self._landing.receive(flight, attempt, paced, timed)

    async def _open(self, flight: Flight, attempt: Try) -> Response | None:
        """A response whose body the flight can use; None when it cannot use any."""
        try:
            return await self._ask(flight, attempt) if self._fits(flight) else None
        finally:
            self._scouting.dismiss(flight)

    async def _ask(self, flight: Flight, attempt: Try) -> Response | None:
        if flight.single:
            await self._landing.begin(flight)
        if self._lent(flight, attempt.gap) and self.first is not None:
            response, self.first = self.first, None
        else:
            response = await self._send(flight, attempt)
        try:
            usable = await self._usable(flight, attempt, response)
        except BaseException:
            await response.aclose()
            raise
        if not usable:
            await response.aclose()
            return None
        return response

    async def _send(self, flight: Flight, attempt: Try) -> Response:
        source, ranged = self.sources[attempt.number], not flight.single
        began = trio.current_time()
        request = Request(
            source.url,
            span=attempt.gap if ranged else None,
            if_range=self.terms.validator if ranged and self.terms.steady else None,
            attempts=1,
            failed=flight.note,
        )
        response = await self._answered(source, request, attempt)
        now = trio.current_time()
        self._means.ratings.answered(self.sources.host(attempt.number), now - began, now)
        return response

    async def _answered(self, source: Source, request: Request, attempt: Try) -> Response:
        """The answer; while there are others to ask, it must come soon."""
        limit_s = _patience_s(attempt)
        with trio.move_on_after(limit_s):
            return await source.transport.open(request)
        raise DeadlineError(f"GET {shown(source.url)}: no answer in {limit_s:g} s, and others may")

    async def _usable(self, flight: Flight, attempt: Try, response: Response) -> bool:
        whole = judge(response.head, self.terms, self.size)
        if flight.single:
            return True
        if not whole:
            self._scouting.proven = True
            return True
        if self.terms.pinned and attempt.others and (self._scouting.proven or flight.position > 0):
            raise RefusedError(f"{shown(flight.url)}: it has no byte ranges, and others may")
        self.single = True
        if self._scouting.proven or flight.position > 0:
            return False
        # The whole came, and nothing else is under way: it is used, not thrown away.
        flight.single = True
        flight.span = Span(0, self.size or 0)
        await self._landing.begin(flight)
        return True


def _patience_s(attempt: Try) -> float:
    """How long a source may be silent, before its answer or in it, while there are others."""
    return HASTE_S if attempt.others and not attempt.patient else math.inf
