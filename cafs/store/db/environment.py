"""Key-value environments with checked records: LMDB directories, opened; see ``transactions``.

An environment is one LMDB directory with named tables. Reads never wait for writes. Write
transactions are short; they run in worker threads, one at a time in this process, and LMDB's own
lock orders them across processes.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import lmdb
import trio

from cafs.errors import StorageError, StorageFullError
from cafs.store.db import reader_slots
from cafs.store.db.btree import Walk
from cafs.store.db.btree_pages import DamageError, metas
from cafs.store.db.grouping import Grouping
from cafs.store.db.transactions import (
    Batch,
    BrokenEnvironmentError,
    Snapshot,
    Table,
    is_marked,
    translated,
)
from cafs.store.disk.files import storage_error

T = TypeVar("T")
MAP_SIZE: Final = 1 << 40
"""Address space of one environment. Reserved, not used: the file grows with its content."""
READERS: Final = 4096
"""Read transactions at one time, over all processes."""
_PAGE: Final = 1024
"""Records of a page: about a millisecond."""
_ROOM: Final = b"\0room"
"""The key of what only takes room, for a moment."""
_GROWTH: Final = 1 << 30
"""Address space for what others write while a commit is pinned."""


class Environment:
    """One LMDB directory.

    Concurrency: any number of threads and processes. A directory is opened once in a process.
    """

    def __init__(
        self,
        path: Path,
        tables: Mapping[str, int],
        *,
        synced: bool,
        make_room: Callable[[], bool],
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open, creating what is missing. Blocks; belongs in a thread.

        Args:
            path: the directory.
            tables: the version of the records of each table, by name.
            synced: whether a commit outlives a power cut. Without, it outlives the process.
            make_room: frees some disk space; whether there was anything to free.
            full: whether the disk is taken for full, so that only urgent changes are made.

        Raises:
            BrokenEnvironmentError: damaged.
            StorageFullError: no space to create it.
            StorageError: it cannot be opened, or is open in this process.
        """
        self.path = path
        self._make_room = make_room
        self._full = full
        self._limiter = trio.CapacityLimiter(1)
        self._grouping: Grouping[Batch] = Grouping(self.apply, self._limiter)
        try:
            reader_slots.settle(path / "lock.mdb", READERS, make_room)
        except OSError as error:
            raise storage_error(error, f"{path}: its readers have no room") from error
        try:
            self._environment = lmdb.Environment(
                os.fsencode(path),
                map_size=MAP_SIZE,
                max_readers=READERS,
                max_dbs=len(tables),
                max_spare_txns=8,
                mode=0o600,
                sync=synced,
                metasync=synced,
                readahead=False,
            )
            try:
                self._tables = self._opened(tables)
            except BaseException:
                self._environment.close()  # else it stays open as long as the error is handled
                raise
        except lmdb.Error as error:
            raise translated(error, path) from error

    def _opened(self, tables: Mapping[str, int]) -> dict[str, Table]:
        self._check_whole()
        self._environment.reader_check()
        with self._environment.begin(write=True) as transaction:
            return {
                name: Table(
                    name, version, self._environment.open_db(name.encode(), txn=transaction)
                )
                for name, version in tables.items()
            }

    def _check_whole(self) -> None:
        """Refuse what was found damaged before, or lacks its end: a look there would kill us.

        Raises:
            BrokenEnvironmentError: it is so.
        """
        if is_marked(self.path):
            reason = "they were found so before"
        else:
            needed = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
            if (self.path / "data.mdb").stat().st_size >= needed or self._has_all():
                return
            reason = "their file was cut short"
        raise BrokenEnvironmentError(self.path, reason)

    def _has_all(self) -> bool:
        """Whether a file that is shorter than its pages has all that are in use.

        A page that was taken and let go of in one transaction is free, and was never written.
        """
        descriptor = os.open(self.path / "data.mdb", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with self._environment.begin() as transaction:
                number = transaction.id()
                meta = next((each for each in metas(descriptor) if each.number == number), None)
                if meta is not None:  # else two commits came between, of others who can read it
                    Walk(descriptor, meta, {}).run()
        except DamageError:
            return False
        finally:
            os.close(descriptor)
        return True

    def close(self) -> None:
        """Let go of the directory; nothing else may be called afterwards."""
        self._environment.close()

    def reserve(self, name: str, length: int) -> None:
        """Keep room in the file, in which small changes go on when the disk is full. Blocks.

        Pages that were written once are used again; nothing is done where the file is larger.

        Args:
            name: a table; it stays as it is.
            length: bytes.

        Raises:
            StorageFullError: there is no such room on the disk.
        """
        if (self.path / "data.mdb").stat().st_size >= length:
            return
        self.grow(name, length)

    def grow(self, name: str, length: int) -> None:
        """Let the file grow by room for small changes; as ``reserve``."""
        table = self._tables[name]
        # What one change lets go of only the next but one may use.
        for value in (bytes(length), b""):
            self._apply(partial(_put, table=table, value=value))
        self._apply(lambda batch: batch.delete(table, _ROOM))

    def table(self, name: str) -> Table:
        """The table that was opened under this name."""
        return self._tables[name]

    def read(self) -> Snapshot:
        """Begin a read transaction; use as a context manager."""
        try:
            return Snapshot(self._environment.begin(), self.path)
        except lmdb.Error as error:
            raise translated(error, self.path) from error

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value at a key, in a transaction of its own."""
        with self.read() as snapshot:
            return snapshot.get(table, key)

    def version(self) -> int:
        """A number that rises with every commit, of whichever process."""
        return int(self._environment.info()["last_txnid"])

    def pages(
        self, table: Table, start: bytes = b"", stop: bytes = b"\xff" * 512
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """The records with ``start <= key < stop``, ascending, some at a time.

        Each page is as the table is when it is read, in a transaction of its own: a walk over a
        million records keeps nobody's pages from being used again.
        """
        while True:
            page: list[tuple[bytes, bytes]] = []
            with self.read() as snapshot:
                for record in snapshot.scan(table, start, stop):
                    page.append(record)
                    if len(page) == _PAGE:
                        break
            if page:
                yield page
            if len(page) < _PAGE:
                return
            start = page[-1][0] + b"\0"

    def apply(self, change: Callable[[Batch], T], *, urgent: bool = False) -> T:
        """Run a change in a write transaction. Blocks; for code in worker threads.

        Args:
            change: called once, or twice where room was made; short, without I/O of its own.
            urgent: removes things, or a mount cannot go on without it: it is worth the ballast when
                the disk is full.

        Raises:
            StorageFullError: the disk is full; nothing has changed.
            StorageError: the commit failed; nothing has changed.
        """
        if not urgent and self._full():
            raise StorageFullError(
                f"{self.path}: the disk is full", hint="free space on the store's disk"
            )
        try:
            return self._apply(change)
        except StorageFullError:
            if not urgent:
                raise
        self._make_room()  # where that was nothing, another process may have done it since
        return self._apply(change)

    def _apply(self, change: Callable[[Batch], T]) -> T:
        try:
            transaction = self._environment.begin(write=True)
        except lmdb.Error as error:
            raise translated(error, self.path) from error
        with Batch(transaction, self.path) as batch:
            return change(batch)

    async def commit(self, change: Callable[[Batch], T], *, urgent: bool = False) -> T:
        """``apply`` in a thread; changes that wait at the same time are committed together.

        Cancellation: all or nothing; once begun it is carried through.
        """
        try:
            return await self._grouping.commit(change)
        except StorageFullError:
            if not urgent:
                raise
        return await trio.to_thread.run_sync(
            partial(self.apply, change, urgent=urgent), limiter=self._limiter
        )


@contextmanager
def pinned(path: Path) -> Iterator[int]:
    """Keep what the last commit has written from being written over; gives the commit's number.

    Nothing is read through LMDB. It may kill the process all the same when the file is damaged, so
    it is for a process of its own.

    Raises:
        StorageError: it cannot be opened, or grows too fast.
    """
    size = (path / "data.mdb").stat().st_size
    try:
        with (
            closing(
                lmdb.Environment(
                    os.fsencode(path),
                    map_size=2 * size + _GROWTH,
                    max_readers=READERS,
                    readonly=True,
                )
            ) as environment,
            environment.begin() as transaction,
        ):
            yield transaction.id()
    except lmdb.Error as error:
        raise StorageError(f"{path}: {error}") from error


def _put(batch: Batch, table: Table, value: bytes) -> None:
    batch.put(table, _ROOM, value)
