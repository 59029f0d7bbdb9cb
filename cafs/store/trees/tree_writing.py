"""Writing a tree: buffered, in short transactions, and visible only when it is complete."""

import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from cafs.errors import MalformedError, StorageError
from cafs.labour import worked
from cafs.model.digest import Digest
from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Entry
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.store.db.transactions import Batch, after
from cafs.store.disk.files import storage_error
from cafs.store.disk.locking import SpanLock
from cafs.store.tables.records import pack_entry, pack_segment, unpack_entry
from cafs.store.tables.tree_tables import (
    TreeTables,
    draft_key,
    entry_key,
    name_in,
    name_key,
    number_key,
    pack_number,
    segment_key,
    unpack_number,
)
from cafs.store.trees.member_rows import MemberRows

_LOG: Final = logging.getLogger("cafs.store")
BATCH: Final = 4096
"""Entries, names and segments written in one transaction: about 20 ms."""
WEIGHT: Final = 16 << 20
"""Bytes of what entries may have without end (attributes, sparse maps) that may wait for one."""
PURGE: Final = 20_000
"""Records removed in one transaction: about 20 ms."""
_PIECE: Final = 128
"""Bytes that a piece of a sparse map takes, its numbers included."""
NAME_LENGTH: Final = 255
"""Bytes in a name: what Linux file systems take."""


