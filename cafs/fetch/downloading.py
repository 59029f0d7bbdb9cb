"""Downloading: brings one flight's bytes into the store, by as many requests as it takes.

A broken body is continued where it stopped. What cannot be continued (one response only) begins
again at 0, and nothing of two responses is ever mixed.
"""

import logging
import random
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import trio

from cafs.errors import (
    AccessError,
    CafsError,
    ContentError,
    NotFoundError,
    RefusedError,
    SizeMismatchError,
    SourceChangedError,
    UnreachableError,
    UnsupportedError,
)
from cafs.fetch.budget import Budget
from cafs.fetch.flight import Flight
from cafs.fetch.interfaces import Source
from cafs.fetch.judging import Terms, changed, judge, wrong_size
from cafs.fetch.planning import LONGEST, joined
from cafs.fetch.rotation import Rotation
from cafs.fetch.slots import Slots
from cafs.metrics import Metrics
from cafs.model.address import shown
from cafs.model.span import Span, SpanSet
from cafs.store.locking import SpanLock
from cafs.store.streams import Stream, Streams
from cafs.transport.interfaces import Request, Response
from cafs.transport.retrying import RetryPolicy

BATCH: Final = 1 << 20
"""Bytes that are written at once, and the most that a kill loses of one flight."""
_POLL_S: Final = (0.002, 0.1)
"""How often a span that another process fetches is looked at: at first, and at last."""
_LOG = logging.getLogger(__name__)
_REFUSALS: Final = (NotFoundError, AccessError, RefusedError, ContentError, SourceChangedError)
"""What another source of pinned content may not fail with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What all downloads of one fetcher share."""

    streams: Streams
    slots: Slots
    budget: Budget
    policy: RetryPolicy
    metrics: Metrics


