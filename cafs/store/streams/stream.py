"""A stream: a byte sequence that is filled by span, and read where it is filled.

A hole is never read as zeros: a read looks up, reads, and looks up again; where the record has
changed between, it starts over. Bytes that are present are never overwritten: a write fills what is
missing and leaves the rest, so what was verified stays what it was.
"""

from dataclasses import replace
from pathlib import Path

import trio

from cafs.errors import StorageFullError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.model.trust import ANYTHING, Need
from cafs.store.disk import locking
from cafs.store.disk.door import CLOSED
from cafs.store.disk.files import storage_error
from cafs.store.disk.locking import SpanLock
from cafs.store.streams.drafting import Draft
from cafs.store.streams.mishaps import Mishaps
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.stream_writing import StreamWriter
from cafs.store.streams.witness import Share
from cafs.store.tables import sums
from cafs.store.tables.records import Incarnation, StreamRecord


class Stream:
    """One stream of the store: a name and a size; the truth is in the records, each time.

    The handle stays good whatever becomes of the stream: when its file has vanished, a write makes
    another; when it has become a blob, reads come from there.

    Concurrency: any number of tasks, threads and processes.
    """

    __slots__ = ("_located", "_share", "_shelf", "_size", "_source", "key")

    def __init__(
        self, shelf: Shelf, key: StreamKey, size: int | None, source: Digest | None = None
    ) -> None:
        self._shelf = shelf
        self._source = source
        self._size = size
        self._located: tuple[StreamRecord, Path, Item] | None = None
        self._share = Share()
        self.key = key

    @property
    def size(self) -> int | None:
        """Bytes in the whole stream, None while unknown."""
        if self._size is None:
            record = self._shelf.ledger.record(self.key)
            self._size = None if record is None else record.size
        return self._size

    def present(self, around: Span | None = None) -> SpanSet:
        """What can be read now, whoever wrote it; ``around`` is what is asked about, None for all.

        With it, what does not touch it may be left out.
        """
        return self._shelf.ledger.present(self.key, around)

    def digest(self) -> Digest | None:
        """The digest of the blob that the stream has become, None before that."""
        record = self._shelf.ledger.record(self.key)
        return None if record is None else record.digest

    def behind(self) -> Digest | None:
        """The verified blob that its bytes are, or come from; None where nothing stands behind."""
        record = self._shelf.ledger.record(self.key)
        return None if record is None else record.behind

    def incarnation(self) -> Incarnation | None:
        """What its bytes are bytes of; None when there is no such stream any more."""
        record = self._shelf.ledger.record(self.key)
        return None if record is None else record.incarnation

    async def settled(self) -> Incarnation | None:
        """``incarnation`` at a moment when nothing is being taken out of the stream.

        What is read from then on, as long as this is its incarnation, are bytes that stay: of what
        is just being taken out, which has the next generation already, some might still be read.

        Raises:
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        return await trio.to_thread.run_sync(self._settled, limiter=self._shelf.limiter)

    def _settled(self) -> Incarnation | None:
        ledger = self._shelf.ledger
        record = ledger.record(self.key)
        if record is None or record.digest is not None:
            return None if record is None else record.incarnation
        try:
            with locking.gate(ledger.path(self.key, record)):
                now = ledger.record(self.key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, f"locking stream {self.key}") from error
        return now.incarnation if now is not None and now.file == record.file else None

    async def read(self, offset: int, length: int, need: Need = ANYTHING) -> bytes | None:
        """Read a span; None when any byte of it is absent. Short only at the stream's size.

        What is read is what was written: a piece that the disk has changed is absent from then on.
        Bytes that do not have behind them what the reader needs are absent for it.

        Raises:
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        shelf = self._shelf
        span = Span(offset, offset + length)
        while (holding := shelf.ledger.holding(self.key, span)) is not None:
            record, pieces = holding
            if not need.met(record.behind):
                break
            wanted = span if record.size is None else span.clamp(record.size)
            wider = sums.around(wanted, pieces)
            path, item = self._path(record)
            data, failure = await self._stored(path, wider)
            if shelf.ledger.record(self.key) != record:  # no span is taken away without a change
                continue
            mishaps = Mishaps(shelf, self.key)
            change = mishaps.amiss(record, wanted, wider, data, pieces, failure=failure)
            if change is None:
                shelf.uses.touch(item)
                return data[wanted.start - wider.start :][: wanted.length]
            try:
                await trio.to_thread.run_sync(change, limiter=shelf.limiter)
            except OSError as error:
                what = f"stream {self.key}: damaged, and cannot be put aside"
                raise storage_error(error, what) from error
        await trio.lowlevel.checkpoint_if_cancelled()
        return None

    async def _stored(self, path: Path, span: Span) -> tuple[bytes, OSError | None]:
        """What the file has of a span; with what is the matter where that one is of no use.

        Raises:
            StorageError: the disk failed.
        """
        try:
            return await self._shelf.files.read(path, span.start, span.length), None
        except FileNotFoundError:
            return b"", None
        except OSError as error:
            if error.errno not in CLOSED:
                raise storage_error(error, f"reading stream {self.key}") from error
            return b"", error

    def _path(self, record: StreamRecord) -> tuple[Path, Item]:
        """Where the record's file lies, and what it is; made only when the record is another."""
        located = self._located
        if located is None or located[0] != record:
            path = self._shelf.ledger.path(self.key, record)
            item = Item.stream(self.key) if record.digest is None else Item.blob(record.digest)
            located = self._located = (record, path, item)
        return located[1:]

    async def write(self, offset: int, data: bytes) -> None:
        """Write bytes and record them as present. Bytes that were present stay what they were.

        Raises:
            StorageFullError: the disk is full; what could be written is recorded.
            StorageError: the disk failed.
            SizeMismatchError: somebody has just said that the stream has fewer bytes.
            ValueError: beyond the stream's size.

        Cancellation: all or nothing; once begun it is carried through.
        """
        await trio.to_thread.run_sync(self.write_sync, offset, data, limiter=self._shelf.limiter)

    def write_sync(self, offset: int, data: bytes | bytearray) -> None:
        """``write`` for code that runs in a worker thread."""
        span = Span(offset, offset + len(data))
        size = self.size
        if size is not None and span.stop > size:
            raise ValueError(f"stream {self.key}: {span} lies beyond its {size} bytes")
        if self._shelf.ledger.full():
            raise StorageFullError(
                f"writing stream {self.key}: the disk is full",
                hint="free space on the store's disk",
            )
        try:
            while not self._writer().fill(span, memoryview(data)):
                pass
        except OSError as error:
            raise storage_error(error, f"writing stream {self.key}") from error

    def _writer(self) -> StreamWriter:
        return StreamWriter(self._shelf, self.key, self._size, self._source, self._share)

    def draft_sync(self) -> Draft:
        """Begin to write what nobody may read before it was checked. For worker threads.

        Raises:
            StorageError: the disk failed.
        """
        try:
            return Draft(self._shelf, self.key, self._size, self._source)
        except OSError as error:
            raise storage_error(error, f"opening stream {self.key}") from error

    async def reject(self, span: Span) -> bool:
        """Take away what was found to be wrong; False of a blob, which was checked as a whole.

        With it goes what shares a piece with it, whose sum is that of all of the piece.

        Raises:
            StorageError: the disk failed.

        Cancellation: all or nothing; once begun it is carried through.
        """
        mishaps = Mishaps(self._shelf, self.key)
        return await trio.to_thread.run_sync(mishaps.reject, span, limiter=self._shelf.limiter)

    async def set_size(self, size: int) -> None:
        """Say how many bytes the stream has, once that is known.

        Raises:
            SizeMismatchError: another size is known, or bytes beyond this one are present.
            StorageError: the disk failed.

        Cancellation: all or nothing.
        """
        await trio.to_thread.run_sync(self.set_size_sync, size, limiter=self._shelf.limiter)

    def set_size_sync(self, size: int) -> None:
        """``set_size`` for code that runs in a worker thread."""
        try:
            while not self._writer().sized(size):
                pass
        except OSError as error:
            raise storage_error(error, f"sizing stream {self.key}") from error
        self._size = size

    def confirm_sync(self, source: Digest) -> bool:
        """Say of a stream that was written by this handle which blob it was decoded from.

        For worker threads. The blob was checked as a whole meanwhile.

        Returns:
            Whether that is on record now. It is not when a byte may be from anybody else, in this
            process or in another, nor when any was ever taken out.

        Raises:
            StorageError: the disk failed.
        """
        ledger = self._shelf.ledger
        record = ledger.record(self.key)
        if record is None or record.digest is not None:
            return False
        try:
            # Nobody writes now, and who comes next sees the record.
            with locking.gate(ledger.path(self.key, record)):
                alone = self._share.is_all(record)
                return alone and ledger.update(self.key, record, replace(record, source=source))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, f"locking stream {self.key}") from error

    async def discard(self) -> None:
        """Forget all spans and remove the file. A blob that it has become stays.

        Raises:
            StorageError: the disk failed.

        Cancellation: all or nothing; once begun it is carried through.
        """
        record = self._shelf.ledger.record(self.key)
        if record is None:
            return
        try:
            await trio.to_thread.run_sync(
                self._shelf.discard, self.key, record, limiter=self._shelf.limiter
            )
        except OSError as error:
            raise storage_error(error, f"discarding stream {self.key}") from error

    def try_lock(self, span: Span) -> SpanLock | None:
        """Lock a span against everybody else who locks, here and in other processes.

        It keeps nobody from reading or writing; it says "I am fetching this". A stream with nothing
        left to fetch is always granted.

        Args:
            span: at most 8 MiB.

        Returns:
            The lock, or None when somebody holds a part of the span.
        """
        record = self._shelf.ledger.record(self.key)
        if record is None or record.digest is not None:
            return SpanLock(None)
        try:
            return locking.try_lock(self._path(record)[0], span)
        except FileNotFoundError:
            return SpanLock(None)
        except OSError as error:
            raise storage_error(error, f"locking stream {self.key}") from error

    def signed(self) -> int:
        """When who has a lock on it left the last sign, in ns since the epoch; 0 where none did."""
        record = self._shelf.ledger.record(self.key)
        try:
            return 0 if record is None else self._path(record)[0].stat().st_mtime_ns
        except OSError:
            return 0  # the file is gone: then there is no lock either
