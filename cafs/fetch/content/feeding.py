"""Feeders: how a first pass gets its raw bytes."""

from collections.abc import Sequence
from typing import Final

import trio
from typing_extensions import override

from cafs.fetch.flights.lane import Lane
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Content, Feeder, Patience
from cafs.model.digest import Hasher
from cafs.model.span import Span
from cafs.store.streams.witness import Seen
from cafs.store.tables.records import Incarnation

_PIECE: Final = 1 << 20


class Reading(Feeder):
    """Reads content that nobody needs to be careful about: what it hands out is verified.

    Concurrency: one task at a time.
    """

    def __init__(self, content: Content) -> None:
        self._content = content

    @override
    async def take(self, offset: int, length: int, patience: Patience) -> bytes:
        return await self._content.read(offset, length, patience)

    @override
    def release(self) -> None:
        """Nothing is held."""


class Forward(Feeder):
    """Reads a lane forward while its bytes arrive, with several requests under way.

    ``released`` says that the pass has ended.

    Concurrency: one task at a time.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._hold = lane.hold(Patience(None))
        self._of: Incarnation | None = None
        self._begun = False
        self._torn = False
        self.released = False

    @override
    async def take(self, offset: int, length: int, patience: Patience) -> bytes:
        lane, hold = self._lane, self._hold
        span = Span(offset, offset + length).clamp(lane.end)
        hold.renew(patience)
        while True:
            # On a full disk what is ahead has no place; it would only push out what is wanted now.
            if not lane.downloader.single and not lane.short:
                hold.want(hold.window(span.start, lane.end))
            await hold.ensure(span)
            data = await self._stored(span)
            if data is None:
                # What is in memory may make way, and others come in its place.
                data = await lane.read(span)
                self._torn = self._torn or data is not None
            if data is not None:
                return data

    async def _stored(self, span: Span) -> bytes | None:
        """What the store has of a span; before the first byte it is noted of what these are."""
        stream = self._lane.downloader.deposit.stream
        if stream is None or not span.length:
            return None
        if not self._begun:
            self._of, self._begun = await stream.settled(), True
        return await stream.read(span.start, span.length)

    @override
    def of(self) -> Incarnation | None:
        return None if self._torn else self._of

    @override
    def release(self) -> None:
        self.released = True
        self._hold.release()


async def hashed(lane: Lane, algorithms: Sequence[str], work: Work[None]) -> Seen:
    """Fetch all that a lane has, hashing it as it comes.

    Raises:
        CafsError: as ``Content.ensure``.

    Cancellation: what has come stays.
    """
    hasher, feeder = Hasher(algorithms), Forward(lane)
    try:
        while hasher.size < lane.end:
            data = await feeder.take(hasher.size, _PIECE, work.patience())
            await trio.to_thread.run_sync(hasher.update, data)
            work.beat()
    finally:
        feeder.release()
    return Seen(hasher, feeder.of())
