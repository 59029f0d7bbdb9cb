"""Verifying: all that a store has is read and held against what it should be, or a share of it.

Blobs are hashed, streams are held against their sums, records against files and files against
records. It goes on beside everybody else who uses the store, item by item, in a few threads and in
memory that does not grow with the store.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import trio

from cafs.errors import StorageError
from cafs.model.digest import Digest
from cafs.model.item import Item
from cafs.store.db.btree import BrokenRecord
from cafs.store.db.environment import Environment
from cafs.store.disk.door import is_foreign
from cafs.store.disk.files import storage_error
from cafs.store.disk.layout import Layout
from cafs.store.health.blob_checking import BlobChecker
from cafs.store.health.checking import Choose, Found, Look, Prefer
from cafs.store.health.leafing import Leafer
from cafs.store.health.recovery import lying, named, restore_blob
from cafs.store.health.redress import redress
from cafs.store.health.stream_checking import StreamChecker
from cafs.store.space.room import Room
from cafs.store.streams.shelf import Shelf
from cafs.store.tables.blob_records import BlobRecords

_THREADS: Final = 2
"""Items that are checked at once: one is hashed while another is opened, looked up or recorded."""
_REPORT_S: Final = 0.2
"""Between two words about how far it is."""
_WHOLE: Final = 100.0
_RANGE: Final = 1 << 64


class Progress(msgspec.Struct):
    """How far a verification is. ``checked`` and ``total`` are bytes; ``total`` may grow late."""

    checked: int = 0
    total: int = 0
    items: int = 0


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be verified.

    ``items`` are those that are meant, None for all. Of all bytes a share of ``percent`` is
    checked; which, follows from ``seed``.
    """

    items: frozenset[Item] | None = None
    percent: float = _WHOLE
    seed: int = 0

    def choose(self) -> Choose | None:
        """What says which parts are to be checked; None when all are."""
        if self.percent >= _WHOLE:
            return None
        limit = int(self.percent / _WHOLE * _RANGE)
        salt = self.seed.to_bytes(8, "big", signed=False)

        def chosen(item: Item, start: int) -> bool:
            text = item.key + start.to_bytes(8, "big")
            drawn = hashlib.blake2b(text, digest_size=8, salt=salt).digest()
            return int.from_bytes(drawn, "big") < limit

        return chosen


class Adopted(msgspec.Struct, frozen=True):
    """What became of the files among the blobs that no record names.

    ``blobs`` have become blobs again, as many as ``aside`` were not what their names say, and were
    put aside. What is ``foreign`` is no file, and was left alone.
    """

    blobs: int
    aside: int
    foreign: tuple[Path, ...] = ()


class _Job(msgspec.Struct):
    """What the threads of one verification share."""

    progress: Progress
    choose: Choose | None
    prefer: Prefer
    items: Iterator[Item] = msgspec.field(default_factory=lambda: iter(()))
    lock: threading.Lock = msgspec.field(default_factory=threading.Lock)
    made: set[Item] = msgspec.field(default_factory=set)
    """Streams that damaged blobs have become: they are right but for what is known."""
    wrong: int = 0
    """How many items were not as they should be."""

    def next(self) -> Item | None:
        with self.lock:
            return next((item for item in self.items if item not in self.made), None)

    def seen(self, count: int) -> None:
        """Count bytes, and end the thread when nobody waits for it any more."""
        with self.lock:
            self.progress.checked += count
        trio.from_thread.check_cancelled()


