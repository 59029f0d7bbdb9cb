"""Streams: byte sequences that are filled by span, and read where they are filled.

A hole is never read as zeros: a read looks up, reads, and looks up again; where the record has
changed between, it starts over. Bytes that are present are never overwritten: a write fills what is
missing and leaves the rest, so what was verified stays what it was.
"""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from cafs.errors import SizeMismatchError, StorageFullError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.model.trust import ANYTHING, Need
from cafs.store import locking, sums
from cafs.store.door import CLOSED, open_file
from cafs.store.drafting import Draft
from cafs.store.files import punch, storage_error, write_whole
from cafs.store.locking import SpanLock
from cafs.store.records import Incarnation, StreamRecord
from cafs.store.shelf import Shelf
from cafs.store.sums import Piece
from cafs.store.witness import Share

_LOG: Final = logging.getLogger("cafs.store")


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
            descriptor = open_file(ledger.path(self.key, record), os.O_RDWR)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, f"opening stream {self.key}") from error
        try:
            locking.hold_gate(descriptor)
            now = ledger.record(self.key)
        except OSError as error:
            raise storage_error(error, f"locking stream {self.key}") from error
        finally:
            os.close(descriptor)
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
            change = self._amiss(record, wanted, wider, data, pieces)
            if failure is not None:
                change = partial(self._give_up, record, failure)
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

    def _amiss(
        self, record: StreamRecord, wanted: Span, wider: Span, data: bytes, pieces: list[Piece]
    ) -> Callable[[], None] | None:
        """What is to be done about bytes that are not what was written; None when they are."""
        if len(data) < wider.length:
            return partial(self._reconsider, record, wider.stop)
        if (bad := sums.damaged(wider.start, data, pieces)) is not None:
            return partial(self._lose, record, bad.span)
        if record.digest is None and (gap := sums.unsummed(wanted, pieces)) is not None:
            return partial(self._lose, record, gap)
        return None

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
            while not self._fill(span, memoryview(data)):
                pass
        except OSError as error:
            raise storage_error(error, f"writing stream {self.key}") from error

    def draft_sync(self) -> Draft:
        """Begin to write what nobody may read before it was checked. For worker threads.

        Raises:
            StorageError: the disk failed.
        """
        try:
            return Draft(self._shelf, self.key, self._size, self._source)
        except OSError as error:
            raise storage_error(error, f"opening stream {self.key}") from error

    def _fill(self, span: Span, data: memoryview) -> bool:
        """Fill what is missing of the span; False when the record changed meanwhile."""
        ledger = self._shelf.ledger
        record = ledger.record(self.key) or ledger.create(self.key, self._size, self._source)
        if record.digest is not None:
            if ledger.intact(self.key, record):
                return True
            self._void(record)
            return False
        try:
            descriptor = open_file(self._path(record)[0], os.O_RDWR)
        except FileNotFoundError:
            self._void(record)
            return False
        try:
            locking.hold_gate(descriptor)
            if ledger.record(self.key) != record or self._mixes(record):
                return False
            if record.size is not None and os.fstat(descriptor).st_size < record.size:
                self._void(record)
                return False
            for gap in ledger.missing(self.key, record, span):
                part = data[gap.start - span.start : gap.stop - span.start]
                self._put(descriptor, record, gap, part)
            return True
        finally:
            os.close(descriptor)

    def _put(self, descriptor: int, record: StreamRecord, gap: Span, data: memoryview) -> None:
        """Write bytes and record them; what cannot be recorded takes no space. Holds the gate."""
        try:
            write_whole(descriptor, gap.start, data)
            self._shelf.ledger.add(self.key, record, gap, sums.pieces_of(gap.start, data))
        except (OSError, StorageFullError):
            with suppress(OSError):  # then it takes space until it is written again
                punch(descriptor, gap)
            raise
        self._shelf.filled(record, gap.length)
        self._share.add(record, gap.length)

    def _mixes(self, record: StreamRecord) -> bool:
        """Whether what is to be written comes from elsewhere than what is there.

        Then nothing stands behind the whole any more, and that is on record before it is written.
        """
        if record.source in {None, self._source}:
            return False
        self._shelf.ledger.update(self.key, record, replace(record, source=None))
        return True

    def _reconsider(self, record: StreamRecord, stop: int) -> None:
        """A read fell short: was it a former file, still open, or is this one damaged?"""
        ledger = self._shelf.ledger
        self._shelf.files.forget(ledger.path(self.key, record))
        if not ledger.intact(self.key, record, stop):
            self._void(record)

    def _lose(self, record: StreamRecord, bad: Span) -> None:
        """The disk has changed bytes, or what says what they were: they are absent from now on.

        A read sees two environments, one after the other: what was let go of in between seemed to
        be there, and reads as zeros. So it is looked at again where nothing is let go of.
        """
        shelf = self._shelf
        if record.digest is not None:
            _LOG.warning("store.stream.damaged stream=%s span=%s", self.key, bad)
            shelf.demotion.demote(record.digest, [bad], self.key)
            return
        try:
            descriptor = open_file(self._path(record)[0], os.O_RDWR)
        except FileNotFoundError:
            self._void(record)
            return
        try:
            locking.hold_gate(descriptor)
            if self._is_damaged(descriptor, record, bad):
                known = partial(self._pieces, record)
                lost = SpanSet(shelf.suspicion.follow(self.key, descriptor, bad, known))
                _LOG.warning("store.stream.damaged stream=%s lost=%s", self.key, lost)
                shelf.ledger.take_out(self.key, record, lost)
        finally:
            os.close(descriptor)

    def _pieces(self, record: StreamRecord, span: Span) -> list[Piece]:
        return self._shelf.ledger.known(self.key, record, span)[1]

    def _give_up(self, record: StreamRecord, failure: OSError) -> None:
        """The file may not be opened: it is of no use."""
        shelf, what = self._shelf, f"it cannot be read: {failure.strerror}"
        if record.digest is not None:
            shelf.demotion.put_aside(record.digest, record.size or 0, what)
            return
        _LOG.warning("store.stream.damaged stream=%s: %s", self.key, what)
        self._void(record)

    async def reject(self, span: Span) -> bool:
        """Take away what was found to be wrong; False of a blob, which was checked as a whole.

        With it goes what shares a piece with it, whose sum is that of all of the piece.

        Raises:
            StorageError: the disk failed.

        Cancellation: all or nothing; once begun it is carried through.
        """
        return await trio.to_thread.run_sync(self._reject, span, limiter=self._shelf.limiter)

    def _reject(self, span: Span) -> bool:
        ledger = self._shelf.ledger
        while (record := ledger.record(self.key)) is not None:
            if record.digest is not None:
                return False
            try:
                descriptor = open_file(self._path(record)[0], os.O_RDWR)
            except FileNotFoundError:
                self._void(record)
                return True
            except OSError as error:
                raise storage_error(error, f"opening stream {self.key}") from error
            try:
                locking.hold_gate(descriptor)
                if ledger.take_out(self.key, record, [span.align(sums.PIECE)]):
                    return True
            finally:
                os.close(descriptor)
        return True

    def _is_damaged(self, descriptor: int, record: StreamRecord, span: Span) -> bool:
        """Whether a span is there, and is not what it was, or nothing says that. Holds the gate."""
        now, pieces = self._shelf.ledger.holding(self.key, span) or (None, [])
        if now != record:
            return False
        wider = sums.around(span, pieces)
        data = os.pread(descriptor, wider.length, wider.start)
        changed = sums.damaged(wider.start, data, pieces)
        return changed is not None or sums.unsummed(span, pieces) is not None

    def _void(self, record: StreamRecord) -> None:
        """The file is not as it should be: its records say nothing any more."""
        self._shelf.discard(self.key, record)

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
            while not self._sized(size):
                pass
        except OSError as error:
            raise storage_error(error, f"sizing stream {self.key}") from error
        self._size = size

    def _sized(self, size: int) -> bool:
        """Whether the stream has that size now; False when its record changed meanwhile."""
        ledger = self._shelf.ledger
        record = ledger.record(self.key) or ledger.create(self.key, size)
        known = record.size
        if known is None:
            known = max(size, *ledger.present(self.key).bounds, 0)
        if known != size:
            raise SizeMismatchError(f"stream {self.key}", expected=known, actual=size)
        return record.size == size or self._resize(record, size)

    def _resize(self, record: StreamRecord, size: int) -> bool:
        ledger = self._shelf.ledger
        try:
            os.truncate(ledger.path(self.key, record), size)
        except FileNotFoundError:
            self._void(record)
            return False
        sized = replace(record, size=size)
        return ledger.update(self.key, record, sized)

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
            descriptor = open_file(ledger.path(self.key, record), os.O_RDWR)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, f"opening stream {self.key}") from error
        try:
            locking.hold_gate(descriptor)  # nobody writes now, and who comes next sees the record
            alone = self._share.is_all(record)
            return alone and ledger.update(self.key, record, replace(record, source=source))
        except OSError as error:
            raise storage_error(error, f"locking stream {self.key}") from error
        finally:
            os.close(descriptor)

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
            await trio.to_thread.run_sync(self._void, record, limiter=self._shelf.limiter)
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
        ledger = self._shelf.ledger
        record = ledger.record(self.key)
        if record is None or record.digest is not None:
            return SpanLock(None)
        try:
            return locking.try_lock(self._path(record)[0], span)
        except FileNotFoundError:
            return SpanLock(None)
        except OSError as error:
            raise storage_error(error, f"locking stream {self.key}") from error


