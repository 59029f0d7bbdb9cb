"""The tables of trees, and how their keys are made.

All keys begin with the tree's number, big-endian, so that a tree is a contiguous run of each table:
``entries`` (number -> entry), ``names`` (parent, name -> number), ``segments`` (stream, start ->
segment), ``windows`` (stream, start -> what a segment's codec must have before it), ``contents``
(stream, start -> digest). ``members`` has the digests of all trees, with the
tree's number behind, ``numbers`` the identity of a tree. ``trees`` has the record of each published
tree by identity; ``drafts`` the numbers whose records belong to no published tree: being written,
abandoned, replaced or deleted. ``counters`` has the number of the last tree.
"""

import struct
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final

from cafs.model.record import TreeRecord
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Table, after
from cafs.store.disk import locking
from cafs.store.disk.locking import SpanLock
from cafs.store.tables.records import Packed, digest_in

_TREE: Final = struct.Struct(">Q")
_ENTRY: Final = struct.Struct(">QI")
_SEGMENT: Final = struct.Struct(">QBQ")
_NUMBER: Final = struct.Struct(">I")
_COUNTER: Final = b"tree"
NUMBER_BYTES: Final = _NUMBER.size
"""Bytes of an entry's number, which its key ends with."""
START_BYTES: Final = 8
"""Bytes of where a segment starts, which its key ends with."""
LEAD: Final = 8
"""Bytes of a digest that are in a member's key: two members of one tree do not have the same by
accident, and who makes such two hides one of his own."""
_MEMBERS: Final = 4096
"""Records with members that are removed in one transaction: about 20 ms."""


class TreeTables:
    """Tables and keys; no state of its own.

    Concurrency: any number of threads and processes.
    """

    def __init__(self, index: Environment, drafts: Path | None = None) -> None:
        """``drafts`` is the file whose bytes are locked by who writes trees; None for no file."""
        self.index = index
        self._locks = drafts
        self.entries = index.table("entries")
        self.names = index.table("names")
        self.segments = index.table("segments")
        self.windows = index.table("windows")
        self.trees = index.table("trees")
        self.numbers = index.table("numbers")
        self.members = index.table("members")
        self.contents = index.table("contents")
        self.drafts = index.table("drafts")
        self.records = Packed(TreeRecord)
        self._counters = index.table("counters")

    def allocate(self, batch: Batch) -> int:
        """Take the next tree number, and note it as a draft."""
        last = batch.get(self._counters, _COUNTER)
        number = 1 + (self._highest(batch) if last is None else int(_TREE.unpack(last)[0]))
        batch.put(self._counters, _COUNTER, _TREE.pack(number))
        batch.put(self.drafts, _TREE.pack(number), b"")
        return number

    def _highest(self, batch: Batch) -> int:
        """The highest number that any record has: the counter may be what a disk has damaged."""
        found = (batch.last_key(table) for table in (self.entries, self.names, self.drafts))
        return max(int(_TREE.unpack(key[: _TREE.size])[0]) if key else 0 for key in found)

    def clearing(self, tree: int, limit: int) -> list[Callable[[Batch], bool]]:
        """What removes a draft: each step is to be applied until it says that nothing is left.

        Args:
            tree: its number.
            limit: records that one step removes at most.
        """
        prefix = _TREE.pack(tree)
        tables = (self.names, self.segments, self.windows)
        steps = [
            self._clearing_members(self.contents, prefix, bytes),
            self._clearing_members(self.entries, prefix, digest_in),
            *(_clearing(table, prefix, limit) for table in tables),
        ]

        def unmark(batch: Batch) -> bool:
            batch.delete(self.numbers, prefix)
            batch.delete(self.drafts, prefix)
            return False

        # The mark goes last: until then it tells that there may be something.
        return [*steps, unmark]

    def _clearing_members(
        self, table: Table, prefix: bytes, digest: Callable[[bytes], bytes]
    ) -> Callable[[Batch], bool]:
        """What removes a tree's records from a table, and the members that they have digests of."""
        tree = unpack_tree(prefix)

        def step(batch: Batch) -> bool:
            records = list(islice(batch.scan(table, prefix, after(prefix)), _MEMBERS))
            for key, raw in records:
                raw_digest = digest(raw)
                if raw_digest:
                    batch.delete(self.members, member_key(raw_digest, tree))
                batch.delete(table, key)
            # Records that were damaged are scanned by nobody; they go with the rest.
            more = len(records) == _MEMBERS
            return more or batch.clear(table, prefix, after(prefix), _MEMBERS) == _MEMBERS

        return step

    def purge(self, tree: int, limit: int) -> None:
        """Remove all records of a draft, at most ``limit`` in each transaction. Blocks."""
        for step in self.clearing(tree, limit):
            while self.index.apply(step, urgent=True):
                pass

    def is_draft(self, tree: int) -> bool:
        """Whether a tree's records are of no published tree."""
        return self.index.get(self.drafts, _TREE.pack(tree)) is not None

    def draft_numbers(self) -> list[int]:
        """The trees that ``purge`` is for, once nobody can be using them."""
        with self.index.read() as snapshot:
            return [
                int(_TREE.unpack(key)[0]) for key, _ in snapshot.scan(self.drafts, b"", b"\xff" * 9)
            ]

    def hold(self, tree: int) -> SpanLock:
        """Say that a draft is being written, until the lock is released.

        Raises:
            OSError: the disk failed.
        """
        if self._locks is None:
            return SpanLock(None)
        lock = locking.try_lock(self._locks, _byte(tree), create=True)
        if lock is None:
            raise AssertionError(f"tree {tree} is new, and being written")
        return lock

    def is_held(self, tree: int) -> bool:
        """Whether somebody, in whichever process, writes a draft.

        Raises:
            OSError: the disk failed.
        """
        if self._locks is None:
            return False
        try:
            with self._locks.open("r+b", buffering=0) as file:
                return locking.is_locked(file.fileno(), _byte(tree))
        except FileNotFoundError:
            return False


