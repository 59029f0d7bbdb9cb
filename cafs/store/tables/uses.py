"""Uses: when each item was last read or written, and so what is let go of first.

Two tables of the index say the same: ``uses`` has the last use of each item, ``ages`` has all items
in the order in which they are let go of, so that nobody reads a million records to choose a few. An
item is in both from the transaction that records it to the one that removes it.

A read costs an entry in memory. Those are written every few seconds, in one transaction, and only
where the last use that is recorded is a minute old. Of what is written, checkpoints do the same.
"""

import enum
import logging
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from cafs.errors import StorageError, StorageFullError
from cafs.model.digest import CANONICAL, Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, BrokenEnvironmentError, Snapshot

PERIOD_S: Final = 5.0
"""How long a use may stand in memory alone."""
STALE_NS: Final = 60 * 10**9
"""How much later than what is recorded a use must be to be written."""
JUST: Final = 4
"""How many items, those that this process has read last, are taken for those that it reads."""
JUST_S: Final = 2.0
"""For how long after a use it is so."""
_BATCH: Final = 512
"""Uses written in one transaction."""
_LOG: Final = logging.getLogger("cafs.store")
_VALUE: Final = struct.Struct(">BQ")
_KEY: Final = 33
_NO_LINK: Final = bytes(32)
_END: Final = b"\xff" * (_VALUE.size + _KEY + 1)


class Rank(enum.IntEnum):
    """In which order items are let go of; within one, the one that was used longest ago."""

    SPENT = 0
    """Raw bytes of which what was decoded is here."""
    USUAL = 1
    PRECIOUS = 2
    """What nobody here knows how to fetch again."""


@dataclass(frozen=True, slots=True)
class Use:
    """The last use of an item.

    ``decoded`` is the stream for whose sake the item is spent, as long as that stream is whole.
    ``former`` is, of a stream, the blob that it was until a disk changed it: who holds that holds
    the stream.
    """

    item: Item
    rank: Rank
    last_ns: int
    decoded: StreamKey | None = None
    former: Digest | None = None


class UseTable:
    """The records of uses, changed in the transactions of what they belong to.

    Concurrency: as that of the snapshots and batches that it is given.
    """

    def __init__(self, index: Environment) -> None:
        self._uses = index.table("uses")
        self.ages = index.table("ages")
        """All items by when they are let go of; a key is that, and the item's."""

    def get(self, snapshot: Snapshot, item: Item) -> Use | None:
        """The last use of an item, None when there is no such item."""
        raw = snapshot.get(self._uses, item.key)
        return None if raw is None else _unpacked(item, raw)

    def put(self, batch: Batch, use: Use) -> None:
        """Record the last use of an item, instead of the one that was."""
        self.drop(batch, use.item)
        age = _VALUE.pack(use.rank, use.last_ns)
        batch.put(self._uses, use.item.key, age + _links(use))
        batch.put(self.ages, age + use.item.key, b"")

    def begin(self, batch: Batch, item: Item) -> None:
        """Record an item that is new, used now; one that is known stays as it is."""
        if batch.get(self._uses, item.key) is None:
            self.put(batch, Use(item, Rank.USUAL, time.time_ns()))

    def renew(self, batch: Batch, item: Item, now: int) -> None:
        """Record that an item is used now, where what is recorded is a minute old."""
        use = self.get(batch, item)
        if use is not None and use.last_ns + STALE_NS <= now:
            self.put(batch, replace(use, last_ns=now))

    def drop(self, batch: Batch, item: Item) -> None:
        """Forget an item."""
        raw = batch.get(self._uses, item.key)
        if raw is not None:
            batch.delete(self.ages, raw[: _VALUE.size] + item.key)
        batch.delete(self._uses, item.key)

    def place(self, rank: Rank, last_ns: int) -> bytes:
        """The place in the order behind which is what was used since, and the later ranks."""
        return _VALUE.pack(rank, last_ns)

    def oldest(self, snapshot: Snapshot, start: bytes) -> Iterator[tuple[bytes, Item]]:
        """Items in the order in which they are let go of, each with its place in it.

        ``start`` is the place to begin behind, empty for the first.
        """
        for key, _ in snapshot.scan(self.ages, start + b"\0" if start else b"", _END):
            yield key, Item(key[_VALUE.size :])


