"""Drafts: bytes that lie in a stream's file and are no part of it yet.

Who decodes more than fits into memory knows only at its end whether it is right. A draft lets him
write it where it will be, and record it, with its sums, when it has been checked; until then nobody
can read a byte of it. Where somebody else has written the same meanwhile, that stays.

Two may draft the same, and one of them something wrong. So what is recorded is read again, while
nobody can write, and must have the digest of what was written there: sums tell what a disk does,
and not what somebody has thought out.

What is drafted counts against the quota as what is present does. What a crash leaves of a draft
takes space, counts, and is nothing, until it is written again, or the stream goes, or somebody
sweeps (``sweeping``).
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import msgspec

from cafs.errors import SizeMismatchError, StorageFullError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.disk import locking
from cafs.store.disk.door import open_file
from cafs.store.disk.files import punch, storage_error, write_whole
from cafs.store.streams.shelf import Shelf
from cafs.store.tables import sums
from cafs.store.tables.records import StreamRecord

_PIECE: Final = 4 << 20
"""Bytes that are written, and kept, at once: others wait for no more."""


class _Written(msgspec.Struct, frozen=True):
    """Bytes that were written where nothing was: where, and their digest."""

    span: Span
    digest: bytes

    def found(self, descriptor: int) -> memoryview | None:
        """They, if they still lie there."""
        data = os.pread(descriptor, self.span.length, self.span.start)
        return memoryview(data) if hashlib.sha256(data).digest() == self.digest else None


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
        self._written: list[_Written] = []
        self._void = self._record.digest is not None or self._mixes(self._record)

    def _mixes(self, record: StreamRecord) -> bool:
        """Whether what is there comes from elsewhere than what is to be written."""
        return record.source not in {None, self._source}

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write bytes where nothing is present.

        Raises:
            SizeMismatchError: the stream has fewer bytes, as far as that is known by now.
            StorageFullError: the disk is full.
            StorageError: the disk failed.
        """
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            self._write(offset + start, view[start : start + _PIECE])
        self._shelf.grown()

    def _write(self, offset: int, view: memoryview) -> None:
        span = Span(offset, offset + len(view))
        ledger = self._shelf.ledger
        if ledger.full():
            raise StorageFullError(
                f"writing stream {self._key}: the disk is full",
                hint="free space on the store's disk",
            )
        with self._gate() as descriptor:
            if descriptor is None:
                return
            self._check_inside(span)
            for gap in ledger.missing(self._key, self._record, span):
                part = view[gap.start - offset : gap.stop - offset]
                self._written.append(_Written(gap, hashlib.sha256(part).digest()))
                write_whole(descriptor, gap.start, part)
                ledger.drafts.note(self._key, self._record, gap)

    def _check_inside(self, span: Span) -> None:
        """Refuse what lies beyond the stream's size, which may have become known meanwhile."""
        size = self._record.size
        if size is not None and span.stop > size:
            raise SizeMismatchError(f"stream {self._key}", expected=size, actual=span.stop)

    def keep(self) -> bool:
        """Record what was written, now that it is known to be right.

        Returns:
            whether that was possible: not when the stream is another by now, or when somebody else
            has overwritten some of it; that part is not there then.

        Raises:
            SizeMismatchError: the stream has fewer bytes; that became known meanwhile.
            StorageFullError: there is no room for the records; what has none is dropped.
            StorageError: the disk failed.
        """
        kept = True
        while self._written and not self._void:
            with self._gate() as descriptor:  # each alone: others write in between
                if descriptor is not None:
                    kept = self._keep(descriptor, self._written[-1]) and kept
                    self._written.pop()
        return kept and not self._void

    def _keep(self, descriptor: int, written: _Written) -> bool:
        """Record one part; False when it has been overwritten. Holds the gate."""
        ledger, record, span = self._shelf.ledger, self._record, written.span
        self._check_inside(span)
        missing = ledger.missing(self._key, record, span)
        if not missing:
            return True  # somebody was faster, and has been checked like this
        data = written.found(descriptor)
        if data is None:
            return False
        for gap in missing:
            part = data[gap.start - span.start : gap.stop - span.start]
            ledger.add(self._key, record, gap, sums.pieces_of(gap.start, part))
            self._shelf.filled(record, gap.length)
        return True

    def drop(self) -> None:
        """Let go of what was written: it is wrong, or nobody wants it.

        Raises:
            StorageError: the disk failed; then it takes space until it is written again.
        """
        with self._gate() as descriptor:
            for each in () if descriptor is None else self._written:
                self._let_go(descriptor or 0, each)
        self._written.clear()

    def _let_go(self, descriptor: int, written: _Written) -> None:
        """Give back the space of what shall be no part of the stream. Holds the gate."""
        ledger, span = self._shelf.ledger, written.span
        holes = ledger.missing(self._key, self._record, span)
        if all(punch(descriptor, hole) for hole in holes):
            ledger.drafts.forget(self._key, self._record, [span])

    @contextmanager
    def _gate(self) -> Iterator[int | None]:
        """The stream's file, with its gate held; None once the stream is another.

        It is the same one when something was taken out of it elsewhere, or its size became known:
        what was drafted is not affected, and where it might be, that is seen when it is kept.

        Raises:
            StorageError: the disk failed.
        """
        if self._void:
            yield None
            return
        ledger, record = self._shelf.ledger, self._record
        try:
            descriptor = open_file(ledger.path(self._key, record), os.O_RDWR)
        except FileNotFoundError:
            self._void = True
            yield None
            return
        except OSError as error:
            raise storage_error(error, f"opening stream {self._key}") from error
        try:
            locking.hold_gate(descriptor)
            now = ledger.record(self._key)
            if now is None or not _same(now, record):
                self._void = True
            else:
                self._record = now
                self._void = os.fstat(descriptor).st_size < (now.size or 0)
            yield None if self._void else descriptor
        except OSError as error:
            raise storage_error(error, f"writing stream {self._key}") from error
        finally:
            os.close(descriptor)


def _same(now: StreamRecord, then: StreamRecord) -> bool:
    """Whether it is the same file, with the same behind it, and no blob."""
    return now == replace(then, generation=now.generation, size=now.size)
