"""Drafts: bytes that lie in a stream's file and are no part of it yet.

Who decodes more than fits into memory knows only at its end whether it is right. A draft lets him
write it where it will be, and record it, with its sums, when it has been checked; until then nobody
can read a byte of it. Where another process has written the same meanwhile, that stays; and what
another draft has overwritten is told by the sums, as damage on the disk is.

What a crash leaves of a draft takes space, and is nothing, until it is written again, or the stream
goes.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cafs.errors import StorageFullError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store import locking, sums
from cafs.store.files import punch, storage_error, write_whole
from cafs.store.records import StreamRecord
from cafs.store.shelf import Shelf
from cafs.store.sums import Piece


class Draft:
    """What is written of one stream before it counts.

    Concurrency: one worker thread.
    """

    def __init__(
        self, shelf: Shelf, key: StreamKey, size: int | None, source: Digest | None
    ) -> None:
        self._shelf = shelf
        self._key = key
        self._source = source
        self._record = shelf.ledger.record(key) or shelf.ledger.create(key, size, source)
        self._written: list[tuple[Span, list[Piece]]] = []
        self._void = self._record.digest is not None or self._mixes(self._record)

    def _mixes(self, record: StreamRecord) -> bool:
        """Whether what is there comes from elsewhere than what is to be written."""
        return record.source not in {None, self._source}

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write bytes where nothing is present.

        Raises:
            StorageFullError: the disk is full.
            StorageError: the disk failed.
        """
        span, view = Span(offset, offset + len(data)), memoryview(data)
        ledger = self._shelf.ledger
        if ledger.full():
            raise StorageFullError(
                f"writing stream {self._key}: the disk is full",
                hint="free space on the store's disk",
            )
        with self._gate() as descriptor:
            for gap in () if descriptor is None else ledger.missing(self._key, self._record, span):
                part = view[gap.start - offset : gap.stop - offset]
                self._written.append((gap, sums.pieces_of(gap.start, part)))
                write_whole(descriptor or 0, gap.start, part)

    def keep(self) -> bool:
        """Record what was written, now that it is known to be right.

        Returns:
            whether that was possible: not when the stream is another by now.

        Raises:
            StorageFullError: there is no room for the records; what has none is dropped.
            StorageError: the disk failed.
        """
        ledger, record = self._shelf.ledger, self._record
        with self._gate() as descriptor:
            while descriptor is not None and self._written:
                gap, pieces = self._written[-1]
                if ledger.missing(self._key, record, gap).covers(gap):
                    ledger.add(self._key, record, gap, pieces)
                    self._shelf.filled(record, gap.length)
                self._written.pop()
        return not self._void

    def drop(self) -> None:
        """Let go of what was written: it is wrong, or nobody wants it.

        Raises:
            StorageError: the disk failed; then it takes space until it is written again.
        """
        with self._gate() as descriptor:
            for gap, _ in () if descriptor is None else self._written:
                for hole in self._shelf.ledger.missing(self._key, self._record, gap):
                    punch(descriptor or 0, hole)
        self._written.clear()

    @contextmanager
    def _gate(self) -> Iterator[int | None]:
        """The stream's file, with its gate held; None once the stream is another.

        Raises:
            StorageError: the disk failed.
        """
        if self._void:
            yield None
            return
        ledger, record = self._shelf.ledger, self._record
        try:
            descriptor = os.open(ledger.path(self._key, record), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            self._void = True
            yield None
            return
        except OSError as error:
            raise storage_error(error, f"opening stream {self._key}") from error
        try:
            locking.hold_gate(descriptor)
            short = os.fstat(descriptor).st_size < (record.size or 0)
            self._void = short or ledger.record(self._key) != record
            yield None if self._void else descriptor
        except OSError as error:
            raise storage_error(error, f"writing stream {self._key}") from error
        finally:
            os.close(descriptor)
