"""Removing items, whole or in part: the records first, then the bytes.

What somebody holds stays. What a crash leaves between records and bytes is found by a note, which
the transaction writes that removes the records: whoever opens the store alone finishes it.

A blob is claimed until its file has gone, and who admits one holds it while he names its file: so
nobody removes the file of a blob that has just come again. A stream's file is removed with its gate
held, so that nothing is recorded of it afterwards.
"""

import logging
import struct
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.disk import locking
from cafs.store.disk.door import remove
from cafs.store.disk.files import erase, punch
from cafs.store.disk.layout import Layout
from cafs.store.holds.holds import Holds
from cafs.store.streams.shelf import Shelf
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.counters import charge
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import PIECE
from cafs.store.tables.uses import UseTable

BATCH: Final = 256
"""Items removed in one transaction: most of what one costs is its own, and each is synced."""
_RANGES: Final = 64
"""Ranges of a stream taken out with its gate held."""
_ERASERS: Final = 4
_FEW: Final = 16
"""Files that are removed one after the other; more, by several threads."""
_SPAN: Final = struct.Struct(">QQ")
_END: Final = b"\xff" * 64
_LOG: Final = logging.getLogger("cafs.store")


class _Stream(msgspec.Struct, frozen=True):
    """A stream that is to go, whose gate is held."""

    key: StreamKey
    record: StreamRecord
    count: int


