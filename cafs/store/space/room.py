"""Room: how much the store has, how much it may have, and whether that is too much.

What counts is content: blobs by the disk blocks that they fill, streams by the bytes that are
present or drafted, and what is in quarantine. Records come on top, some hundred bytes an item and
12 for each 64 KiB.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Final

from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.model.item import Item
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import Layout
from cafs.store.disk.locking import flock_alone
from cafs.store.space.quarantine import Quarantine
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.counters import charge
from cafs.store.tables.counting import Count
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.presence import Presence
from cafs.store.tables.uses import UseTable

LOW: Final = 0.9
"""Down to which part of the quota room is made, once it is exceeded."""
_BATCH: Final = 512
"""Uses recorded in one transaction."""
_LOG: Final = logging.getLogger("cafs.store")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomUsage:
    """How full a store is, in bytes.

    ``quota`` is None where there is no bound. ``free`` is what its disk has left, of which
    ``min_free`` is to be left to others. ``quarantine`` is what was put aside because it was wrong.
    """

    blobs: int
    streams: int
    quota: int | None
    free: int
    min_free: int
    quarantine: int = 0

    @property
    def total(self) -> int:
        """All of its content."""
        return self.blobs + self.streams + self.quarantine

    @property
    def excess(self) -> int:
        """What must go so that both bounds are kept, and some time passes until the next time."""
        over = short = 0
        if self.quota is not None and self.total > self.quota:
            over = self.total - int(LOW * self.quota)
        if self.free < self.min_free:
            short = self.min_free - self.free + int((1 - LOW) * self.min_free)
        return max(over, short)

    def lacking(self, count: int) -> int:
        """What must go so that both bounds are kept with so many bytes more; else 0 or less."""
        over = 0 if self.quota is None else self.total + count - self.quota
        return max(over, self.min_free + count - self.free if self.min_free else 0)

    def within(self, bounds: Bounds, fewer: int = 0) -> "RoomUsage":
        """The same within other bounds, with ``fewer`` bytes of content."""
        return replace(
            self,
            blobs=self.blobs - fewer,
            free=self.free + fewer,
            quota=bounds.quota,
            min_free=bounds.min_free,
        )


class Room:
    """The room that a store takes.

    Args:
        layout: where it is.
        index: its records that outlive a power cut.
        recent: those that do not.
        ledger: its streams.
        records: its blobs.
        bounds: how much it may have.

    Concurrency: any number of threads and processes. Each process keeps its own bounds.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        index: Environment,
        recent: Environment,
        ledger: Ledger,
        records: BlobRecords,
        bounds: Bounds = UNBOUNDED,
    ) -> None:
        self._layout = layout
        self._index = index
        self._recent = recent
        self._ledger = ledger
        self._records = records
        self._uses = UseTable(index)
        self._durable_spans = Presence(index)
        self._fresh_spans = Presence(recent)
        self._drafts = drafts = ledger.drafts
        blobs, durable, fresh = records.counter, self._durable_spans, self._fresh_spans
        self._counts = (
            Count(index, [(blobs, self._charged), (durable.counter, durable.total)]),
            Count(recent, [(fresh.counter, fresh.total), (drafts.counter, drafts.total)]),
        )
        self.quarantine = Quarantine(layout.quarantine)
        self.bounds = bounds

    def usage(self) -> RoomUsage:
        """How full the store is now. Cheap: microseconds, and some for each span not checkpointed.

        Raises:
            StorageError: the store has gone.
        """
        # In this order: a span that leaves ``recent`` has reached the index before.
        with self._recent.read() as recent, self._index.read() as index:
            streams = self._streams(recent, index)
            if self._fresh_spans.counter.get(recent):
                # What a checkpoint has moved, or was killed while it moved, is in both.
                streams -= self._fresh_spans.shared(recent, self._durable_spans, index)
            return self._usage(index, streams)

    def crowded(self) -> bool:
        """Whether there may be too much: never wrongly denied, and quicker than ``usage``.

        Of a store of which nobody knows how much it has it is said too.
        """
        if self.bounds == UNBOUNDED:
            return False
        with self._recent.read() as recent, self._index.read() as index:
            if not self._known(recent, index):
                return True
            return self._usage(index, self._streams(recent, index)).excess > 0

    def _streams(self, recent: Snapshot, index: Snapshot) -> int:
        fresh, drafts = self._fresh_spans.counter, self._drafts.counter
        written = (fresh.get(recent) or 0) + (drafts.get(recent) or 0)
        return written + (self._durable_spans.counter.get(index) or 0)

    def _usage(self, index: Snapshot, streams: int) -> RoomUsage:
        return RoomUsage(
            blobs=self._records.counter.get(index) or 0,
            streams=streams,
            quota=self.bounds.quota,
            free=self._layout.free_bytes(),
            min_free=self.bounds.min_free,
            quarantine=self.quarantine.total(),
        )

    def counted(self) -> bool:
        """Whether what is counted can be believed.

        It cannot be while nobody has counted what is in this store, or since this boot, and when a
        disk has damaged what was counted.
        """
        with self._recent.read() as recent, self._index.read() as index:
            return self._known(recent, index)

    def _known(self, recent: Snapshot, index: Snapshot) -> bool:
        lasting, fleeting = self._counts
        return lasting.known(index) and fleeting.known(recent)

    def reckon(self) -> RoomUsage:
        """``usage``, once what is not known has been counted. Blocks; then as ``recount`` does.

        Raises:
            StorageError: the records cannot be read or changed.
        """
        if not self.counted():
            with self._alone():
                self._recount(every=False)
        return self.usage()

    def recount(self) -> int:
        """Count everything, and correct the counters; by how much they were wrong. Blocks, long.

        Others may go on meanwhile; one counts at a time. Items without a use get one.

        Raises:
            StorageError: the records cannot be read or changed.
        """
        with self._alone():
            return self._recount(every=True)

    def _recount(self, *, every: bool) -> int:
        lasting, fleeting = self._counts
        with self._recent.read() as recent, self._index.read() as index:
            known = lasting.known(index), fleeting.known(recent)
        wrong = 0
        if every or not known[0]:
            wrong += lasting.run()
            self._enlist()
        if every or not known[1]:
            wrong += fleeting.run()
        if wrong:
            _LOG.info("store.room.recounted bytes=%d", wrong)
        return wrong

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one who counts: two would correct the same mistake twice.

        Waits for another's count; in a thread of trio's, to be cancelled too.
        """
        try:
            # A directory that is there: a full disk has no room for a file.
            descriptor = os.open(self._layout.leases, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise storage_error(error, f"{self._layout.leases}: cannot be opened") from error
        try:
            flock_alone(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _charged(self, index: Snapshot) -> int:
        """The bytes that all blobs take, looked at one by one."""
        return sum(map(charge, self._records.sizes(index)))

    def _enlist(self) -> None:
        """Give a use to what has none."""
        blobs = (Item.blob(digest) for digest in self._records.digests())
        streams = (Item.stream(key) for key, each in self._ledger.all() if each.digest is None)
        items = chain(blobs, streams)
        while some := list(islice(items, _BATCH)):
            with self._index.read() as snapshot:
                new = [item for item in some if self._uses.get(snapshot, item) is None]
            if new:
                self._index.apply(partial(self._begin, items=new), urgent=True)

    def _begin(self, batch: Batch, items: list[Item]) -> None:
        for item in items:
            if self._there(batch, item):
                self._uses.begin(batch, item)

    def _there(self, batch: Batch, item: Item) -> bool:
        key = item.stream_key
        if key is None:
            return item.digest is not None and self._records.has(batch, item.digest)
        return self._ledger.has(batch, key)
