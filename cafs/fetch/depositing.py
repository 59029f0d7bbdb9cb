"""Depositing: where the bytes of one content go. Into a stream; or, small and whole, into a blob.

A stream has a file and records of its own, so that what has come outlives the process, can be read
before the rest is here, and is fetched by others in parts. Content that comes in one piece in a
moment needs none of that: it is held until it is whole, and then is a blob at once (ADR 0017).
"""

from collections.abc import Awaitable, Callable

from cafs.fetch.judging import Terms
from cafs.fetch.planning import LONGEST
from cafs.model.span import Span, SpanSet
from cafs.store.intake import LARGEST
from cafs.store.locking import SpanLock
from cafs.store.streams import Stream, Streams


class Deposit:
    """Where the bytes of one content go.

    ``size`` is that of the whole in bytes, once it is known. ``stream`` is None while the store has
    nothing of the content.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, terms: Terms, streams: Streams) -> None:
        self.size = terms.size
        self.stream = streams.find(terms.key)
        self.take: Callable[[bytes], Awaitable[bool]] | None = None
        """Makes content that is whole a blob, and says whether it could."""
        self._key = terms.key
        self._streams = streams

    def present(self, around: Span | None = None) -> SpanSet:
        """What is in the store; as ``Stream.present``."""
        return SpanSet() if self.stream is None else self.stream.present(around)

    async def prepare(self, span: Span) -> None:
        """Get ready for the bytes of a span: with a stream, unless they may do without.

        Raises:
            StorageError: the disk failed, or is full.
        """
        small = self.size is not None and 0 < self.size <= LARGEST and span == Span(0, self.size)
        if self.stream is None and (self.take is None or not small):
            await self._open()

    def try_lock(self, span: Span) -> SpanLock | None:
        """Say "I am fetching this", of the front of a span; None when somebody else does.

        Where there is no stream, it is looked for again.

        Raises:
            StorageError: the disk failed.
        """
        if self.stream is None:
            lock = self._streams.try_lock_new(self._key)
            # Who had it before may have made it a blob, or begun a stream.
            self.stream = self._streams.find(self._key)
            if lock is None or self.stream is None:
                return lock
            lock.release()
        return self.stream.try_lock(Span(span.start, min(span.stop, span.start + LONGEST)))

    def awaits(self, span: Span) -> bool:
        """Whether the bytes of a span are best handed over together, being all that there is."""
        return self.stream is None and span == Span(0, self.size or 0)

    async def write(self, offset: int, data: bytes) -> None:
        """Keep bytes; as ``Stream.write``."""
        stream = self.stream or await self._open()
        await stream.write(offset, data)

    async def write_whole(self, offset: int, data: bytes) -> None:
        """Keep all bytes: as a blob, if they are right; else as a stream, to be told why not.

        Raises:
            StorageError: the disk failed, or is full.
        """
        if self.take is not None and len(data) == self.size and await self.take(data):
            self.stream = self._streams.find(self._key)
        if self.stream is None:
            await self.write(offset, data)

    async def set_size(self, size: int) -> None:
        """Say how many bytes there are, once that is known; as ``Stream.set_size``."""
        if self.stream is not None:
            await self.stream.set_size(size)
        self.size = size

    async def forget(self) -> None:
        """Begin anew, with nothing. What has become a blob stays one."""
        if self.stream is not None:
            await self.stream.discard()
        await self._open()

    async def _open(self) -> Stream:
        self.stream = await self._streams.open(self._key, self.size)
        return self.stream