class Uses:
    """The uses of a store's items.

    Concurrency: ``touch`` and ``just`` from any thread; the rest as it says.
    """

    def __init__(self, index: Environment) -> None:
        self.table = UseTable(index)
        self._index = index
        self._lock = threading.Lock()
        self._touched: dict[bytes, float] = {}
        self._before: dict[bytes, float] = {}
        self._precious: set[bytes] = set()
        self._last: deque[bytes] = deque(maxlen=JUST)
        self._token = trio.lowlevel.current_trio_token()
        self._some = trio.Event()

    def touch(self, item: Item, *, precious: bool = False) -> None:
        """Say that an item is read now; ``precious``, by who knows no source of it."""
        first = not self._touched
        if precious:
            self._precious.add(item.key)
        self._touched[item.key] = time.monotonic()
        if not self._last or self._last[-1] != item.key:
            self._last.append(item.key)
        if first:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._some.set()

    def just(self, item: Item) -> bool:
        """Whether this process used an item a moment ago."""
        key, since = item.key, time.monotonic() - JUST_S
        return max(self._touched.get(key, 0.0), self._before.get(key, 0.0)) > since

    def reading(self, item: Item) -> bool:
        """Whether an item is among the few that this process used last, and just now."""
        return item.key in self._last and self.just(item)

    def last(self, item: Item) -> Use | None:
        """The last use of an item that is recorded, None when there is no such item."""
        with self._index.read() as snapshot:
            return self.table.get(snapshot, item)

    def older(self, cutoff_ns: int) -> Iterator[Use]:
        """The last uses before a time, ns since the epoch, as they are when each is read."""
        for rank in Rank:
            start, stop = _VALUE.pack(rank, 0), _VALUE.pack(rank, max(0, cutoff_ns))
            for page in self._index.pages(self.table.ages, start, stop):
                for key, _ in page:
                    use = self.last(Item(key[_VALUE.size :]))
                    if use is not None:
                        yield use

    async def run(self) -> None:
        """Write down what was touched every few seconds, until cancelled. A failure is logged."""
        while True:
            await self._some.wait()
            self._some = trio.Event()
            await trio.sleep(PERIOD_S)
            await trio.to_thread.run_sync(self.flush)

    def flush(self) -> None:
        """Write down what was touched. Blocks; what cannot be written is forgotten."""
        with self._lock:
            self._before, self._touched = self._touched, {}
            precious, self._precious = self._precious, set()
            touched = [Item(key) for key in list(self._before)]
            now = time.time_ns()
            try:
                for start in range(0, len(touched), _BATCH):
                    self._write(touched[start : start + _BATCH], now)
                for key in precious:
                    self.rank(Item(key), Rank.PRECIOUS)
            except (StorageFullError, BrokenEnvironmentError) as error:
                # Who writes what matters says so.
                _LOG.info("store.uses.unwritten error=%s", error.line)
            except StorageError as error:
                _LOG.warning("store.uses.unwritten error=%s", error.line)

    def _write(self, items: list[Item], now: int) -> None:
        with self._index.read() as snapshot:
            known = [self.table.get(snapshot, item) for item in items]
        stale = [use.item for use in known if use is not None and use.last_ns + STALE_NS <= now]
        if stale:
            self._index.apply(partial(self._renew, stale=stale, now=now))

    def _renew(self, batch: Batch, stale: list[Item], now: int) -> None:
        for item in stale:
            self.table.renew(batch, item, now)

    def rank(self, item: Item, rank: Rank, decoded: StreamKey | None = None) -> None:
        """Say when an item is to be let go of. Blocks.

        Nothing happens when there is none, or when the disk is full: it is only about the order.

        Raises:
            StorageError: the records are damaged.
        """

        def change(batch: Batch) -> None:
            use = self.table.get(batch, item)
            if use is not None:
                self.table.put(batch, replace(use, rank=rank, decoded=decoded))

        known = self.last(item)
        if known is not None and (known.rank, known.decoded) != (rank, decoded):
            with suppress(StorageFullError):
                self._index.apply(change)


def _unpacked(item: Item, raw: bytes) -> Use:
    rank, last_ns = _VALUE.unpack_from(raw)
    links = raw[_VALUE.size :]
    decoded, former = links[: len(_NO_LINK)], links[len(_NO_LINK) :]
    return Use(
        item,
        Rank(rank),
        last_ns,
        StreamKey(decoded.hex()) if decoded.strip(b"\0") else None,
        Digest(CANONICAL, former) if former else None,
    )


def _links(use: Use) -> bytes:
    """The stream that was decoded, then the former blob; the first is zeros where only that is."""
    decoded = b"" if use.decoded is None else bytes.fromhex(use.decoded)
    return decoded if use.former is None else (decoded or _NO_LINK) + use.former.raw
