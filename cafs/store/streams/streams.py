"""Streams: found by key, made where they are absent, held while they are used."""

from contextlib import AbstractAsyncContextManager
from functools import partial

import trio

from cafs.errors import SizeMismatchError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.disk import locking
from cafs.store.disk.files import storage_error
from cafs.store.disk.locking import SpanLock
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.stream import Stream
from cafs.store.tables.records import StreamRecord


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