class Streams:
    """The streams of a store, by key.

    Concurrency: any number of tasks, threads and processes.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def find(self, key: StreamKey) -> Stream | None:
        """The stream, None when the store has none of that key, or has lost its file."""
        record = self._shelf.ledger.record(key)
        if record is None or not self._shelf.ledger.intact(key, record):
            return None
        return Stream(self._shelf, key, record.size)

    def hold(self, key: StreamKey, span: Span | None = None) -> AbstractAsyncContextManager[None]:
        """Keep a stream, or what lies around a span of it, from being removed to make room.

        As ``Holds.hold``. What it becomes is another item.
        """
        return self._shelf.holds.hold(Item.stream(key), span)

    def try_lock_new(self, key: StreamKey) -> SpanLock | None:
        """Lock content that has no stream yet, and may never need one, against all who lock it so.

        It says "I am fetching this", as ``Stream.try_lock`` does.

        Returns:
            The lock, or None when somebody holds it.

        Raises:
            StorageError: the disk failed.
        """
        place = int(key[:12], 16)
        try:
            path = self._shelf.ledger.arrivals
            return locking.try_lock(path, Span(place, place + 1), create=True)
        except OSError as error:
            raise storage_error(error, f"locking stream {key}") from error

    async def open(self, key: StreamKey, size: int | None, source: Digest | None = None) -> Stream:
        """The stream, made when it is absent or has lost its file.

        Args:
            key: names the stream's content.
            size: bytes, None while unknown.
            source: the verified blob that everything is decoded from which will be written by this
                handle. A stream that has anything else behind it is begun anew.

        Raises:
            SizeMismatchError: it is a verified blob of another size.
            StorageFullError: no space for it.

        Cancellation: the stream may have been made, with nothing in it.
        """
        return await trio.to_thread.run_sync(
            partial(self._open, key, size, source), limiter=self._shelf.limiter
        )

    def _open(self, key: StreamKey, size: int | None, source: Digest | None) -> Stream:
        try:
            record = self._usable(key, size)
            if record is not None and source is not None and record.behind != source:
                self._shelf.discard(key, record)
                record = None
            record = record or self._shelf.ledger.create(key, size, source)
        except OSError as error:
            raise storage_error(error, f"opening stream {key}") from error
        stream = Stream(self._shelf, key, record.size, source)
        if record.size is None and size is not None:
            stream.set_size_sync(size)
        return stream

    def _usable(self, key: StreamKey, size: int | None) -> StreamRecord | None:
        """The record, unless it is void: without its file, or of another size.

        Who promised that size may have lied, or this caller's source may: nothing of it has been
        verified, and to refuse would be for ever.
        """
        record = self._shelf.ledger.record(key)
        if record is None:
            return None
        known = record.size
        if not self._shelf.ledger.intact(key, record):
            self._shelf.discard(key, record)
            return None
        if size is None or known is None or size == known:
            return record
        if record.digest is not None:
            raise SizeMismatchError(f"stream {key}", expected=known, actual=size)
        self._shelf.discard(key, record)
        return None