class Verifier:
    """Verifies an open store.

    Concurrency: any number of tasks and processes.
    """

    def __init__(
        self,
        layout: Layout,
        index: Environment,
        recent: Environment,
        *,
        shelf: Shelf,
        records: BlobRecords,
        room: Room,
    ) -> None:
        self._layout = layout
        self._environments = {index.path: index, recent.path: recent}
        self._shelf = shelf
        self._records = records
        self._room = room
        self._blobs = BlobChecker(layout, shelf, records)
        self._streams = StreamChecker(index, recent, shelf, records)

    async def redress(self, path: Path, broken: Iterable[BrokenRecord]) -> list[str]:
        """Remove the broken records that ``walking`` has found in an environment.

        What they stood for was counted, and so was what is made again: all is counted anew.

        Returns:
            What was lost by each, for people.

        Raises:
            StorageError: they cannot be removed.

        Cancellation: the rest reads as absent, as before.
        """
        environment = self._environments.get(path)
        if environment is None:
            return []
        told = await trio.to_thread.run_sync(redress, environment, tuple(broken))
        if told:
            await trio.to_thread.run_sync(self._room.recount)
        return told

    async def adopt(self) -> Adopted:
        """Make blobs of the files among them that no record names, where they are what they say.

        Returns:
            What was done. All is counted anew then.

        Raises:
            StorageError: the disk failed.

        Cancellation: between two files; the rest is fetched again when it is needed.
        """
        adopted = await trio.to_thread.run_sync(self._adopt)
        if adopted.blobs or adopted.aside:
            await trio.to_thread.run_sync(self._room.recount)
        return adopted

    def _adopt(self) -> Adopted:
        adopted, aside, foreign = 0, 0, list[Path]()
        try:
            for path in lying(self._layout):
                digest = named(path)
                if digest is not None and self._records.get(digest) is not None:
                    continue
                trio.from_thread.check_cancelled()
                restored = self._restored(digest, path)
                adopted += restored is True
                aside += restored is False
                if restored is None and is_foreign(path):
                    foreign.append(path)
        except OSError as error:
            raise storage_error(error, f"{self._layout.root}: its blobs cannot be read") from error
        return Adopted(adopted, aside, tuple(foreign))

    def _restored(self, digest: Digest | None, path: Path) -> bool | None:
        """``restore_blob``, while nobody else names or removes its file.

        None where there is nothing to be done: it has been recorded or removed meanwhile, or is no
        file.
        """
        holds = self._shelf.holds
        try:
            if digest is None:
                return restore_blob(self._layout, self._records, path)
            with holds.hold_here(Item.blob(digest)), holds.naming([digest]):
                # Who has just brought it names its file first, and records it then.
                if self._records.get(digest) is not None:
                    return None
                return restore_blob(self._layout, self._records, path)
        except FileNotFoundError:
            return None

    async def verify(
        self,
        scope: Scope,
        *,
        found: Callable[[Found], None],
        report: Callable[[Progress], None],
        prefer: Prefer = lambda _digest, _streams: None,
    ) -> Progress:
        """Check items, and take out what is wrong; after that, all is counted anew.

        Args:
            scope: which.
            found: told of each that was wrong, when it has been taken out.
            report: told from time to time how far it is.
            prefer: says which stream a damaged blob is to be.

        Returns:
            What was checked.

        Raises:
            StorageError: the disk failed, or the records cannot be read or written.

        Cancellation: what has been found is taken out; the rest is as it was.
        """
        progress = Progress()
        job = _Job(progress, scope.choose(), prefer)
        async with trio.open_nursery() as around:
            around.start_soon(_reporting, progress, report)
            progress.total = await trio.to_thread.run_sync(self._weigh, scope)
            # Streams after all blobs: by then it is known which were blobs a moment ago.
            for job.items in (self._blobs_of(scope), self._streams_of(scope)):
                async with trio.open_nursery() as nursery:
                    for _ in range(_THREADS):
                        nursery.start_soon(partial(trio.to_thread.run_sync, self._work, job, found))
            around.cancel_scope.cancel()
        if job.wrong or not await trio.to_thread.run_sync(self._room.counted):
            await trio.to_thread.run_sync(self._room.recount)
        report(progress)
        return progress

    def _blobs_of(self, scope: Scope) -> Iterator[Item]:
        if scope.items is not None:
            return iter(sorted(item for item in scope.items if item.digest is not None))
        return map(Item.blob, self._records.digests())

    def _streams_of(self, scope: Scope) -> Iterator[Item]:
        if scope.items is not None:
            yield from sorted(item for item in scope.items if item.digest is None)
            return
        for key, record in self._shelf.ledger.all():
            if record.digest is None or self._records.get(record.digest) is None:
                yield Item.stream(key)

    def _weigh(self, scope: Scope) -> int:
        """About how many bytes there are to check."""
        total = 0
        for number, item in enumerate(chain(self._blobs_of(scope), self._streams_of(scope))):
            if not number % 1024:
                trio.from_thread.check_cancelled()
            if item.digest is not None:
                record = self._records.get(item.digest)
                total += 0 if record is None else record.size
            elif item.stream_key is not None:
                known = self._shelf.ledger.record(item.stream_key)
                if known is not None and known.digest is None:
                    total += self._shelf.ledger.present(item.stream_key).total
        return int(total * scope.percent / _WHOLE)

    def _work(self, job: _Job, found: Callable[[Found], None]) -> None:
        with Leafer() as leafer:
            look = Look(leafer, job.seen, job.choose, job.prefer)
            while (item := job.next()) is not None:
                job.seen(0)
                counts = self._has_bytes(item)
                each = self._check(item, look)
                with job.lock:
                    job.progress.items += counts
                    job.wrong += each is not None
                    if each is not None and each.key is not None:
                        job.made.add(Item.stream(each.key))
                if each is not None:
                    trio.from_thread.run_sync(found, each)

    def _has_bytes(self, item: Item) -> bool:
        """Whether it counts: what a blob came as has none, though the blob be no more."""
        key = item.stream_key
        record = None if key is None else self._shelf.ledger.record(key)
        return record is None or record.digest is None

    def _check(self, item: Item, look: Look) -> Found | None:
        try:
            if item.digest is not None:
                return self._blobs.check(item.digest, look)
            if item.stream_key is not None:
                return self._streams.check(item.stream_key, look)
        except OSError as error:
            raise storage_error(error, f"verifying {item}") from error
        raise StorageError(f"{item} is no item")


async def _reporting(progress: Progress, report: Callable[[Progress], None]) -> None:
    while True:
        await trio.sleep(_REPORT_S)
        report(progress)