class Remover:
    """Removes items that nobody holds. Everything here blocks; for worker threads.

    Concurrency: any number of threads and processes.
    """

    def __init__(
        self, layout: Layout, index: Environment, shelf: Shelf, records: BlobRecords, holds: Holds
    ) -> None:
        self._layout = layout
        self._index = index
        self._shelf = shelf
        self._records = records
        self._holds = holds
        self._uses = UseTable(index)
        self._notes = index.table("condemned")
        self._lock = threading.Lock()
        self._settled: list[bytes] = []
        """Notes of what has been done; the next transaction forgets them. With the lock alone."""
        self.holes = True
        """Whether the file system gives back the space of parts of files, as far as is known."""

    def remove(self, items: Sequence[Item]) -> int:
        """Remove items, at most ``BATCH``; those that somebody holds, or that are not here, stay.

        Returns:
            Bytes that were freed.

        Raises:
            StorageError: the records cannot be changed; nothing has been removed.
            OSError: the disk failed; what remains is removed by whoever opens the store alone.
        """
        names = [(item, name) for item in items for name in self.names(item)]
        wanted = [(name, None) for _, name in names]
        with self._lock, self._holds.claim(wanted) as claimed, ExitStack() as gates:
            held = {item for (item, _), got in zip(names, claimed, strict=True) if not got}
            ours = [item for item in items if item not in held]
            streams = [each for item in ours if (each := self._gated(item, gates)) is not None]
            digests = [item.digest for item in ours if item.digest is not None]
            freed, gone = self._index.apply(
                lambda batch: self._strike(batch, digests, streams), urgent=True
            )
            self._settled.clear()
            for each in gone:
                self._shelf.ledger.settle(each.key, each.record)
                self._shelf.forget(each.key, each.record)
            files = [self._shelf.ledger.path(each.key, each.record) for each in gone]
            self._erase([*files, *map(self._layout.blob, digests)])
            self._settled += [b"b" + digest.raw for digest in digests]
        return freed

    def _erase(self, paths: Sequence[Path]) -> None:
        """Remove files. Of small ones that takes longest, and the file system's time.

        Raises:
            OSError: one of them cannot be removed; the others are.
        """
        for path in paths:
            self._shelf.files.forget(path)
        if len(paths) <= _FEW:
            _erase_all(paths)
            return
        with ThreadPoolExecutor(_ERASERS) as erasers:
            shares = [paths[number::_ERASERS] for number in range(_ERASERS)]
            list(erasers.map(_erase_all, shares))  # here what one has raised is raised

    def names(self, item: Item) -> list[Item]:
        """An item, and all others that are it, or were: who holds one of them holds it."""
        if item.digest is not None:
            return self._records.items(item.digest)
        with self._index.read() as snapshot:
            use = self._uses.get(snapshot, item)
        return [item] if use is None or use.former is None else [item, Item.blob(use.former)]

    def _gated(self, item: Item, gates: ExitStack) -> _Stream | None:
        """The stream of an item, with its gate held; None for a blob, or where none is."""
        key = item.stream_key
        record = None if key is None else self._shelf.ledger.record(key)
        if key is None or record is None or record.digest is not None:
            return None
        with suppress(FileNotFoundError):
            gates.enter_context(locking.gate(self._shelf.ledger.path(key, record)))
        return _Stream(key, record, self._shelf.ledger.present(key).total)

    def _strike(
        self, batch: Batch, digests: Iterable[Digest], streams: Iterable[_Stream]
    ) -> tuple[int, list[_Stream]]:
        """Remove the records, and note what is to be done afterwards."""
        self._forget(batch, self._settled)
        freed = 0
        for digest in digests:
            size = self._records.size_in(batch, digest)
            if self._records.take_out(batch, digest):
                batch.put(self._notes, b"b" + digest.raw, b"")
                freed += charge(size)
        ledger = self._shelf.ledger
        gone = [each for each in streams if ledger.strike(batch, each.key, each.record)]
        return freed + sum(each.count for each in gone), gone

    def _forget(self, batch: Batch, notes: Iterable[bytes]) -> None:
        for key in notes:
            batch.delete(self._notes, key)

    def cut(self, key: StreamKey, spans: Sequence[Span]) -> int:
        """Take spans out of a stream, and give their space back; parts that somebody holds stay.

        Some at a time: who writes into the stream, or any records, waits for no more than those.

        Args:
            key: the stream.
            spans: their ends are multiples of ``PIECE``, or the end of the stream.

        Returns:
            Bytes that were freed: none where the file system cannot do that.

        Raises:
            StorageError: the records cannot be changed; nothing has been removed.
            OSError: the disk failed; what remains is freed by whoever opens the store alone.
        """
        starts = range(0, len(spans), _RANGES)
        return sum(self._cut_some(key, spans[start : start + _RANGES]) for start in starts)

    def _cut_some(self, key: StreamKey, spans: Sequence[Span]) -> int:
        names, ledger = self.names(Item.stream(key)), self._shelf.ledger
        wanted = [(name, span) for name in names for span in spans]
        with self._lock, self._holds.claim(wanted) as claimed:
            held = {span for (_, span), got in zip(wanted, claimed, strict=True) if not got}
            ours = [span for span in spans if span not in held]
            record = ledger.record(key)
            if not ours or record is None or record.digest is not None:
                return 0
            try:
                with locking.gate(ledger.path(key, record)) as descriptor:
                    return self._cut(key, record, ours, descriptor)
            except FileNotFoundError:
                return 0

    def _cut(
        self, key: StreamKey, record: StreamRecord, spans: Sequence[Span], descriptor: int
    ) -> int:
        ledger = self._shelf.ledger
        present = ledger.present(key)
        count = sum(present.intersection(span).total for span in spans)
        prefix = b"s" + bytes.fromhex(key) + record.file
        notes = {prefix + _SPAN.pack(span.start, span.stop): span for span in spans}

        def note(batch: Batch) -> None:
            self._forget(batch, self._settled)
            for each in notes:
                batch.put(self._notes, each, b"")

        if not ledger.take_out(key, record, spans, note):
            return 0
        around = [span.align(PIECE) for span in spans]
        if all(punch(descriptor, span) for span in around):
            ledger.drafts.forget(key, record, around)  # those have gone too
        else:
            self.holes = False
            count = 0
        self._settled[:] = notes
        return count

    def finish(self) -> None:
        """Do what crashes have left undone; only for who is alone with the store.

        What the disk refuses is logged, and done the next time.

        Raises:
            StorageError: the records cannot be read or changed.
        """
        with self._index.read() as snapshot:
            notes = [key for key, _ in snapshot.scan(self._notes, b"", _END)]
        done = [key for key in notes if self._finished(key)]
        for start in range(0, len(done), BATCH):
            forget = partial(self._forget, notes=done[start : start + BATCH])
            self._index.apply(forget, urgent=True)

    def _finished(self, note: bytes) -> bool:
        try:
            if note[:1] == b"b":
                self._finish_blob(Item(note))
            else:
                self._finish_stream(StreamKey(note[1:33].hex()), note[33:41], note[41:])
        except OSError as error:
            _LOG.warning("store.removal.unfinished path=%s error=%s", self._layout.root, error)
            return False
        return True

    def _finish_blob(self, item: Item) -> None:
        digest = item.digest
        if digest is not None and self._records.get(digest) is None:
            remove(self._layout.blob(digest))

    def _finish_stream(self, key: StreamKey, file: bytes, raw_span: bytes) -> None:
        ledger = self._shelf.ledger
        record = ledger.record(key)
        if record is None or record.digest is not None or record.file != file:
            return
        with suppress(FileNotFoundError), locking.gate(ledger.path(key, record)) as descriptor:
            gaps = ledger.present(key).missing(Span(*_SPAN.unpack(raw_span)))
            if all(punch(descriptor, gap) for gap in gaps):
                ledger.drafts.forget(key, record, gaps)


def _erase_all(paths: Iterable[Path]) -> None:
    failures: list[OSError] = []
    for path in paths:
        try:
            erase(path)
        except OSError as error:
            failures.append(error)
    if failures:
        raise failures[0]
