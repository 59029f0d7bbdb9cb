"""Mishaps: what becomes of bytes of a stream that are not what was written, or should have been.

They are absent from then on, and fetched again. A file that is no good takes its records with it.
"""

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.disk import locking
from cafs.store.disk.door import open_file
from cafs.store.disk.files import storage_error
from cafs.store.streams.shelf import Shelf
from cafs.store.tables import sums
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import Piece

_LOG: Final = logging.getLogger("cafs.store")


class Mishaps:
    """Those of one stream.

    Concurrency: any number of threads and processes.
    """

    def __init__(self, shelf: Shelf, key: StreamKey) -> None:
        self._shelf = shelf
        self._key = key

    def amiss(
        self,
        record: StreamRecord,
        wanted: Span,
        wider: Span,
        data: bytes,
        pieces: list[Piece],
        *,
        failure: OSError | None,
    ) -> Callable[[], None] | None:
        """What is to be done about what a read gave; None where it is what was written.

        Args:
            record: what the stream was when it was read.
            wanted: what is asked for.
            wider: what was read for it.
            data: what came.
            pieces: what it must be.
            failure: why nothing came, where the file may not be read.
        """
        if failure is not None:
            return partial(self._give_up, record, failure)
        if len(data) < wider.length:
            return partial(self._reconsider, record, wider.stop)
        if (bad := sums.damaged(wider.start, data, pieces)) is not None:
            return partial(self._lose, record, bad.span)
        if record.digest is None and (gap := sums.unsummed(wanted, pieces)) is not None:
            return partial(self._lose, record, gap)
        return None

    def _reconsider(self, record: StreamRecord, stop: int) -> None:
        """A read fell short: was it a former file, still open, or is this one damaged?"""
        ledger = self._shelf.ledger
        self._shelf.files.forget(ledger.path(self._key, record))
        if not ledger.intact(self._key, record, stop):
            self._shelf.discard(self._key, record)

    def _lose(self, record: StreamRecord, bad: Span) -> None:
        """The disk has changed bytes, or what says what they were: they are absent from now on.

        A read sees two environments, one after the other: what was let go of in between seemed to
        be there, and reads as zeros. So it is looked at again where nothing is let go of. A blob is
        too: its file may be another than the one that was open.
        """
        ledger, blob = self._shelf.ledger, record.digest is not None
        path = ledger.path(self._key, record)
        self._shelf.files.forget(path)
        try:
            descriptor = open_file(path, os.O_RDONLY if blob else os.O_RDWR)
        except FileNotFoundError:
            self._shelf.discard(self._key, record)
            return
        try:
            if not blob:
                locking.hold_gate(descriptor)
            if self._is_damaged(descriptor, record, bad):
                self._take_out(descriptor, record, bad)
        finally:
            os.close(descriptor)

    def _take_out(self, descriptor: int, record: StreamRecord, bad: Span) -> None:
        """Make what is wrong absent; a blob is a stream from now on."""
        if record.digest is not None:
            _LOG.warning("store.stream.damaged stream=%s span=%s", self._key, bad)
            self._shelf.demotion.demote(record.digest, [bad], self._key)
            return
        known = partial(self._pieces, record)
        lost = SpanSet(self._shelf.suspicion.follow(self._key, descriptor, bad, known))
        _LOG.warning("store.stream.damaged stream=%s lost=%s", self._key, lost)
        self._shelf.ledger.take_out(self._key, record, lost)

    def _give_up(self, record: StreamRecord, failure: OSError) -> None:
        """The file may not be opened: it is of no use."""
        shelf, what = self._shelf, f"it cannot be read: {failure.strerror}"
        if record.digest is not None:
            shelf.demotion.put_aside(record.digest, record.size or 0, what)
            return
        _LOG.warning("store.stream.damaged stream=%s: %s", self._key, what)
        self._shelf.discard(self._key, record)

    def reject(self, span: Span) -> bool:
        """As ``Stream.reject``."""
        ledger = self._shelf.ledger
        while (record := ledger.record(self._key)) is not None:
            if record.digest is not None:
                return False
            try:
                with locking.gate(ledger.path(self._key, record)):
                    if ledger.take_out(self._key, record, [span.align(sums.PIECE)]):
                        return True
            except FileNotFoundError:
                self._shelf.discard(self._key, record)
                return True
            except OSError as error:
                raise storage_error(error, f"locking stream {self._key}") from error
        return True

    def _is_damaged(self, descriptor: int, record: StreamRecord, span: Span) -> bool:
        """Whether a span is there, and is not what it was, or nothing says that. Holds the gate."""
        now, pieces = self._shelf.ledger.holding(self._key, span) or (None, [])
        if now != record:
            return False
        wider = sums.around(span, pieces)
        data = os.pread(descriptor, wider.length, wider.start)
        changed = sums.damaged(wider.start, data, pieces)
        return changed is not None or sums.unsummed(span, pieces) is not None

    def _pieces(self, record: StreamRecord, span: Span) -> list[Piece]:
        return self._shelf.ledger.known(self._key, record, span)[1]
