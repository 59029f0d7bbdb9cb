"""Feeders: how a first pass gets its raw bytes."""

from typing_extensions import override

from cafs.fetch.interfaces import Content, Feeder, Patience
from cafs.fetch.lane import Lane
from cafs.model.span import Span


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
            data = await lane.read(span)
            if data is not None:
                return data

    @override
    def release(self) -> None:
        self.released = True
        self._hold.release()
