"""Checking streams: what is present of them, by its sums. What is wrong is absent afterwards."""

import logging
import os
from collections.abc import Iterable
from contextlib import closing
from typing import Final

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.disk import locking
from cafs.store.disk.door import UNREADABLE, open_file
from cafs.store.health.checking import Found, Look, changed, joined, unreadable, wrong
from cafs.store.health.leafing import CHUNK
from cafs.store.streams.shelf import Shelf
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.presence import Presence, owner_of
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import GROUP, Piece

_LOG: Final = logging.getLogger("cafs.store")
_WINDOW: Final = 16 * GROUP
"""Bytes of a stream whose records are looked up together."""


class StreamChecker:
    """Checks streams. Everything is looked up anew: others may remove and add meanwhile.

    Concurrency: any number of threads, each with a look of its own.
    """

    def __init__(
        self, index: Environment, recent: Environment, shelf: Shelf, records: BlobRecords
    ) -> None:
        self._index = index
        self._recent = recent
        self._shelf = shelf
        self._records = records
        self._durable = Presence(index)
        self._fresh = Presence(recent)

    def check(self, key: StreamKey, look: Look) -> Found | None:
        """Check what is present of a stream, all or what is chosen. Blocks.

        Raises:
            OSError: the disk failed.
            StorageError: the records cannot be read or written.
        """
        # Held, so that nobody takes anything of it meanwhile to make room.
        with self._shelf.holds.hold_here(Item.stream(key)):
            return self._check(key, look)

    def _check(self, key: StreamKey, look: Look) -> Found | None:
        ledger = self._shelf.ledger
        record = ledger.record(key)
        if record is None:
            return None
        if record.digest is not None:
            if self._records.get(record.digest) is None and ledger.record(key) == record:
                self._shelf.discard(key, record)  # of a blob that is no more
            return None
        whole = ledger.whole(key, record)
        try:
            descriptor = open_file(ledger.path(key, record))
        except FileNotFoundError:
            return self._void(key, record, "its file is not there", whole=whole)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            what = f"it cannot be read: {error.strerror}"
            return self._void(key, record, what, whole=whole, closed=True)
        try:
            size = os.fstat(descriptor).st_size
            if record.size is not None and size < record.size:
                return self._void(
                    key, record, f"its file has {size} of {record.size} bytes", whole=whole
                )
            lost: list[Span] = []
            for at in range(0, size, _WINDOW):
                bad = self._window(key, record, descriptor, Span(at, at + _WINDOW), look)
                if bad:
                    joined(lost, self._take_out(key, record, descriptor, bad))
        finally:
            os.close(descriptor)
        gone = SpanSet(lost)
        return _found(key, record, changed(gone), gone, whole=whole) if gone else None

    def _window(
        self, key: StreamKey, record: StreamRecord, descriptor: int, window: Span, look: Look
    ) -> list[Span]:
        """What is wrong in a part of a stream, or has no sum."""
        present, known = self._shelf.ledger.known(key, record, window)
        item, choose = Item.stream(key), look.choose
        chosen = [
            piece
            for piece in known
            if choose is None or choose(item, piece.start - piece.start % GROUP)
        ]
        bad: list[Span] = []
        try:
            wanted = SpanSet(each.span for each in chosen)
            with closing(look.leafer.read(descriptor, wanted)) as read:
                for offset, data in read:
                    span = Span(offset, offset + len(data))
                    joined(bad, wrong(offset, data, _inside(chosen, span)))
                    look.seen(len(data))
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            bad = list(unreadable(descriptor, chosen))
        return _unsummed(present, known) + bad

    def _take_out(
        self, key: StreamKey, record: StreamRecord, descriptor: int, bad: list[Span]
    ) -> list[Span]:
        """Make absent what is still wrong when nobody writes; what it was."""
        ledger = self._shelf.ledger
        gate = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
        try:
            locking.hold_gate(gate)
            now = ledger.record(key)
            if now is None or now.file != record.file or now.digest is not None:
                return []
            # What somebody has removed reads as zeros, and what came again is right.
            lost = [each for span in bad for each in self._still(key, now, descriptor, span)]
            if not lost or not ledger.take_out(key, now, lost):
                return []
        finally:
            os.close(gate)
        _LOG.warning("store.stream.damaged stream=%s lost=%s", key, SpanSet(lost))
        return lost

    def _still(
        self, key: StreamKey, record: StreamRecord, descriptor: int, span: Span
    ) -> list[Span]:
        found: list[Span] = []
        for start in range(span.start - span.start % CHUNK, span.stop, CHUNK):
            part = Span(start, start + CHUNK)
            present, known = self._shelf.ledger.known(key, record, part)
            try:
                bad = wrong(start, memoryview(os.pread(descriptor, CHUNK, start)), known)
            except OSError as error:
                if error.errno not in UNREADABLE:
                    raise
                bad = list(unreadable(descriptor, known))
            bad += _unsummed(present, known)
            found += [each for each in bad if each.overlaps(span)]
        return sorted(found)

    def _void(
        self,
        key: StreamKey,
        record: StreamRecord,
        what: str,
        *,
        whole: bool,
        closed: bool = False,
    ) -> Found | None:
        """Forget the stream; ``closed`` says that its file is there, but may not be opened."""
        owner, ledger = owner_of(key, record), self._shelf.ledger
        with self._recent.read() as recent, self._index.read() as index:
            lost = self._durable.recorded(index, owner).union(self._fresh.recorded(recent, owner))
        if ledger.record(key) != record or (ledger.intact(key, record) and not closed):
            return None
        self._shelf.discard(key, record)
        return _found(key, record, what, lost, whole=whole) if lost else None


def _unsummed(present: SpanSet, known: Iterable[Piece]) -> list[Span]:
    """What is present, and nothing says what it was: what an old or damaged record left."""
    summed = SpanSet(piece.span for piece in known)
    return [gap for span in present for gap in summed.missing(span)]


def _inside(pieces: Iterable[Piece], span: Span) -> list[Piece]:
    return [each for each in pieces if span.start <= each.start and each.stop <= span.stop]


def _found(key: StreamKey, record: StreamRecord, what: str, lost: SpanSet, *, whole: bool) -> Found:
    return Found(
        item=Item.stream(key),
        what=what,
        lost=lost,
        size=record.size,
        key=key,
        streams=(key,),
        whole=whole,
    )
