"""Evicting: what was used longest ago goes when there is too much, down to a low mark.

In this order (``uses.Rank``): raw bytes of which what was decoded is here; the rest, by last use;
what nobody knows how to fetch again. What somebody holds or has pinned stays. Of a large stream,
and of one that is in use, ranges go, from its front: who reads it goes forward.

Nobody who reads waits for any of this: a reader whose bytes go finds them absent, and fetches them
again. One process evicts at a time, a batch; between two batches another may.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import trio

from cafs.errors import StorageError, StorageFullError
from cafs.model.bounds import Bounds
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.blob_records import BlobRecords
from cafs.store.counters import charge
from cafs.store.environment import Environment
from cafs.store.files import storage_error
from cafs.store.holds import GRAIN, Holds
from cafs.store.layout import Layout
from cafs.store.ledger import Ledger
from cafs.store.locking import flock
from cafs.store.removing import BATCH, Remover
from cafs.store.room import Room
from cafs.store.sums import PIECE
from cafs.store.uses import Rank, Uses

LARGE: Final = 64 << 20
"""Bytes of a stream of which ranges go, not the whole."""
RANGE: Final = 4 << 20
"""Bytes of a large stream that go together."""
_PAGE: Final = 256
"""Items looked at in one transaction."""
_PAUSE_S: Final = (1.0, 5.0)
"""How long to wait where nothing could go, at first and at last: what was held then may not be."""
_LOOK_S: Final = 30.0
"""How often a disk is looked at that others fill."""
_WAIT_S: Final = 1.0
_LOG: Final = logging.getLogger("cafs.store")


@dataclass(slots=True)
class _Choice:
    """What is to go: whole items, and ranges of streams. ``count`` is about how many bytes."""

    items: list[Item] = field(default_factory=list)
    ranges: list[tuple[StreamKey, list[Span]]] = field(default_factory=list)
    count: int = 0

    def is_full(self) -> bool:
        """Whether it is a batch."""
        return len(self.items) + len(self.ranges) >= BATCH


class Evictor:
    """Makes room.

    Concurrency: ``note`` from any thread; the rest from one trio run.
    """

    def __init__(
        self,
        layout: Layout,
        index: Environment,
        *,
        ledger: Ledger,
        records: BlobRecords,
        room: Room,
        uses: Uses,
        holds: Holds,
        remover: Remover,
        pinned: Callable[[Item], bool],
    ) -> None:
        self._layout = layout
        self._lock = layout.leases / "evicting"
        self._index = index
        self._ledger = ledger
        self._records = records
        self._room = room
        self._uses = uses
        self._holds = holds
        self._remover = remover
        self._pinned = pinned
        self._limiter = trio.CapacityLimiter(1)
        self._token = trio.lowlevel.current_trio_token()
        self._crowded = trio.Event()
        self._round: trio.Event | None = None
        self.exhausted = False
        """Whether there is too much, and nothing more may go."""

    async def make_room(self, count: int) -> int:
        """Let go of items until so many bytes are free, or nothing more may go.

        Returns:
            Bytes that were freed; fewer than ``count`` when all else is held or pinned.

        Raises:
            StorageError: the disk, or the records, failed.

        Cancellation: between two batches.
        """
        return await trio.to_thread.run_sync(self._make_room, count, limiter=self._limiter)

    def note(self) -> None:
        """Say that there is more than before; in a worker thread."""
        # A store that has gone, and a run that has ended, need no room.
        with suppress(trio.RunFinishedError, StorageError):
            if not self._crowded.is_set() and self._room.crowded():
                self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._crowded.set()

    def check_room(self, name: str) -> None:
        """Refuse to bring more where too much is here already, and none of it may go.

        Args:
            name: what was to be brought.

        Raises:
            StorageFullError: it is so.
        """
        if self.exhausted and self._room.crowded():
            raise StorageFullError(
                f"{name}: the store has more than it may, and all of it is in use or pinned",
                hint="raise store.quota or lower store.min-free, or prefetch less at once",
            )

    def keep_within(self, bounds: Bounds) -> None:
        """Keep the store within other bounds from now on."""
        self._room.bounds = bounds
        self._crowded.set()

    async def settled(self) -> None:
        """Wait until a round that is under way has ended, a second at most; for who brings more.

        Without it, whoever writes faster than others can remove would never be within bounds.

        Cancellation: no effect.
        """
        if self._round is not None:
            with trio.move_on_after(_WAIT_S):
                await self._round.wait()

    async def run(self) -> None:
        """Keep the store within its bounds, until cancelled. A failure is logged."""
        while True:
            with trio.move_on_after(_LOOK_S if self._room.bounds.min_free else float("inf")):
                await self._crowded.wait()
            # First: what is written from here on tells it anew.
            self._crowded = trio.Event()
            pause_s = _PAUSE_S[0]
            while not await self._is_within():
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_S[1])

    async def _is_within(self) -> bool:
        """Make what room is wanted; whether all of it could be made."""
        self._round = trio.Event()
        try:
            excess = (await trio.to_thread.run_sync(self._room.usage)).excess
            self.exhausted = excess > 0 and await self.make_room(excess) < excess
        except StorageError as error:
            _LOG.warning("store.evict.failed error=%s", error.line)
            self.exhausted = True
        finally:
            self._round.set()
            self._round = None
        return not self.exhausted

    def _make_room(self, count: int) -> int:
        freed, place = 0, b""
        self._uses.flush()
        try:
            while freed < count:
                with self._alone():
                    choice, place = self._choose(place, count - freed)
                    freed += self._let_go(choice)
                if not place:
                    break
                trio.from_thread.check_cancelled()
        except OSError as error:
            raise storage_error(error, f"{self._layout.root}: making room") from error
        if freed:
            _LOG.info("store.evicted bytes=%d wanted=%d", freed, count)
        return freed

    def plan(self, count: int) -> Iterator[tuple[Item, list[Span]]]:
        """What would go first for so many bytes: items, of streams perhaps spans alone. Blocks.

        Nothing is let go of. Who uses what meanwhile may change it.
        """
        place, left = b"", count
        while left > 0:
            choice, place = self._choose(place, left)
            left -= choice.count
            yield from ((item, []) for item in choice.items)
            yield from ((Item.stream(key), spans) for key, spans in choice.ranges)
            if not place:
                return

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only process that evicts. Waits for another's batch."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock(descriptor, exclusive=True, wait=True)
            yield
        finally:
            os.close(descriptor)

    def _let_go(self, choice: _Choice) -> int:
        freed = self._remover.remove(choice.items) if choice.items else 0
        return freed + sum(self._remover.cut(key, spans) for key, spans in choice.ranges)

    def _choose(self, place: bytes, count: int) -> tuple[_Choice, bytes]:
        """What of the items behind a place goes first, and where to go on; empty at the end."""
        choice = _Choice()
        while not choice.is_full() and choice.count < count:
            with self._index.read() as snapshot:
                page = list(islice(self._uses.table.oldest(snapshot, place), _PAGE))
            for here, item in page:
                place = here
                self._consider(item, here[0] == Rank.SPENT, choice, count)
                if choice.is_full() or choice.count >= count:
                    return choice, place
            if len(page) < _PAGE:
                return choice, b""
        return choice, place

    def _consider(self, item: Item, spent: bool, choice: _Choice, count: int) -> None:
        """Choose an item, or ranges of it, if it may go."""
        if self._pinned(item) or (spent and not self._is_spent(item)):
            return
        names = self._remover.names(item)
        in_use = self._uses.reading(item) or any(map(self._holds.held, names))
        key = item.stream_key
        if key is None:
            record = None if in_use or item.digest is None else self._records.get(item.digest)
            if record is not None:
                choice.items.append(item)
                choice.count += charge(record.size)
            return
        present = self._ledger.present(key)
        if not self._remover.holes or not (in_use or present.total > LARGE):
            if not in_use:
                choice.items.append(item)
                choice.count += present.total
            return
        ranges = list(self._ranges(item, present, count - choice.count))
        if ranges:
            choice.ranges.append((key, ranges))
            choice.count += sum(present.intersection(each).total for each in ranges)

    def _is_spent(self, item: Item) -> bool:
        """Whether what was decoded of an item is still whole; else it is as others from now on."""
        use = self._uses.last(item)
        if use is not None and use.decoded is not None:
            record = self._ledger.record(use.decoded)
            if record is not None and self._ledger.whole(use.decoded, record):
                return True
        self._uses.rank(item, Rank.USUAL)
        return False

    def _ranges(self, item: Item, present: SpanSet, count: int) -> Iterator[Span]:
        """Ranges of a stream that nobody holds, from its front, until they have ``count`` bytes."""
        last = max(present.bounds, default=0)
        for start in range(0, last, RANGE):
            whole = Span(start, min(start + RANGE, -(-last // PIECE) * PIECE))
            for each in [whole] if not self._holds.held(item, whole) else _grains(whole):
                here = present.intersection(each).total
                if here and not self._holds.held(item, each):
                    yield each
                    count -= here
                if count <= 0:
                    return


def _grains(span: Span) -> list[Span]:
    """The parts of a range that are held apart from each other."""
    return [
        Span(start, min(start + GRAIN, span.stop)) for start in range(span.start, span.stop, GRAIN)
    ]
