"""Transactions: records as LMDB has them, each checked, and what LMDB says when one fails.

Every record carries the crc32 of its key and value, seeded with its table's version, so what is
damaged, misplaced or of another version reads as absent and is logged.

With ``environment`` it is lmdb's only door.
"""

import errno
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import lmdb
from typing_extensions import override

from cafs.errors import StorageError, StorageFullError

_LOG: Final = logging.getLogger("cafs.store")
_CRC: Final = struct.Struct("<I")
_MARK: Final = "broken"
"""The file that marks a damaged environment."""
_CUT_SHORT: Final = 1 << 20
"""Bytes left on a disk on which a commit's write may have been cut short: more than it writes."""
_BROKEN: Final = (
    lmdb.BadDbiError,
    lmdb.BadTxnError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.ProblemError,
    lmdb.VersionMismatchError,
)
"""What LMDB says of damaged pages.

A transaction is bad when it met one: nothing goes on after an error here, but LMDB itself swallows
what it met at a table's root (``mdb_cursor_init``). We neither close a table nor change what it is:
one that is another is damaged. Too deep, or too full, no tree of ours can become.
"""
_STRICT: Final = frozenset({"entries", "names"})
"""Tables of which a record that is broken is not absent: a directory would lack a name, and a
program take another file for it."""


class BrokenEnvironmentError(StorageError):
    """The environment's own structure is damaged: nothing in it can be trusted.

    It is marked as such, and cannot be opened any more: some damage shows only where it is read.
    """

    code = "storage-broken"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: the records are damaged: {what}",
            hint="run it again: who is alone with the store makes them anew; if cafs status lists a"
            " mount, unmount that first",
        )


