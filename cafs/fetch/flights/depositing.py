"""Depositing: where the bytes of one content go. Into a stream; or, small and whole, into a blob.

A stream has a file and records of its own, so that what has come outlives the process, can be read
before the rest is here, and is fetched by others in parts. Content that comes in one piece in a
moment needs none of that: it is held until it is whole, and then is a blob at once (ADR 0017).

Where the disk is full, what readers wait for is kept in memory instead (ADR 0020).
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cafs.errors import StorageError, StorageFullError
from cafs.fetch.flights.composing import read_both
from cafs.fetch.flights.judging import Terms
from cafs.fetch.flights.overflow import Overflow
from cafs.fetch.flights.planning import LONGEST
from cafs.fetch.flights.shortage import Shortage
from cafs.fetch.interfaces import Priority
from cafs.model.span import Span, SpanSet
from cafs.store.blobs.intake import LARGEST
from cafs.store.disk.locking import SpanLock
from cafs.store.streams.stream import Stream
from cafs.store.streams.streams import Streams

_PIECE: Final = 1 << 20
Urgency = Callable[[], Priority]
"""Says how urgent bytes are, when they are about to be kept."""


class Deposit:
    """Where the bytes of one content go.

    ``size`` is that of the whole in bytes, once it is known. ``stream`` is None while the store has
    nothing of the content.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(
        self, terms: Terms, streams: Streams, overflow: Overflow, shortage: Shortage
    ) -> None:
        self.size = terms.size
        self._streams = streams
        self._key = terms.key
        self.stream = self._found()
        self.take: Callable[[bytes], Awaitable[bool]] | None = None
        """Makes content that is whole a blob, and says whether it could."""
        self.overflow = overflow
        self.shortage = shortage
        self._name = terms.name
        self._whole = terms.pinned or not terms.ranges
        self._by_range = 0

    def _found(self) -> Stream | None:
        """What the store has; not one of another size, in whose place one is made when it opens.

        Who promised that size was wrong, or whoever promised ours.
        """
        stream = self._streams.find(self._key)
        if stream is None or self.size is None or stream.digest() is not None:
            return stream
        return stream if stream.size in {None, self.size} else None

    def present(self, around: Span | None = None) -> SpanSet:
        """What can be read now: what is in the store or in memory; as ``Stream.present``."""
        kept = self.overflow.spans(self._key, around)
        return self.stored(around).union(kept) if kept else self.stored(around)

    def stored(self, around: Span | None = None) -> SpanSet:
        """What is in the store; as ``Stream.present``."""
        return SpanSet() if self.stream is None else self.stream.present(around)

    def is_stored(self, size: int) -> bool:
        """Whether all of it is in the store, and the store knows that this is all."""
        stream = self.stream
        return not size or (
            stream is not None and stream.size == size and self.stored().total >= size
        )

    async def read(self, span: Span) -> bytes | None:
        """Read a span; None when any byte of it is absent.

        Raises:
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        return await read_both(self.stream, self.overflow, self._key, span)

    async def piece(self, offset: int, size: int) -> bytes | None:
        """Some bytes of the content from an offset on, its size given; what is in memory, as it is.

        Raises:
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        kept = self.overflow.piece(self._key, offset)
        if kept is not None:
            return kept
        ahead = self.overflow.spans(self._key, Span(offset, size))
        stop = min(ahead.bounds, default=size)
        return await self.read(Span(offset, min(stop, offset + _PIECE)))

    async def prepare(self, span: Span, urgency: Urgency) -> None:
        """Get ready for the bytes of a span: with a stream, unless they may do without.

        Raises:
            StorageError: the disk failed; or it is full, and no reader waits.
        """
        small = self._is_small and span == Span(0, self.size or 0)
        if self.stream is None and (self.take is None or not small):
            await self._open(urgency)

    @property
    def _is_small(self) -> bool:
        return self.size is not None and 0 < self.size <= LARGEST

    def try_lock(self, span: Span) -> SpanLock | None:
        """Say "I am fetching this", of the front of a span; None when somebody else does.

        Where there is no stream, it is looked for again.

        Raises:
            StorageError: the disk failed.
        """
        if self.stream is None:
            lock = self._streams.try_lock_new(self._key)
            # Who had it before may have made it a blob, or begun a stream.
            self.stream = self._found()
            if lock is None or self.stream is None:
                return lock
            lock.release()
        return self.stream.try_lock(Span(span.start, min(span.stop, span.start + LONGEST)))

    def awaits(self, span: Span) -> bool:
        """Whether the bytes of a span are best handed over together, being all that there is."""
        return self.stream is None and self._is_small and span == Span(0, self.size or 0)

    async def write(self, offset: int, data: bytes, urgency: Urgency) -> None:
        """Keep bytes; as ``Stream.write``. On a full disk, in memory, when readers wait for them.

        Raises:
            StorageError: the disk failed; or it is full, and nothing can be done about it.
        """
        if not await self._stored_somehow(offset, data, urgency):
            self._keep(offset, data, urgency())

    async def _stored_somehow(self, offset: int, data: bytes, urgency: Urgency) -> bool:
        """Write bytes into the stream, at the price of others; False when the disk is full."""
        if not self.shortage.lasting():
            if await self._store(offset, data):
                return True
            self.shortage.found()
        if not await self.shortage.relieve(len(data), urgency()):
            return False
        if await self._store(offset, data):
            return True
        self.shortage.fruitless()
        return False

    async def _store(self, offset: int, data: bytes) -> bool:
        """Write bytes into the stream; False when the disk is full."""
        stream = self.stream or await self._opened()
        if stream is None:
            return False
        try:
            await stream.write(offset, data)
        except StorageFullError:
            return False
        return True

    def _keep(self, offset: int, data: bytes, priority: Priority) -> None:
        """Keep bytes in memory; what must be checked as a whole only if all of it has room there.

        Raises:
            StorageFullError: nobody reads it, or there is no room.
        """
        self._check_wanted(priority)
        whole = self._whole and not self._by_range
        lacking = (self.size or 0) - self.stored().total if whole else 0
        if lacking > self.overflow.limit or not self.overflow.put(
            self._key, offset, data, together=whole
        ):
            raise self.shortage.error(self._name, max(lacking, len(data)))

    def _check_wanted(self, priority: Priority) -> None:
        """Nothing is done on a full disk for what nobody reads.

        Raises:
            StorageFullError: nobody does.
        """
        if priority is not Priority.DEMAND:
            self.shortage.found()
            raise self.shortage.stopped(self._name, (self.size or 0) - self.stored().total)

    async def write_whole(self, offset: int, data: bytes, urgency: Urgency) -> None:
        """Keep all bytes: as a blob, if they are right; else as a stream, to be told why not.

        Raises:
            StorageError: as ``write``.
        """
        if self.take is not None and len(data) == self.size and await self.take(data):
            self.stream = self._found()
        if self.stream is None:
            await self.write(offset, data, urgency)

    async def set_size(self, size: int) -> None:
        """Say how many bytes there are, once that is known; as ``Stream.set_size``."""
        if self.stream is not None:
            try:
                await self.stream.set_size(size)
            except StorageFullError:
                # Then it is not whole in the store, whatever is there.
                self.shortage.found()
        self.size = size

    async def reject(self, span: Span) -> bool:
        """Take away bytes that were wrong; False where all were checked, and are right.

        Raises:
            StorageError: the disk failed.

        Cancellation: as ``Stream.reject``.
        """
        self.overflow.cut(self._key, span)
        return self.stream is None or await self.stream.reject(span)

    @contextmanager
    def by_range(self) -> Iterator[None]:
        """Meanwhile a part of what must be checked as a whole is of use without the rest."""
        self._by_range += 1
        try:
            yield
        finally:
            self._by_range -= 1

    async def forget(self) -> None:
        """Begin anew, with nothing. What has become a blob stays one."""
        self.overflow.drop(self._key)
        if self.stream is not None:
            await self.stream.discard()
            self.stream = None
        await self._open(lambda: Priority.DEMAND)

    def unlearn(self) -> None:
        """Know nothing of it any more; what was there has been put aside."""
        self.size = self.stream = None

    async def _open(self, urgency: Urgency) -> None:
        """Get a stream. A reader can do without, on a full disk.

        Raises:
            StorageError: the disk failed; or it is full, and no reader waits.
        """
        if await self._opened():
            return
        if urgency() is Priority.PREFETCH and await self.shortage.relieve(0, Priority.PREFETCH):
            if await self._opened():
                return
            self.shortage.fruitless()
        self._check_wanted(urgency())

    async def _opened(self) -> Stream | None:
        """Get a stream; None when the disk is full."""
        try:
            self.stream = await self._streams.open(self._key, self.size)
        except StorageFullError:
            return None
        except StorageError as error:
            # A stream's own name tells people nothing.
            raise StorageError(f"{self._name}: {error.what}", hint=error.hint) from error
        return self.stream
