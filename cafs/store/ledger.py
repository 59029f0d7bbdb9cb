"""What is present of each stream: the records behind streams and blobs, and their rules.

Spans of a stream lie in two environments. A write records them in ``recent``, which outlives the
process; a checkpoint moves them to ``index``, which outlives a power cut, after the bytes. What is
present is the union. Reads look at ``recent`` first: a span that leaves it has reached ``index``
before. Removals go the other way, ``index`` first, so that nothing removed comes back.

Spans are recorded under the stream's key and the random name of its file; a stream whose record
names another file, or whose file is gone or too short, has none of them.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store import spans
from cafs.store.environment import Batch, Environment, Snapshot
from cafs.store.layout import Layout
from cafs.store.records import StreamRecord, unpack_stream

PREFIX: Final = 40
"""Length of a span's prefix: the stream's key and its file's name."""


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
        self._durable = index.table("spans")
        self._fresh = recent.table("spans")

    def path(self, key: StreamKey, record: StreamRecord) -> Path:
        """The file in which the stream's bytes lie."""
        if record.digest is not None:
            return self._layout.blob(record.digest)
        return self._layout.stream(bytes.fromhex(key), record.file)

    @property
    def arrivals(self) -> Path:
        """The file in which content that has no stream yet is locked."""
        return self._layout.arrivals

    def record(self, key: StreamKey) -> StreamRecord | None:
        """The stream's record, None when the stream is not known."""
        raw = self._index.get(self._streams, bytes.fromhex(key))
        return None if raw is None else unpack_stream(raw)

    def holding(self, key: StreamKey, span: Span) -> StreamRecord | None:
        """The record of the stream that holds all of ``span`` (up to its size), else None."""
        raw_key = bytes.fromhex(key)
        with self._recent.read() as recent, self._index.read() as index:
            raw = index.get(self._streams, raw_key)
            if raw is None:
                return None
            record = unpack_stream(raw)
            if record.size is not None:
                span = span.clamp(record.size)
            if record.digest is not None:
                return record
            prefix = raw_key + record.file
            held = (
                spans.covers(index, self._durable, prefix, span)
                or spans.covers(recent, self._fresh, prefix, span)
                or self._touching(recent, index, prefix, span).covers(span)
            )
            return record if held else None

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
                fresh = spans.recorded(recent, self._fresh, prefix)
                present = spans.recorded(index, self._durable, prefix).union(fresh)
        if record.digest is not None and record.size is not None:
            present = SpanSet([Span(0, record.size)])
        return present if self.intact(key, record, max(present.bounds, default=0)) else SpanSet()

    def intact(self, key: StreamKey, record: StreamRecord, stop: int = 0) -> bool:
        """Whether the stream's file is there and as long as the record says.

        A blob is on record itself and has exactly its size, a stream at least that; ``stop`` is
        what it has at least while its size is unknown.
        """
        try:
            actual = self.path(key, record).stat().st_size
        except FileNotFoundError:
            return False
        if record.digest is not None:
            known = self._index.get(self._blobs, record.digest.raw) is not None
            return known and actual == record.size
        return actual >= (stop if record.size is None else record.size)

    def whole(self, key: StreamKey, record: StreamRecord) -> bool:
        """Whether all bytes of the stream are recorded as present."""
        if record.digest is not None:
            return True
        size = record.size
        return size is not None and not self.missing(key, record, Span(0, size))

    def _touching(self, recent: Snapshot, index: Snapshot, prefix: bytes, span: Span) -> SpanSet:
        fresh = spans.touching(recent, self._fresh, prefix, span)
        return SpanSet(fresh + spans.touching(index, self._durable, prefix, span))

    def create(self, key: StreamKey, size: int | None) -> StreamRecord:
        """Make the stream's file and record, unless somebody else has; return the record."""
        raw_key = bytes.fromhex(key)
        new = StreamRecord(os.urandom(8), 0, size, None)
        path = self._layout.stream(raw_key, new.file)
        path.parent.mkdir(mode=0o700, exist_ok=True)

        def change(batch: Batch) -> StreamRecord:
            raw = batch.get(self._streams, raw_key)
            if raw is not None:
                return unpack_stream(raw)
            batch.put(self._streams, raw_key, new.pack())
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

    def add(self, key: StreamKey, record: StreamRecord, fresh: Iterable[Span]) -> None:
        """Record spans whose bytes have been written."""
        prefix = bytes.fromhex(key) + record.file

        def change(batch: Batch) -> None:
            for span in fresh:
                spans.add(batch, self._fresh, prefix, span)

        self._recent.apply(change)

    def remove(self, key: StreamKey, record: StreamRecord) -> bool:
        """Forget the stream as ``record`` has it, spans and all; False when it is another now."""
        raw_key = bytes.fromhex(key)

        def change(batch: Batch) -> bool:
            if batch.get(self._streams, raw_key) != record.pack():
                return False
            batch.delete(self._streams, raw_key)
            spans.clear(batch, self._durable, raw_key + record.file)
            return True

        removed = self._index.apply(change, urgent=True)
        if removed:
            self.settle(key, record)
        return removed

    def settle(self, key: StreamKey, record: StreamRecord) -> None:
        """Forget what ``recent`` has of a file that the index no longer fills."""
        prefix = bytes.fromhex(key) + record.file
        self._recent.apply(self._clearing(prefix), urgent=True)

    def fresh(self) -> dict[tuple[StreamKey, StreamRecord], SpanSet]:
        """The spans that no checkpoint has seen, by stream. Those of former files are dropped."""
        with self._recent.read() as recent:
            found = spans.by_prefix(recent, self._fresh, PREFIX)
        pending: dict[tuple[StreamKey, StreamRecord], SpanSet] = {}
        for prefix, each in found.items():
            key = StreamKey(prefix[:32].hex())
            record = self.record(key)
            if record is not None and record.file == prefix[32:] and record.digest is None:
                pending[key, record] = each
            else:
                self._recent.apply(self._clearing(prefix))
        return pending

    def _clearing(self, prefix: bytes) -> Callable[[Batch], None]:
        return lambda batch: spans.clear(batch, self._fresh, prefix)

    def keep(self, synced: dict[tuple[StreamKey, StreamRecord], SpanSet]) -> None:
        """Move spans whose bytes are on the disk from ``recent`` to the index."""

        def into_index(batch: Batch) -> None:
            for (key, record), each in synced.items():
                raw_key = bytes.fromhex(key)
                raw = batch.get(self._streams, raw_key)
                if raw is not None and _same_bytes(unpack_stream(raw), record):
                    for span in each:
                        spans.add(batch, self._durable, raw_key + record.file, span)

        def out_of_recent(batch: Batch) -> None:
            for (key, record), each in synced.items():
                for span in each:
                    spans.remove(batch, self._fresh, bytes.fromhex(key) + record.file, span)

        self._index.apply(into_index)
        self._recent.apply(out_of_recent)

    def drop(self, key: StreamKey, record: StreamRecord) -> None:
        """Forget all that no checkpoint has kept: its bytes may not reach the disk any more.

        Call it with the file's gate held, or what is just being written is recorded afterwards.
        """
        raw_key = bytes.fromhex(key)
        prefix = raw_key + record.file
        with self._recent.read() as recent:
            lost = spans.recorded(recent, self._fresh, prefix)

        def from_index(batch: Batch) -> None:
            raw = batch.get(self._streams, raw_key)
            if raw is None or (now := unpack_stream(raw)).file != record.file:
                return
            next_one = StreamRecord(now.file, now.generation + 1, now.size, now.digest)
            batch.put(self._streams, raw_key, next_one.pack())
            for span in lost:
                spans.remove(batch, self._durable, prefix, span)

        self._index.apply(from_index, urgent=True)
        self._recent.apply(self._clearing(prefix), urgent=True)


def _same_bytes(now: StreamRecord, then: StreamRecord) -> bool:
    """Whether what was present then still is: only the size may have become known."""
    return now.digest is None and (now.file, now.generation) == (then.file, then.generation)


def _make_file(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)