class Table:
    """A named table of one environment, and the version of its records."""

    __slots__ = ("_strict", "handle", "name", "version")

    def __init__(self, name: str, version: int, handle: "lmdb._Database") -> None:
        self._strict = name in _STRICT
        self.name = name
        self.version = version
        self.handle = handle

    def seal(self, key: bytes, value: bytes) -> bytes:
        """The record of a value: its checksum, then the value."""
        return _CRC.pack(zlib.crc32(value, zlib.crc32(key, self.version))) + value

    def seal_all(self, values: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """The records of many values, each with its key."""
        version, crc32, pack = self.version, zlib.crc32, _CRC.pack
        return [(key, pack(crc32(value, crc32(key, version))) + value) for key, value in values]

    def unseal(self, key: bytes, record: bytes) -> bytes | None:
        """The value in a record; None, logged, when it is not what was written.

        Raises:
            StorageError: it is not, and to call it absent would be a lie.
        """
        value = record[_CRC.size :]
        if self.holds(key, record):
            return value
        _LOG.warning("store.record.broken table=%s key=%s", self.name, key.hex())
        if self._strict:
            raise StorageError(f"a record of {self.name} is damaged", hint="cafs verify mends it")
        return None

    def holds(self, key: bytes, record: bytes) -> bool:
        """Whether a record is what was written."""
        crc = zlib.crc32(memoryview(record)[_CRC.size :], zlib.crc32(key, self.version))
        return record[: _CRC.size] == _CRC.pack(crc)


class Snapshot:
    """A read transaction: one consistent view, held for microseconds.

    Concurrency: one thread; never across an await.
    """

    __slots__ = ("_path", "_transaction")

    def __init__(self, transaction: "lmdb.Transaction[bytes]", path: Path) -> None:
        self._transaction = transaction
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transaction.abort()

    def _failed(self, error: lmdb.Error) -> StorageError:
        """What to raise where it fails: of two that end together, neither knows whose it was."""
        return translated(error, self._path)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value at a key, None when there is none."""
        try:
            record = self._transaction.get(key, db=table.handle)
        except lmdb.Error as error:
            raise self._failed(error) from error
        return None if record is None else table.unseal(key, record)

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The record with the greatest key that is not above ``key``, None when there is none."""
        try:
            cursor = self._transaction.cursor(table.handle)
            above = cursor.set_range(key)
            if not (cursor.key() == key or cursor.prev() if above else cursor.last()):
                return None
            at, record = cursor.item()
        except lmdb.Error as error:
            raise self._failed(error) from error
        value = table.unseal(at, record)
        return None if value is None else (at, value)

    def last_key(self, table: Table) -> bytes:
        """The greatest key of a table, whatever its record is; empty when the table is."""
        try:
            cursor = self._transaction.cursor(table.handle)
            return cursor.key() if cursor.last() else b""
        except lmdb.Error as error:
            raise self._failed(error) from error

    def scan(self, table: Table, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The records with ``start <= key < stop``, ascending. Broken ones are left out."""
        try:
            cursor = self._transaction.cursor(table.handle)
            if not cursor.set_range(start):
                return
            for key, record in cursor:
                if key >= stop:
                    return
                value = table.unseal(key, record)
                if value is not None:
                    yield key, value
        except lmdb.Error as error:
            raise self._failed(error) from error


class Batch(Snapshot):
    """A write transaction: committed as a whole, or not at all. It reads its own writes."""

    __slots__ = ()

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            super().__exit__(kind, error, trace)
            if isinstance(error, lmdb.Error):
                raise self._failed(error) from error
            return
        try:
            self._transaction.commit()
        except lmdb.Error as failure:
            raise translated(failure, self._path) from failure

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Write a record, over one that may be there."""
        self._transaction.put(key, table.seal(key, value), db=table.handle)

    def put_all(self, table: Table, values: Iterable[tuple[bytes, bytes]]) -> None:
        """``put`` for many records, best by ascending keys: one call, not one each."""
        self._transaction.cursor(table.handle).putmulti(table.seal_all(values))

    def put_new(self, table: Table, sealed: Sequence[tuple[bytes, bytes]]) -> bool:
        """Write many records, sealed, best by ascending keys; whether no key had one before.

        One that had keeps what it had; whoever is told so lets the transaction fail.
        """
        cursor = self._transaction.cursor(table.handle)
        _, added = cursor.putmulti(sealed, overwrite=False)
        return added == len(sealed)

    def delete(self, table: Table, key: bytes) -> bool:
        """Remove a record; whether there was one."""
        return self._transaction.delete(key, db=table.handle)

    def delete_broken(self, table: Table, key: bytes) -> bool:
        """Remove a record if it is not what was written; whether it was so."""
        record = self._transaction.get(key, db=table.handle)
        if record is None or table.holds(key, record):
            return False
        return self.delete(table, key)

    def clear(self, table: Table, start: bytes, stop: bytes, limit: int) -> int:
        """Remove at most ``limit`` records with ``start <= key < stop``; how many it were."""
        cursor = self._transaction.cursor(table.handle)
        count = 0
        found = cursor.set_range(start)
        while found and count < limit and cursor.key() < stop:
            found = cursor.delete() and bool(cursor.key())
            count += 1
        return count


def after(prefix: bytes) -> bytes:
    """The first key behind all keys that begin with ``prefix``, for ``scan`` and ``clear``."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\xff" * 512


def mark_broken(path: Path) -> None:
    """Say that an environment is damaged: nobody opens it any more, and it is made anew.

    Raises:
        OSError: the disk failed, or is full.
    """
    (path / _MARK).touch()


def is_marked(path: Path) -> bool:
    """Whether somebody has said so."""
    return (path / _MARK).exists()


def translated(error: lmdb.Error, path: Path) -> StorageError:
    """The error to raise for one of LMDB's in an environment, which is marked if it is damaged."""
    if isinstance(error, lmdb.MapFullError) or _no_space(error.code, path):
        return StorageFullError(f"{path}: {error}", hint="free space on the store's disk")
    if isinstance(error, _BROKEN):
        # On a full disk there is no mark; then whoever meets the damage next makes it.
        with suppress(OSError):
            mark_broken(path)
        mute = isinstance(error, lmdb.BadTxnError)  # that it must end tells nothing of the damage
        return BrokenEnvironmentError(path, "a page makes no sense" if mute else str(error))
    return StorageError(f"{path}: {error}")


def _no_space(code: int, path: Path) -> bool:
    """Whether an errno of LMDB means a full disk: it calls a write that was cut short EIO."""
    if code != errno.EIO:
        return code in {errno.ENOSPC, errno.EDQUOT}
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize < _CUT_SHORT
