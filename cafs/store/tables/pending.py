"""What only this boot's records say of streams: spans that no checkpoint has seen yet.

A checkpoint syncs their files, then moves them to the index. Meanwhile others write, and take away:
what is moved is what still is what was synced.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.presence import Presence, owner_of
from cafs.store.tables.records import StreamRecord, unpack_stream
from cafs.store.tables.uses import UseTable


class Pending:
    """Spans that are on their way from ``recent`` to the index. Belongs in worker threads.

    Concurrency: ``keep`` by one at a time, of all processes; the rest by any number.
    """

    def __init__(self, ledger: Ledger, index: Environment, recent: Environment) -> None:
        self._ledger = ledger
        self._index = index
        self._recent = recent
        self._streams = index.table("streams")
        self._durable = Presence(index)
        self._fresh = Presence(recent)
        self._uses = UseTable(index)

    def spans(self) -> dict[tuple[StreamKey, StreamRecord], SpanSet]:
        """The spans that no checkpoint has seen, by stream. Those of former files are dropped."""
        with self._recent.read() as recent:
            drafted = dict.fromkeys(self._ledger.drafts.owners(recent), SpanSet())
            found = drafted | self._fresh.by_owner(recent)
        pending: dict[tuple[StreamKey, StreamRecord], SpanSet] = {}
        for prefix, each in found.items():
            key = StreamKey(prefix[:32].hex())
            record = self._ledger.record(key)
            if record is None or record.file != prefix[32:] or record.digest is not None:
                self._recent.apply(self._clearing(prefix, drafts=True))
            elif each:
                pending[key, record] = each
        return pending

    def of(self, key: StreamKey, record: StreamRecord) -> SpanSet:
        """The spans of one stream's file that no checkpoint has seen."""
        with self._recent.read() as recent:
            return self._fresh.recorded(recent, owner_of(key, record))

    def _clearing(self, prefix: bytes, *, drafts: bool = False) -> Callable[[Batch], None]:
        def change(batch: Batch) -> None:
            self._fresh.clear(batch, prefix)
            if drafts:
                self._ledger.drafts.remove(batch, prefix)

        return change

    def keep(self, synced: dict[tuple[StreamKey, StreamRecord], SpanSet]) -> None:
        """Move spans whose bytes are on the disk from ``recent`` to the index.

        Those of a stream of which something was taken out meanwhile stay where they are, for the
        next time: what has been written there since is not what is on the disk.
        """
        with self._recent.read() as recent:
            known = {
                (key, record): [
                    piece
                    for span in each
                    for piece in self._fresh.pieces(recent, owner_of(key, record), span)
                ]
                for (key, record), each in synced.items()
            }

        def into_index(batch: Batch) -> list[tuple[StreamKey, StreamRecord]]:
            kept: list[tuple[StreamKey, StreamRecord]] = []
            for (key, record), each in synced.items():
                raw = batch.get(self._streams, bytes.fromhex(key))
                if raw is not None and _same_bytes(unpack_stream(raw), record):
                    self._durable.add(batch, owner_of(key, record), each, known[key, record])
                    self._uses.renew(batch, Item.stream(key), time.time_ns())
                    kept.append((key, record))
            return kept

        moved = self._index.apply(into_index)

        def out_of_recent(batch: Batch) -> None:
            for key, record in moved:
                now = self._ledger.record(key)
                if now is None or not _same_bytes(now, record):
                    continue
                for span in synced[key, record]:
                    self._fresh.hand_on(batch, owner_of(key, record), span)

        self._recent.apply(out_of_recent)

    def drop(self, key: StreamKey, record: StreamRecord) -> None:
        """Forget all that no checkpoint has kept: its bytes may not reach the disk any more.

        Call it with the file's gate held, or what is just being written is recorded afterwards.
        """
        raw_key = bytes.fromhex(key)
        prefix = raw_key + record.file
        with self._recent.read() as recent:
            lost = self._fresh.recorded(recent, prefix)

        def from_index(batch: Batch) -> None:
            raw = batch.get(self._streams, raw_key)
            if raw is None or (now := unpack_stream(raw)).file != record.file:
                return
            next_one = replace(now, generation=now.generation + 1)
            batch.put(self._streams, raw_key, next_one.pack())
            for span in lost:
                self._durable.remove(batch, prefix, span)

        self._index.apply(from_index, urgent=True)
        self._recent.apply(self._clearing(prefix), urgent=True)


def _same_bytes(now: StreamRecord, then: StreamRecord) -> bool:
    """Whether what was present then still is: only the size may have become known."""
    return now.digest is None and (now.file, now.generation) == (then.file, then.generation)
