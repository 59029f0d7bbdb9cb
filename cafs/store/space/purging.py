"""Purging: removing what was found to be of no use, beside whoever uses the store.

Between a finding and its end others may have begun to use it: so each is looked at again, where
nobody can come in between. Records go before files. A process that is killed here leaves what the
next one finds.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from cafs.errors import StorageError
from cafs.model.bounds import Bounds
from cafs.model.item import Item
from cafs.model.record import TreeRecord
from cafs.store.disk.files import storage_error
from cafs.store.disk.locking import flock
from cafs.store.space.aging import Aging
from cafs.store.space.collecting import Collector
from cafs.store.space.findings import Finding, Kind, Terms
from cafs.store.space.parts import Parts
from cafs.store.space.removing import BATCH

T = TypeVar("T")
_ITEMS: Final = frozenset({Kind.PARTIAL, Kind.BLOB, Kind.STREAM})


class Outcome(msgspec.Struct, frozen=True):
    """What became of a finding: ``removed``, or not, because somebody has begun to use it.

    ``error`` is why it could not be removed, one line; empty where it could.
    """

    finding: Finding
    removed: bool
    error: str = ""


Tell = Callable[[Sequence[Outcome]], None]
"""Told of findings as they are dealt with; called in a worker thread."""


class Housekeeping:
    """Looks after one store.

    Concurrency: any number of tasks and processes, of which one collects.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lock = parts.layout.leases / "collecting"
        self._limiter = trio.CapacityLimiter(1)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Be the only one who collects; whether that is so. Waits for nobody.

        Raises:
            StorageError: the store has gone, or its disk has no room for an empty file.

        Cancellation: no effect.
        """
        descriptor = await self._in_thread(
            lambda: os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        )
        try:
            yield flock(descriptor, exclusive=True, wait=False)
        finally:
            os.close(descriptor)

    async def collect(self, terms: Terms, tell: Tell) -> int:
        """Remove what is of no use, and tell of each; or only tell, if the terms say so.

        What cannot be removed is told of, and keeps nothing else from being removed (B-24).

        Returns:
            Bytes, of those that count against the quota, that a dry run has told of; else 0.

        Raises:
            StorageError: the store cannot be read.

        Cancellation: between two batches; what has been removed is gone.
        """
        if not terms.dry:
            await self._parts.mounts.sweep()
        collector = await self._in_thread(partial(Collector, self._parts, terms))
        steps, told = collector.steps(), 0
        while (step := await self._in_thread(lambda: next(steps, None))) is not None:
            while found := await self._in_thread(partial(_some, step)):
                if terms.dry:
                    outcomes = [Outcome(each, removed=False) for each in found]
                    told += sum(each.size for each in found if _counts(each))
                else:
                    outcomes = await self._remove(found, collector, terms)
                await self._in_thread(partial(tell, outcomes))
        return told

    async def make_room(self, terms: Terms, bounds: Bounds, tell: Tell, *, told: int) -> None:
        """Let go of what is beyond the bounds, and tell of each; or only tell.

        Args:
            terms: those of the collection before; a dry run takes what that told of for gone.
            bounds: how much there may be.
            tell: told of each.
            told: what the collection returned.

        Raises:
            StorageError: the disk, or the records, failed.

        Cancellation: between two batches.
        """
        usage = await self._in_thread(self._parts.room.usage)
        left = usage.within(bounds, told).excess
        if terms.dry:
            aging = await self._in_thread(partial(Aging, self._parts, terms, set()))
            chosen = self._chosen(left + told, lambda item: not aging.is_told(item))
            while left > 0 and (some := await self._in_thread(partial(_some, chosen))):
                left -= sum(each.size for each in some)
                outcomes = [Outcome(each, removed=False) for each in some]
                await self._in_thread(partial(tell, outcomes))
            return
        floor, freed = usage.total - left, 1
        while left > 0 and freed:
            chosen = self._chosen(left, lambda _: True)
            some = await self._in_thread(partial(_some, chosen))
            wanted = min(left, sum(each.size for each in some))
            left -= wanted
            freed = await self._parts.evictor.make_room(wanted, floor + left) if wanted else 0
            left += wanted - freed
            await self._in_thread(partial(self._tell_evicted, some, tell))

    def _chosen(self, count: int, wanted: Callable[[Item], bool]) -> Iterator[Finding]:
        """What the evictor would take first, whole items and parts of streams."""
        for item, spans in self._parts.evictor.plan(count):
            if not wanted(item):
                continue
            size = self._parts.belongings.taken(item)
            if spans and item.stream_key is not None:
                present = self._parts.ledger.present(item.stream_key)
                size = sum(present.intersection(span).total for span in spans)
            yield Finding(Kind.EXCESS, str(item), size, "there is more than there may be", item)

    def _tell_evicted(self, some: Sequence[Finding], tell: Tell) -> None:
        """Tell of those that went, whole or in part: others may have gone instead."""
        items = {each: each.handle for each in some if isinstance(each.handle, Item)}
        gone = [each for each, item in items.items() if self._shrank(item, each.size)]
        tell([Outcome(each, removed=True) for each in gone])

    def _shrank(self, item: Item, size: int) -> bool:
        return self._parts.uses.last(item) is None or self._parts.belongings.taken(item) < size

    async def _remove(
        self, found: Sequence[Finding], collector: Collector, terms: Terms
    ) -> list[Outcome]:
        """Remove findings of one step."""
        try:
            if found[0].kind in _ITEMS:
                return await self._in_thread(partial(self._remove_items, found, collector))
            if found[0].kind is Kind.TREE:
                return await self._in_thread(partial(self._remove_trees, found))
            if found[0].kind in {Kind.REFERENCE, Kind.DOCUMENT}:
                return await self._in_thread(partial(self._forget, found, terms))
        except StorageError as error:
            return [Outcome(each, removed=False, error=error.line) for each in found]
        outcomes: list[Outcome] = []
        for each in found:
            try:
                outcomes.append(Outcome(each, await self._remove_one(each, collector)))
            except StorageError as error:
                outcomes.append(Outcome(each, removed=False, error=error.line))
        return outcomes

    def _remove_items(self, found: Sequence[Finding], collector: Collector) -> list[Outcome]:
        items = [item for each in found if isinstance(item := each.handle, Item)]
        may_go = {each.handle for each in found if collector.aging.may_go(each)}
        still = [item for item in items if item in may_go]
        self._parts.remover.remove(still)
        gone = {item for item in still if self._parts.uses.last(item) is None}
        return [Outcome(each, each.handle in gone) for each in found]

    def _remove_trees(self, found: Sequence[Finding]) -> list[Outcome]:
        """Withdraw trees, then remove the records of those that no live mount has come to show."""
        parts = self._parts
        numbers: list[int | None] = []
        for each in found:
            tree = each.handle
            if isinstance(tree, TreeRecord):
                numbers.append(tree.number if parts.trees.withdraw(tree) else None)
            else:
                numbers.append(tree if isinstance(tree, int) else None)
        shown = parts.attachments.trees(parts.mounts.live())
        going = [number for number in numbers if number is not None and number not in shown]
        for number in going:
            parts.trees.clear(number)
        return [Outcome(each, number in going) for each, number in zip(found, numbers, strict=True)]

    def _forget(self, found: Sequence[Finding], terms: Terms) -> list[Outcome]:
        places = [place for each in found if isinstance(place := each.handle, bytes)]
        if found[0].kind is Kind.REFERENCE:
            kept = self._parts.references.forget(places, terms.cutoff_ns)
        else:
            kept = self._parts.documents.forget(places, terms.cutoff_ns / 1e9)
        return [Outcome(each, each.handle not in kept) for each in found]

    async def _remove_one(self, finding: Finding, collector: Collector) -> bool:
        match finding.handle:
            case str() as upload:
                return await self._parts.uploads.discard(upload)
            case bytes() as place:
                return bool(await self._in_thread(lambda: self._parts.uploads.strike([place])))
            case Path() as path:
                return await self._in_thread(lambda: collector.strays.remove(finding, path))
            case _:
                raise TypeError(f"{finding.kind} {finding.name} is removed by nothing")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except OSError as error:
            raise storage_error(error, f"{self._parts.layout.root}: looking after it") from error


def _counts(finding: Finding) -> bool:
    """Whether the bytes of a finding count against the quota."""
    return isinstance(finding.handle, Item) or finding.kind is Kind.QUARANTINE


def _some(step: Iterator[Finding]) -> list[Finding]:
    """The next findings of a step, at most a batch."""
    return list(islice(step, BATCH))