def _byte(tree: int) -> Span:
    return Span(tree, tree + 1)


def _clearing(table: Table, prefix: bytes, limit: int) -> Callable[[Batch], bool]:
    return lambda batch: batch.clear(table, prefix, after(prefix), limit) == limit


def draft_key(tree: int) -> bytes:
    """The key of a tree's draft mark."""
    return _TREE.pack(tree)


def unpack_tree(prefix: bytes) -> int:
    """The number of the tree whose keys begin so."""
    return int(_TREE.unpack(prefix)[0])


def number_key(tree: int) -> bytes:
    """The key of a tree's identity."""
    return _TREE.pack(tree)


def member_key(digest: bytes, tree: int) -> bytes:
    """The key of a member of a tree: the beginning of its digest, and the tree's number."""
    return digest[:LEAD] + _TREE.pack(tree)


def tree_in(key: bytes) -> int:
    """The number of the tree in a member's key."""
    return int(_TREE.unpack(key[LEAD:])[0])


def content_key(tree: int, stream: int, start: int) -> bytes:
    """The key of what was decoded by itself, by where it lies."""
    return segment_key(tree, stream, start)


def entry_key(tree: int, number: int) -> bytes:
    """The key of an entry."""
    return _ENTRY.pack(tree, number)


def name_key(tree: int, parent: int, name: bytes) -> bytes:
    """The key of a name in a directory; with an empty name, the prefix of the directory."""
    return _ENTRY.pack(tree, parent) + name


def name_in(key: bytes) -> bytes:
    """The name in a name's key."""
    return key[_ENTRY.size :]


def segment_key(tree: int, stream: int, start: int) -> bytes:
    """The key of a segment."""
    return _SEGMENT.pack(tree, stream, start)


def segment_start(key: bytes) -> int:
    """Where the segment of a key begins in its stream."""
    return int(_SEGMENT.unpack(key)[2])


def pack_number(number: int) -> bytes:
    """An entry's number as a value."""
    return _NUMBER.pack(number)


def unpack_number(raw: bytes) -> int:
    """The entry's number in a value."""
    return int(_NUMBER.unpack(raw)[0])
