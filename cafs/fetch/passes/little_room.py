"""Little room: what is done about a first pass for which the disk is too full."""

from collections.abc import Awaitable, Callable

from cafs.errors import StorageFullError
from cafs.fetch.flights.shortage import Shortage
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Content, Priority
from cafs.model.record import TreeRecord

Make = Callable[[], Awaitable[TreeRecord]]
"""Makes the pass."""


class LittleRoom:
    """What one pass has found out about the room that it needs.

    Args:
        shortage: what is done about a full disk.
        raw: the archive.
        name: what people call it.

    Concurrency: one task, and the thread that it waits for.
    """

    def __init__(self, shortage: Shortage, raw: Content, name: str) -> None:
        self._shortage = shortage
        self._raw = raw
        self._name = name
        self.decoding = False
        """Whether the pass decodes into a stream of its own, as far as that is known."""
        self.whole: int | None = None
        """What it decodes to in bytes, where that is known and must all be kept."""

    async def make(
        self, work: Work[TreeRecord], error: StorageFullError, make: Make, make_unkept: Make
    ) -> TreeRecord:
        """Once more: with what makes way for it, else without keeping what is decoded.

        Of that nothing is lost where it has segments: these are decoded again when they are read.

        Raises:
            StorageFullError: neither is enough; for who is no reader, the first is not.
            CafsError: as the pass.

        Cancellation: as the pass.
        """
        relieved = await self._shortage.relieve(self._raw.size, work.priority())
        if relieved:
            try:
                return await make()
            except StorageFullError as again:
                error = again
        elif work.priority() is Priority.PREFETCH:
            raise self._shortage.stopped(self._name, self._raw.size) from error
        if work.priority() is not Priority.DEMAND:  # by now: a reader may have come meanwhile
            raise error
        try:
            if self.decoding:
                return await make_unkept()
        except StorageFullError as again:
            error = again
        raise self._shortage.unopened(self._name, self._raw.size, self.whole) from error