class Downloader:
    """Downloads the raw bytes of one stream.

    ``size`` is bytes once it is known. ``single`` says that only whole responses can be had.
    ``served`` holds the numbers of the sources that bytes came from.

    Concurrency: any number of flights of one trio run; the spans of those under way are disjoint.
    """

    def __init__(self, terms: Terms, means: Means, sources: list[Source]) -> None:
        self.terms = terms
        self.sources = sources
        self.stream = means.streams.find(terms.key)
        """Where the bytes go; None before the first flight of content that the store has not."""
        self.size = terms.size
        self.single = not terms.ranges or terms.size is None
        self.served: set[int] = set()
        self.first: Response | None = None
        """A whole response that is open already, for the first flight that can use it."""
        self._means = means
        self._preferred = 0
        self._proven = False
        self._scout: Flight | None = None
        self._scouted = trio.Event()

    def appoint(self, flight: Flight) -> None:
        """Let the flight, which begins first, ask first, as long as nothing is known of ranges."""
        if not self._proven and self._scout is None:
            self._scout = flight

    async def fly(self, flight: Flight) -> None:
        """Bring what the flight still lacks.

        Returns without all of it when only whole responses can be had and the flight is not one.

        Raises:
            CafsError: as ``Content.ensure``; what has come stays.

        Cancellation: what has come stays.
        """
        try:
            await self._fly(flight)
        finally:
            self._dismiss(flight)

    async def _fly(self, flight: Flight) -> None:
        if self.stream is None:
            self.stream = await self._means.streams.open(self.terms.key, self.size)
        lock = await self._locked(flight)
        if lock is None:
            return
        with lock:
            rotation = Rotation(len(self.sources), self._preferred % len(self.sources))
            while self._fits(flight) and (gap := self._gap(flight)) is not None:
                farthest = flight.farthest
                try:
                    await self._request(flight, gap, rotation.current)
                    self._preferred = rotation.current
                except CafsError as error:
                    if flight.farthest > farthest:
                        rotation.progressed()
                    await self._recover(flight, rotation, error)

    def present(self, around: Span | None = None) -> SpanSet:
        """What is in the store; as ``Stream.present``."""
        return SpanSet() if self.stream is None else self.stream.present(around)

    def leave_out_served(self) -> bool:
        """Use only sources that no bytes came from; whether there are any. For no flight's time."""
        kept = [one for number, one in enumerate(self.sources) if number not in self.served]
        if kept:
            self.sources = kept
            self.served.clear()
            self._preferred = 0
        return bool(kept)

    def _fits(self, flight: Flight) -> bool:
        return flight.single or not self.single

    @property
    def _stream(self) -> Stream:
        if self.stream is None:
            raise ValueError(f"{self.terms.name}: nothing flies yet")
        return self.stream

    def _gap(self, flight: Flight) -> Span | None:
        """What the flight lacks next; None when it is complete, by whose work ever."""
        stream = self._stream
        if flight.single and stream.digest() is None:
            return None if flight.position >= flight.span.stop else flight.span
        if flight.single:
            self.size = stream.size
            flight.span = Span(0, self.size or 0)
        rest = Span(flight.position, flight.span.stop)
        missing = stream.present(rest).missing(rest)
        near = self._means.slots.rates.gap(urlsplit(flight.url).netloc)
        gap = next(iter(joined(missing, near)), None)
        reached = flight.span.stop if gap is None else gap.start
        if reached > flight.position:
            flight.beat()
            flight.reach(reached)
        return gap

    async def _locked(self, flight: Flight) -> SpanLock | None:
        """The lock on the flight's span; None when there is nothing left to fetch."""
        pause_s, longest_s = _POLL_S
        while self._gap(flight) is not None:
            start = flight.position
            lock = self._stream.try_lock(Span(start, min(flight.span.stop, start + LONGEST)))
            if lock is not None:
                return lock
            await trio.sleep(pause_s)
            pause_s = min(longest_s, 2 * pause_s)
        return None

    async def _request(self, flight: Flight, gap: Span, number: int) -> None:
        source = self.sources[number]
        host = urlsplit(source.url).netloc
        await self._await_turn(flight)
        slots, share = self._means.slots, self.terms.key
        async with slots.hold(host, flight.priority, share=share, beat=flight.beat) as slot:
            flight.url = source.url
            self._means.budget.check(self.terms.name)
            response = await self._open(flight, gap, source)
            if response is None:
                return
            async with slot.paced(response) as response:
                self.served.add(number)
                try:
                    await self._take(flight, response, gap)
                except SizeMismatchError:
                    raise
                except ContentError:
                    # What came is known to be damaged, and nobody will check it again.
                    await self._forget()
                    raise

    async def _await_turn(self, flight: Flight) -> None:
        """Until the first 206, let one flight ask at a time.

        A server without ranges answers each with the whole. Nobody holds a slot meanwhile: the
        one that asks needs one.
        """
        while not self._proven and self._scout not in {None, flight}:
            await self._scouted.wait()
        if not self._proven:
            self._scout = flight

    async def _open(self, flight: Flight, gap: Span, source: Source) -> Response | None:
        """A response whose body the flight can use; None when it cannot use any."""
        try:
            return await self._ask(flight, gap, source) if self._fits(flight) else None
        finally:
            self._dismiss(flight)

    def _dismiss(self, flight: Flight) -> None:
        if self._scout is flight:
            self._scout = None
            self._scouted.set()
            self._scouted = trio.Event()

    async def _ask(self, flight: Flight, gap: Span, source: Source) -> Response | None:
        if flight.single:
            await self._begin(flight)
        response, self.first = (self.first, None) if flight.single else (None, self.first)
        if response is None:
            ranged = not flight.single
            response = await source.transport.open(
                Request(
                    source.url,
                    span=gap if ranged else None,
                    if_range=self.terms.validator if ranged and self.terms.steady else None,
                    attempts=1,
                    failed=flight.note,
                )
            )
        try:
            usable = await self._usable(flight, response)
        except BaseException:
            await response.aclose()
            raise
        if not usable:
            await response.aclose()
            return None
        return response

    async def _usable(self, flight: Flight, response: Response) -> bool:
        whole = judge(response.head, self.terms, self.size)
        if flight.single:
            return True
        if not whole:
            self._proven = True
            return True
        self.single = True
        if self._proven or flight.position > 0:
            return False
        # The whole came, and nothing else is under way: it is used, not thrown away.
        flight.single = True
        flight.span = Span(0, self.size or 0)
        await self._begin(flight)
        return True

    async def _begin(self, flight: Flight) -> None:
        """Begin at 0. What came of another response is forgotten, unless it is of one version."""
        flight.position = 0
        if not self.terms.steady and self.present():
            await self._forget()

    async def _forget(self) -> None:
        await self._stream.discard()
        self.stream = await self._means.streams.open(self.terms.key, self.size)

    async def _take(self, flight: Flight, response: Response, gap: Span) -> None:
        """Bring what the response has of the gap: it may be less, which is no failure."""
        if flight.single:
            await self._receive_all(flight, response)
            return
        answered = response.head.span
        stop = gap.stop if answered is None else min(gap.stop, answered.stop)
        await self._receive(flight, response, stop)

    async def _receive(self, flight: Flight, response: Response, stop: int) -> None:
        batch = _Batch()
        try:
            while flight.position + batch.length < stop:
                data = await response.receive()
                if not data:
                    break
                data = data[: stop - flight.position - batch.length]
                await self._keep(flight, batch, data)
        finally:
            await self._flush(flight, batch)
        if flight.position < stop:
            raise UnreachableError(
                f"{self.terms.name}: the body ended at {flight.position}, before {stop}"
            )

    async def _receive_all(self, flight: Flight, response: Response) -> None:
        batch = _Batch()
        try:
            while data := await response.receive():
                self._bound(flight.position + batch.length + len(data))
                await self._keep(flight, batch, data)
        finally:
            await self._flush(flight, batch)
        if self.size is not None and flight.position != self.size:
            raise wrong_size(self.terms, self.size, flight.position)
        if self.size is None:
            await self._stream.set_size(flight.position)
            self.size = flight.position
        flight.span = Span(0, flight.position)

    def _bound(self, length: int) -> None:
        if self.size is not None and length > self.size:
            raise wrong_size(self.terms, self.size, length)
        if length > self.terms.limit:
            raise UnsupportedError(
                f"{self.terms.name}: the source tells no size, and sends more than "
                f"{self.terms.limit} bytes"
            )

    async def _keep(self, flight: Flight, batch: "_Batch", data: bytes) -> None:
        reached = flight.position + batch.length + len(data)
        flight.arrived(len(data), reached)
        self._means.budget.take(len(data), self.terms.name)
        if batch.length + len(data) > BATCH:
            await self._flush(flight, batch)
        batch.add(data)
        due = flight.due()
        if batch.length >= BATCH or (due is not None and due <= reached):
            await self._flush(flight, batch)

    async def _flush(self, flight: Flight, batch: "_Batch") -> None:
        """Write what has come, cancelled or not: it would have to be fetched again."""
        if not batch.length:
            return
        data = batch.take()
        with trio.CancelScope(shield=True):
            await self._stream.write(flight.position, data)
        flight.reach(flight.position + len(data))

    async def _recover(self, flight: Flight, rotation: Rotation, error: CafsError) -> None:
        """Get ready for another try, or raise."""
        if not error.transient:
            if isinstance(error, RefusedError) and not self.terms.pinned:
                self._outside(error)
            if not self.terms.pinned or not isinstance(error, _REFUSALS):
                raise error
            rotation.refused(error)
            flight.note(error)
            return
        flight.note(error)
        if flight.unawaited():
            raise error
        _LOG.info("fetch.try.failed: %s: %s", shown(flight.url), error.line)
        self._means.metrics.add("fetch.retries")
        if not rotation.failed():
            return
        policy = self._means.policy
        if rotation.rounds > policy.retries and not flight.endless():
            raise error
        asked_s = error.retry_after_s if isinstance(error, UnreachableError) else None
        chance = random.random()  # noqa: S311 - jitter, no secret
        most_s = policy.delay_s(rotation.rounds - 1, asked_s=asked_s, chance=chance)
        # A source that asked for time gets it; else a new reader does not wait out old failures.
        await flight.pause(most_s if asked_s else min(most_s, policy.initial_s), most_s)

    def _outside(self, error: RefusedError) -> None:
        """A range outside of the whole means that the whole has another size now."""
        if error.total is not None and self.size is not None and error.total != self.size:
            raise changed(self.terms, f"{self.size} bytes", f"{error.total} bytes") from error


class _Batch:
    """Bytes that have come and are not written yet. Joined once, and not at all when one piece."""

    __slots__ = ("_pieces", "length")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.length = 0

    def add(self, piece: bytes) -> None:
        """Put more behind them."""
        self._pieces.append(piece)
        self.length += len(piece)

    def take(self) -> bytes:
        """All of them; none are left."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        self.length = 0
        return taken
