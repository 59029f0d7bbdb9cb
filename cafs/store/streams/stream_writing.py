"""Writing into a stream: bytes, then the record that they are there, under the gate of its file."""

import os
from contextlib import suppress
from dataclasses import replace

from cafs.errors import SizeMismatchError, StorageError, StorageFullError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.disk import locking
from cafs.store.disk.files import punch, write_whole
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.witness import Share
from cafs.store.tables import sums
from cafs.store.tables.records import StreamRecord


class StreamWriter:
    """Fills one stream. Each step may find that the record is another by now, and says so.

    ``size`` is what a stream that has to be made gets, ``source`` the blob that what is written was
    decoded from. ``share`` counts what was written.

    Concurrency: any number of threads and processes.
    """

    __slots__ = ("_key", "_share", "_shelf", "_size", "_source")

    def __init__(
        self, shelf: Shelf, key: StreamKey, size: int | None, source: Digest | None, share: Share
    ) -> None:
        self._shelf = shelf
        self._key = key
        self._size = size
        self._source = source
        self._share = share

    def fill(self, span: Span, data: memoryview) -> bool:
        """Fill what is missing of the span; False when the record changed meanwhile.

        Raises:
            SizeMismatchError: it lies beyond the stream's size.
        """
        ledger = self._shelf.ledger
        record = ledger.record(self._key) or ledger.create(self._key, self._size, self._source)
        if record.size is not None and span.stop > record.size:
            what = f"stream {self._key}"
            raise SizeMismatchError(what, expected=record.size, actual=span.stop)
        if record.digest is not None:
            if ledger.intact(self._key, record):
                return True
            self._shelf.discard(self._key, record)
            return False
        try:
            with locking.gate(ledger.path(self._key, record)) as descriptor:
                if ledger.record(self._key) != record or self._mixes(record):
                    return False
                if record.size is not None and os.fstat(descriptor).st_size < record.size:
                    self._shelf.discard(self._key, record)
                    return False
                for gap in ledger.missing(self._key, record, span):
                    part = data[gap.start - span.start : gap.stop - span.start]
                    self._put(descriptor, record, gap, part)
                return True
        except FileNotFoundError:
            self._shelf.discard(self._key, record)
            return False

    def _put(self, descriptor: int, record: StreamRecord, gap: Span, data: memoryview) -> None:
        """Write bytes and record them; what cannot be recorded takes no space. Holds the gate."""
        try:
            write_whole(descriptor, gap.start, data)
            self._shelf.ledger.add(self._key, record, gap, sums.pieces_of(gap.start, data))
        except (OSError, StorageFullError):
            self._give_back(descriptor, record, gap)
            raise
        self._shelf.filled(record, gap.length)
        self._share.add(record, gap.length)

    def _give_back(self, descriptor: int, record: StreamRecord, gap: Span) -> None:
        """Give back the space of what is not recorded, and of what was drafted there."""
        with suppress(OSError, StorageError):  # then it takes space until it is written again
            if punch(descriptor, gap):
                self._shelf.ledger.drafts.forget(self._key, record, [gap])

    def _mixes(self, record: StreamRecord) -> bool:
        """Whether what is to be written comes from elsewhere than what is there.

        Then nothing stands behind the whole any more, and that is on record before it is written.
        """
        if record.source in {None, self._source}:
            return False
        self._shelf.ledger.update(self._key, record, replace(record, source=None))
        return True

    def sized(self, size: int) -> bool:
        """Whether the stream has that size now; False when its record changed meanwhile."""
        ledger = self._shelf.ledger
        record = ledger.record(self._key) or ledger.create(self._key, size)
        known = record.size
        if known is None:
            known = max(size, *ledger.present(self._key).bounds, 0)
        if known != size:
            raise SizeMismatchError(f"stream {self._key}", expected=known, actual=size)
        return record.size == size or self._resize(record, size)

    def _resize(self, record: StreamRecord, size: int) -> bool:
        """Cut the file to its size, or make it as long; False when anything changed meanwhile."""
        ledger = self._shelf.ledger
        try:
            with locking.gate(ledger.path(self._key, record)) as descriptor:
                now, written = ledger.record(self._key), ledger.present(self._key)
                if now != record or max(written.bounds, default=0) > size:
                    return False
                os.ftruncate(descriptor, size)
                return ledger.update(self._key, record, replace(record, size=size))
        except FileNotFoundError:
            self._shelf.discard(self._key, record)
            return False