class TreeWriter:
    """Writes one tree; a context manager. What is not published when it ends is removed.

    Memory is bounded: at most ``BATCH`` changes wait, and ``WEIGHT`` bytes in them. Reads see what
    waits.

    Concurrency: one worker thread; everything may block.
    """

    def __init__(self, tables: TreeTables, identity: TreeIdentity) -> None:
        self._tables = tables
        self._identity = identity
        self._tree = 0
        self._lock = SpanLock(None)
        self._published = False
        self._entries: dict[int, Entry] = {}
        self._weight = 0
        self._names: dict[int, dict[bytes, int | None]] = {}
        self._bindings = 0
        self._segments: list[tuple[int, Segment, bytes]] = []
        self._members = MemberRows()
        self.count = 0

    def __enter__(self) -> Self:
        """Take a number.

        Raises:
            StorageError: the store cannot be written.
        """
        try:
            self._tree = self._tables.index.apply(self._begin)
        except OSError as error:
            raise storage_error(error, "a new tree") from error
        except StorageError:
            # Nobody has that number; the next tree will.
            self._lock.release()
            raise
        return self

    def _begin(self, batch: Batch) -> int:
        """Take a number, and its lock before anybody can see it."""
        self._lock.release()
        number = self._tables.allocate(batch)
        self._lock = self._tables.hold(number)
        return number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self._published:
                self._tables.purge(self._tree, PURGE)
        except StorageError as failure:
            # The number stays marked as a draft, and is purged by gc, or who opens the store alone.
            _LOG.warning("store.tree.abandoned tree=%d error=%s", self._tree, failure.line)
        finally:
            self._lock.release()

    def add(self, entry: Entry) -> int:
        """Add an entry, and bind it to its name in its parent; returns its number.

        The first is the root. A name that was bound means the new entry from now on.

        Raises:
            MalformedError: the name is longer than a name can be.
            StorageError: the store cannot be written.
        """
        number = self.count
        if len(entry.name) > NAME_LENGTH:
            shown = entry.name[:40].decode("utf-8", "backslashreplace")
            raise MalformedError(f"{shown}…: a name of {len(entry.name)} bytes")
        self.count += 1
        if number != ROOT:
            self._note(entry.parent, entry.name, number)
        self._wait(number, entry)
        return number

    def entry(self, number: int) -> Entry:
        """The entry of a number.

        Raises:
            KeyError: there is none.
        """
        waiting = self._entries.get(number)
        if waiting is not None:
            return waiting
        tables = self._tables
        raw = tables.index.get(tables.entries, entry_key(self._tree, number))
        if raw is None:
            raise KeyError(number)
        return unpack_entry(raw)

    def replace(self, number: int, entry: Entry) -> None:
        """Let a number mean a changed entry, of the same name and parent.

        Raises:
            KeyError: there is no such number.
            ValueError: another name or parent.
        """
        old = self.entry(number)
        if (old.parent, old.name) != (entry.parent, entry.name):
            raise ValueError(f"entry {number} is {old.name!r}, not {entry.name!r}")
        self._wait(number, entry)

    def _wait(self, number: int, entry: Entry) -> None:
        self._entries[number] = entry
        if entry.sha256:
            self._members.add(entry.sha256, number)
        if entry.xattrs or entry.sparse:
            self._weight += _weight(entry)
        if len(self._entries) >= BATCH or self._weight >= WEIGHT:
            self.flush()

    def child(self, parent: int, name: bytes) -> int | None:
        """The number that a name means in a directory, None when it means nothing."""
        waiting = self._names.get(parent, {})
        if name in waiting:
            return waiting[name]
        tables = self._tables
        raw = tables.index.get(tables.names, name_key(self._tree, parent, name))
        return None if raw is None else unpack_number(raw)

    def unbind(self, parent: int, name: bytes) -> None:
        """Let a name mean nothing; the entry itself stays, for hard links to it."""
        self._note(parent, name, None)
        if self._bindings >= BATCH:
            self.flush()

    def _note(self, parent: int, name: bytes, number: int | None) -> None:
        self._names.setdefault(parent, {})[name] = number
        self._bindings += 1

    def children(self, parent: int) -> Iterator[tuple[bytes, int]]:
        """The names of a directory and what they mean, by name, as they are now.

        The directory may be changed between two steps; then either answer may come.
        """
        start: bytes | None = b""
        while start is not None:
            page, start = self._page(parent, start)
            yield from page

    def _page(self, parent: int, start: bytes) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """A directory's names from ``start`` on, and where the next page starts.

        What waits is merged in, not written for it: a listing costs no commit.
        """
        tables = self._tables
        prefix = name_key(self._tree, parent, b"")
        bound: dict[bytes, int | None] = {}
        following: bytes | None = None
        with tables.index.read() as snapshot:
            for key, raw in snapshot.scan(tables.names, prefix + start, after(prefix)):
                bound[name_in(key)] = unpack_number(raw)
                if len(bound) == BATCH:
                    following = name_in(key) + b"\0"
                    break
        worked()
        bound |= {
            name: number
            for name, number in self._names.get(parent, {}).items()
            if name >= start and (following is None or name < following)
        }
        page = [(name, number) for name, number in bound.items() if number is not None]
        return sorted(page), following

    def add_segment(self, stream: int, segment: Segment, window: bytes = b"") -> None:
        """Add a segment of one of the tree's streams. Empty ones need none, and are left out.

        ``window`` is what its codec must have before it, packed; empty where it needs nothing.
        """
        if not segment.length:
            return
        self._segments.append((stream, segment, window))
        self._weight += len(window)
        if len(self._segments) >= BATCH or self._weight >= WEIGHT:
            self.flush()

    def flush(self) -> None:
        """Write what waits.

        Raises:
            StorageError: the store cannot be written; what waits still waits.
        """
        if self._entries or self._names or self._segments:
            self._tables.index.apply(self._write)
            self._entries.clear()
            self._weight = 0
            self._names.clear()
            self._bindings = 0
            self._segments.clear()
            worked()

    def _write(self, batch: Batch) -> None:
        tables, tree = self._tables, self._tree
        entries = (
            (entry_key(tree, each), pack_entry(self._entries[each]))
            for each in sorted(self._entries)
        )
        batch.put_all(tables.entries, entries)
        bindings: list[tuple[bytes, bytes]] = []
        for parent in sorted(self._names):
            names = self._names[parent]
            for name in sorted(names):
                key, bound = name_key(tree, parent, name), names[name]
                if bound is None:
                    batch.delete(tables.names, key)
                else:
                    bindings.append((key, pack_number(bound)))
        batch.put_all(tables.names, bindings)
        keys = [segment_key(tree, stream, segment.start) for stream, segment, _ in self._segments]
        packed = (pack_segment(segment) for _, segment, _ in self._segments)
        batch.put_all(tables.segments, zip(keys, packed, strict=True))
        windows = [
            (key, each[2]) for key, each in zip(keys, self._segments, strict=True) if each[2]
        ]
        batch.put_all(tables.windows, windows)

    def publish(
        self,
        streams: tuple[TreeStream, ...],
        digest: Digest | None,
        *,
        members: bool = False,
        first: bool = False,
    ) -> TreeRecord:
        """Make the tree what its identity means; the record is written last.

        A tree that the identity meant before stays readable by its number for those who use it.

        Args:
            streams: what the entries' ``stream`` numbers mean.
            digest: of the raw blob, when it was seen whole.
            members: whether what is in it is to be found by digest; only with ``digest``.
            first: whether a tree that the identity means already stays what it means; this one is
                not published then.

        Returns:
            the record of the tree that the identity means now.

        Raises:
            StorageError: the store cannot be written; nothing is published.
        """
        self.flush()
        if members and digest is not None:
            self._members.write(self._tables, self._tree)
        tables = self._tables
        record = TreeRecord(
            number=self._tree,
            identity=self._identity,
            count=self.count,
            streams=streams,
            digest=digest,
        )
        key = bytes.fromhex(self._identity)

        def change(batch: Batch) -> TreeRecord:
            old = tables.records.unpack(batch.get(tables.trees, key))
            if old is not None and first:
                return old
            if old is not None:
                batch.put(tables.drafts, draft_key(old.number), b"")
            batch.put(tables.trees, key, tables.records.pack(record))
            batch.put(tables.numbers, number_key(self._tree), key)
            batch.delete(tables.drafts, draft_key(self._tree))
            return record

        meant = tables.index.apply(change)
        self._published = meant is record
        return meant


def _weight(entry: Entry) -> int:
    """About how many bytes of memory an entry's attributes and sparse map take."""
    attributes = sum(len(name) + len(value) for name, value in entry.xattrs)
    return attributes + _PIECE * len(entry.sparse or ())
