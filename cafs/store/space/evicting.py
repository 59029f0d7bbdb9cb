"""Evicting: what was used longest ago goes when there is too much, down to a low mark.

``choosing`` says what goes. Nobody who reads waits for any of this: a reader whose bytes go finds
them absent, and fetches them again. One process removes at a time, a batch; between two batches
another may. What is in use is found out before, by as many as like, and once more when it goes.

When all that is left is in use, everything is looked at ever more rarely. What is new is looked at
as it comes, and some of what was spared each second: no word of another process tells that it has
let go of something.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import trio

from cafs.errors import StorageError, StorageFullError
from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import Layout
from cafs.store.disk.locking import flock_alone
from cafs.store.holds.holds import Holds
from cafs.store.space.choosing import Choice, Chooser, Spared
from cafs.store.space.removing import Remover
from cafs.store.space.room import Room
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.uses import Rank, Uses

_PAUSE_S: Final = (1.0, 300.0)
"""How long it takes until everything is looked at again where nothing could go, at first and at
last: of a million items each look costs seconds."""
_GLANCE_S: Final = 1.0
"""How often in between what is new is looked at, and some of what was in use."""
_LOOK_S: Final = 30.0
"""How often a disk is looked at that others fill."""
_WAIT_S: Final = 1.0
_PATIENCE_S: Final = 4.0
"""How long who brings something waits for room: longer than what was just used is spared."""
_MIB: Final = 1 << 20
_LOG: Final = logging.getLogger("cafs.store")


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
        self._room = room
        self._uses = uses
        self._remover = remover
        self._chooser = Chooser(
            index,
            ledger=ledger,
            records=records,
            uses=uses,
            holds=holds,
            remover=remover,
            pinned=pinned,
        )
        self._spared = Spared()
        self._newest = b""
        self._spared_new = Spared()
        self._limiter = trio.CapacityLimiter(1)
        self._token = trio.lowlevel.current_trio_token()
        self._crowded = trio.Event()
        self._rebound = trio.Event()
        self._said = ""
        self._round: trio.Event | None = None
        self.exhausted = False
        """Whether there is too much, and nothing more may go."""

    async def make_room(self, count: int, floor: int | None = None) -> int:
        """Let go of items until so many bytes are free, or nothing more may go.

        Args:
            count: bytes.
            floor: bytes that the store is to have afterwards: what others let go of meanwhile is a
                part of ``count``. None where they are wanted for something, as others want theirs.

        Returns:
            Bytes that were freed; fewer than ``count`` when all else is held or pinned.

        Raises:
            StorageError: the disk, or the records, failed.

        Cancellation: between two batches, or while they are chosen.
        """
        return count - await self._lacking(count, floor, b"")

    def note(self) -> None:
        """Say that there is more than before; in a worker thread."""
        # A store that has gone, and a run that has ended, need no room.
        with suppress(trio.RunFinishedError, StorageError):
            if not self._crowded.is_set() and self._room.crowded():
                self._token.run_sync_soon(self._wake)

    def _wake(self) -> None:
        self._crowded.set()

    async def reserve(self, count: int, name: str) -> None:
        """Make room for so many bytes that are to come, so that the store stays within its bounds.

        What was used a moment ago may go soon: for that it waits a few seconds.

        Args:
            count: bytes that are not here yet; 0 for what is.
            name: what is to come.

        Raises:
            StorageFullError: what is here is in use or pinned, or is not so much.
            StorageError: the disk, or the records, failed.

        Cancellation: as ``make_room``.
        """
        limit = trio.current_time() + _PATIENCE_S
        while self._room.bounds != UNBOUNDED:
            usage = await trio.to_thread.run_sync(self._room.reckon)
            lacking = usage.lacking(count)
            if lacking <= 0:
                return
            hopeless = lacking > usage.total  # then nothing need go for that
            if not hopeless and await self._lacking(lacking, None, b"") <= 0:
                return
            if hopeless or trio.current_time() >= limit:
                raise StorageFullError(
                    f"{name}: the store would have {-(-lacking // _MIB)} MiB more than it may, and"
                    " nothing more may make way",
                    hint="raise store.quota or lower store.min-free, or prefetch less at once",
                )
            await trio.sleep(_GLANCE_S)

    def keep_within(self, bounds: Bounds) -> None:
        """Keep the store within other bounds from now on."""
        self._room.bounds = bounds
        self._rebound.set()
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
            await self._pursue()

    async def _pursue(self) -> None:
        """Make room until there is enough, however long what could go is in use."""
        # First: what is written from here on tells it anew.
        self._crowded = trio.Event()
        place, due, pause_s = b"", 0.0, _PAUSE_S[0]
        while not await self._is_within(place):
            if not place:
                due, pause_s = trio.current_time() + pause_s, min(2 * pause_s, _PAUSE_S[1])
            place = b"" if await self._rest(due) else self._newest
        self._said = ""

    async def _rest(self, due: float) -> bool:
        """Wait until something may go; whether that may be anything, and not only what is new."""
        while True:
            with trio.move_on_at(min(due, trio.current_time() + _GLANCE_S)):
                await self._rebound.wait()
            if self._rebound.is_set() or trio.current_time() >= due:
                return True
            if await self._may_go(self._spared):
                return True
            if self._crowded.is_set() or await self._may_go(self._spared_new):
                self._crowded = trio.Event()
                return False

    async def _may_go(self, spared: Spared) -> bool:
        """Whether anything of what was spared may go now, as far as that is remembered."""
        try:
            return await trio.to_thread.run_sync(self._chooser.any_may_go, spared)
        except StorageError:
            return True  # who looks at everything says what is wrong

    async def _is_within(self, place: bytes) -> bool:
        """Make what room is wanted of what lies behind a place; whether all could be made."""
        self._round = trio.Event()
        self._rebound = trio.Event()
        try:
            usage = await trio.to_thread.run_sync(self._room.reckon)
            excess, floor = usage.excess, usage.total - usage.excess
            self.exhausted = excess > 0 and await self._lacking(excess, floor, place) > 0
            if self.exhausted:
                self._say(logging.INFO, "store.evict.exhausted")
        except StorageError as error:
            self._say(logging.WARNING, f"store.evict.failed error={error.line}")
            self.exhausted = True
        finally:
            self._round.set()
            self._round = None
        return not self.exhausted

    def _say(self, level: int, what: str) -> None:
        """Log it once, not each time that it is still so."""
        if self._said != what:
            self._said = what
            _LOG.log(level, "%s", what)

    async def _lacking(self, count: int, floor: int | None, place: bytes) -> int:
        """``make_room`` of what lies behind a place; how many bytes are not free afterwards."""
        return await trio.to_thread.run_sync(
            self._make_room, count, floor, place, limiter=self._limiter
        )

    def _make_room(self, count: int, floor: int | None, place: bytes) -> int:
        began, spared = place, Spared()
        newest, ended = self._uses.table.place(Rank.USUAL, time.time_ns()), False
        self._uses.flush()
        try:
            left = self._still_lacking(count, floor)
            left -= self._shed(left) if left > 0 else 0
            while left > 0 and not ended:
                choice, behind = self._chooser.choose(place, left, spared)
                if choice.items or choice.ranges:
                    with self._alone():
                        if (now := self._still_lacking(left, floor)) < left:
                            left = now  # others have let go of some, perhaps of the same
                            continue
                        left -= self._let_go(self._chooser.still(choice))
                place, ended = behind, not behind
        except OSError as error:
            raise storage_error(error, f"{self._layout.root}: making room") from error
        if began:
            self._spared_new = spared
        elif ended:
            self._spared, self._newest, self._spared_new = spared, newest, Spared()
        return left

    def _still_lacking(self, count: int, floor: int | None) -> int:
        """What is still to go of so many bytes, but for what others have let go of."""
        return count if floor is None else min(count, self._room.usage().total - floor)

    def _shed(self, count: int) -> int:
        """What was put aside because it was wrong goes before anything that is right."""
        try:
            return self._room.quarantine.shed(count)
        except OSError as error:
            raise storage_error(error, f"{self._layout.quarantine}: making room") from error

    def plan(self, count: int) -> Iterator[tuple[Item, list[Span]]]:
        """What would go first for so many bytes: items, of streams perhaps spans alone. Blocks.

        Nothing is let go of. Who uses what meanwhile may change it.
        """
        place, left = b"", count
        while left > 0:
            choice, place = self._chooser.choose(place, left, Spared())
            left -= choice.count
            yield from ((item, []) for item in choice.items)
            yield from ((Item.stream(key), spans) for key, spans in choice.ranges)
            if not place:
                return

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only process that removes. Waits for another's batch, or to be cancelled."""
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            flock_alone(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _let_go(self, choice: Choice) -> int:
        freed = self._remover.remove(choice.items) if choice.items else 0
        freed += sum(self._remover.cut(key, spans) for key, spans in choice.ranges)
        if freed:
            _LOG.info("store.evicted bytes=%d", freed)
        return freed
