"""What is present of each stream: the records behind streams and blobs, and their rules.

Spans of a stream lie in two environments. A write records them in ``recent``, which outlives the
process; a checkpoint moves them to ``index``, which outlives a power cut, after the bytes. What is
present is the union. Reads look at ``recent`` first: a span that leaves it has reached ``index``
before. Removals go the other way, ``index`` first, so that nothing removed comes back. What only
``recent`` has: see ``pending``.

Spans are recorded under the stream's key and the random name of its file; a stream whose record
names another file, or whose file is gone or too short, has none of them.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot
from cafs.store.disk.door import file_size
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import Layout
from cafs.store.tables.drafts import Drafts
from cafs.store.tables.presence import Presence, owner_of
from cafs.store.tables.records import StreamRecord, unpack_stream
from cafs.store.tables.sums import Piece
from cafs.store.tables.uses import UseTable


class Ledger:
    """The records of streams. Reading is quick enough for any thread; changes belong in workers.

    Concurrency: any number of threads and processes.
    """

    def __init__(self, layout: Layout, index: Environment, recent: Environment) -> None:
        self._layout = layout
        self._index = index
        self._recent = recent
        self._blobs = index.table("blobs")
        self._streams = index.table("streams")
        self._durable = Presence(index)
        self._fresh = Presence(recent)
        self._uses = UseTable(index)
        self.drafts = Drafts(recent)

    def path(self, key: StreamKey, record: StreamRecord) -> Path:
        """The file in which the stream's bytes lie."""
        if record.digest is not None:
            return self._layout.blob(record.digest)
        return self._layout.stream(bytes.fromhex(key), record.file)

    @property
    def arrivals(self) -> Path:
        """The file in which content that has no stream yet is locked."""
        return self._layout.arrivals

    def full(self) -> bool:
        """Whether the disk is taken for full: what is left is for other things than bytes."""
        return self._layout.ballast.full()

    def record(self, key: StreamKey) -> StreamRecord | None:
        """The stream's record, None when the stream is not known."""
        raw = self._index.get(self._streams, bytes.fromhex(key))
        return None if raw is None else unpack_stream(raw)

    def has(self, snapshot: Snapshot, key: StreamKey) -> bool:
        """Whether a snapshot of the index has a stream that is no blob."""
        raw = snapshot.get(self._streams, bytes.fromhex(key))
        return raw is not None and unpack_stream(raw).digest is None

    def all(self) -> Iterator[tuple[StreamKey, StreamRecord]]:
        """All streams, those that have become blobs too, by key."""
        for page in self._index.pages(self._streams):
            for raw_key, raw in page:
                yield StreamKey(raw_key.hex()), unpack_stream(raw)

    def holding(self, key: StreamKey, span: Span) -> tuple[StreamRecord, list[Piece]] | None:
        """The record of the stream that holds all of ``span`` (up to its size), else None.

        With it, what its bytes are: the pieces that share a byte with the span. Of what an earlier
        version wrote there are none.
        """
        raw_key = bytes.fromhex(key)
        with self._recent.read() as recent, self._index.read() as index:
            raw = index.get(self._streams, raw_key)
            if raw is None:
                return None
            record = unpack_stream(raw)
            if record.size is not None:
                span = span.clamp(record.size)
            owner = owner_of(key, record)
            held = (
                record.digest is not None
                or self._durable.covers(index, owner, span)
                or self._fresh.covers(recent, owner, span)
                or self._touching(recent, index, owner, span).covers(span)
            )
            if not held:
                return None
            pieces = self._durable.pieces(index, owner, span)
            return record, [*pieces, *self._fresh.pieces(recent, owner, span)]

    def fresh_pieces(self, key: StreamKey, record: StreamRecord) -> list[Piece]:
        """What those bytes of the stream's file are that no checkpoint has seen."""
        with self._recent.read() as recent:
            return list(self._fresh.all_pieces(recent, owner_of(key, record)))

    def known(
        self, key: StreamKey, record: StreamRecord, span: Span
    ) -> tuple[SpanSet, list[Piece]]:
        """What is present in a part of a stream, and what it is: the pieces that are all there."""
        owner = owner_of(key, record)
        with self._recent.read() as recent, self._index.read() as index:
            present = self._touching(recent, index, owner, span).intersection(span)
            pieces = set(self._fresh.pieces(recent, owner, span))
            pieces.update(self._durable.pieces(index, owner, span))
        return present, sorted(piece for piece in pieces if present.covers(piece.span))

    def missing(self, key: StreamKey, record: StreamRecord, span: Span) -> SpanSet:
        """What the stream's file does not hold of ``span``."""
        with self._recent.read() as recent, self._index.read() as index:
            prefix = bytes.fromhex(key) + record.file
            return self._touching(recent, index, prefix, span).missing(span)

    def present(self, key: StreamKey, around: Span | None = None) -> SpanSet:
        """What is present of the stream; nothing when its file is not as it should be.

        ``around`` is what is asked about: of the spans that do not touch it, nothing need be said,
        and a stream may have thousands.
        """
        raw_key = bytes.fromhex(key)
        with self._recent.read() as recent, self._index.read() as index:
            raw = index.get(self._streams, raw_key)
            if raw is None:
                return SpanSet()
            record = unpack_stream(raw)
            prefix = raw_key + record.file
            if around is not None:
                present = self._touching(recent, index, prefix, around)
            else:
                fresh = self._fresh.recorded(recent, prefix)
                present = self._durable.recorded(index, prefix).union(fresh)
        if record.digest is not None and record.size is not None:
            present = SpanSet([Span(0, record.size)])
        return present if self.intact(key, record, max(present.bounds, default=0)) else SpanSet()

    def intact(self, key: StreamKey, record: StreamRecord, stop: int = 0) -> bool:
        """Whether the stream's file is there and as long as the record says.

        A blob is on record itself and has exactly its size, a stream at least that, and at least
        the bytes before ``stop``.

        Raises:
            StorageError: that cannot be found out.
        """
        try:
            actual = file_size(self.path(key, record))
        except OSError as error:
            raise storage_error(error, f"looking at stream {key}") from error
        if actual is None:
            return False
        if record.digest is not None:
            known = self._index.get(self._blobs, record.digest.raw) is not None
            return known and actual == record.size
        return actual >= max(record.size or 0, stop)

    def whole(self, key: StreamKey, record: StreamRecord) -> bool:
        """Whether all bytes of the stream are recorded as present."""
        if record.digest is not None:
            return True
        size = record.size
        return size is not None and not self.missing(key, record, Span(0, size))

    def _touching(self, recent: Snapshot, index: Snapshot, prefix: bytes, span: Span) -> SpanSet:
        fresh = self._fresh.touching(recent, prefix, span)
        return SpanSet(fresh + self._durable.touching(index, prefix, span))

    def create(
        self, key: StreamKey, size: int | None, source: Digest | None = None
    ) -> StreamRecord:
        """Make the stream's file and record, unless somebody else has; return the record.

        ``source`` is the verified blob that whoever asks is going to decode it from.
        """
        raw_key = bytes.fromhex(key)
        new = StreamRecord(os.urandom(8), 0, size, None, source)
        path = self._layout.stream(raw_key, new.file)
        path.parent.mkdir(mode=0o700, exist_ok=True)

        def change(batch: Batch) -> StreamRecord:
            raw = batch.get(self._streams, raw_key)
            if raw is not None:
                return unpack_stream(raw)
            batch.put(self._streams, raw_key, new.pack())
            self._uses.begin(batch, Item.stream(key))
            return new

        record = None
        try:
            _make_file(path, size or 0)
            record = self._index.apply(change)
        finally:
            if record != new:
                path.unlink(missing_ok=True)
        return record

    def update(self, key: StreamKey, old: StreamRecord, new: StreamRecord) -> bool:
        """Replace the record; False when it is not ``old`` any more."""
        raw_key = bytes.fromhex(key)

        def change(batch: Batch) -> bool:
            if batch.get(self._streams, raw_key) != old.pack():
                return False
            batch.put(self._streams, raw_key, new.pack())
            return True

        return self._index.apply(change)

    def add(self, key: StreamKey, record: StreamRecord, span: Span, pieces: list[Piece]) -> None:
        """Record a span whose bytes have been written, and what they are."""
        owner = owner_of(key, record)

        def change(batch: Batch) -> None:
            self._fresh.add(batch, owner, [span], pieces)
            self.drafts.remove(batch, owner, [span])

        self._recent.apply(change)

    def remove(self, key: StreamKey, record: StreamRecord) -> bool:
        """Forget the stream as ``record`` has it, spans and all; False when it is another now."""
        removed = self._index.apply(lambda batch: self.strike(batch, key, record), urgent=True)
        if removed:
            self.settle(key, record)
        return removed

    def strike(self, batch: Batch, key: StreamKey, record: StreamRecord) -> bool:
        """``remove`` within a transaction of the index; ``settle`` is for afterwards."""
        raw_key = bytes.fromhex(key)
        if batch.get(self._streams, raw_key) != record.pack():
            return False
        batch.delete(self._streams, raw_key)
        self._durable.clear(batch, raw_key + record.file)
        self._uses.drop(batch, Item.stream(key))
        return True

    def settle(self, key: StreamKey, record: StreamRecord) -> None:
        """Forget what ``recent`` has of a file that the index no longer fills."""
        prefix = bytes.fromhex(key) + record.file

        def change(batch: Batch) -> None:
            self._fresh.clear(batch, prefix)
            self.drafts.remove(batch, prefix)

        self._recent.apply(change, urgent=True)

    def take_out(
        self,
        key: StreamKey,
        record: StreamRecord,
        gone: Iterable[Span],
        note: Callable[[Batch], None] = lambda _: None,
    ) -> bool:
        """Take spans away, which nothing may be read from any more; whether that was possible.

        It was not when the stream's record is another by now, or when it has become a blob. The
        bytes themselves may be removed when this has returned. Call it with the file's gate held,
        or what is just being written there is removed after it was recorded. ``note`` is called in
        the transaction that does it.
        """
        if record.digest is not None:
            return False
        raw_key, owner, spans = bytes.fromhex(key), owner_of(key, record), tuple(gone)

        def from_index(batch: Batch) -> bool:
            if batch.get(self._streams, raw_key) != record.pack():
                return False
            next_one = replace(record, generation=record.generation + 1)
            batch.put(self._streams, raw_key, next_one.pack())
            for span in spans:
                self._durable.remove(batch, owner, span)
            note(batch)
            return True

        def from_recent(batch: Batch) -> None:
            for span in spans:
                self._fresh.remove(batch, owner, span)

        taken = self._index.apply(from_index, urgent=True)
        if taken:
            self._recent.apply(from_recent, urgent=True)
        return taken


def _make_file(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
