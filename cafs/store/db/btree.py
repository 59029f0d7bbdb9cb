"""A commit of an LMDB file, walked page by page without LMDB, which trusts every byte of it.

A page that a disk has changed makes LMDB read where nothing is, go round in circles, give the wrong
record, or at the next write use a page that is in use. Here nothing is believed before it was held
against the rest: where a page lies, what its nodes are, the order of its keys against those of the
pages above, how deep and how many the pages of a table are, and that no page is used twice, or is
free and used. What is left are the bytes between the nodes, which nobody reads.

Records are checked as ``transactions`` seals them. One that is wrong is told with its neighbours,
since its key may be what is wrong.

Source: mdb.c of LMDB 0.9; ``mdb_node_search`` does not look at the first key of a branch.
"""

import os
import struct
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from cafs.store.db.btree_pages import (
    BIG,
    BRANCH,
    HEADER,
    LEAF,
    METAS,
    TABLE,
    DamageError,
    Meta,
    Node,
    Tree,
    nodes,
    overflow,
)

_NUMBER: Final = struct.Struct("<Q")
_CRC: Final = struct.Struct("<I")
_INTEGER_KEYS: Final = 8
_NONE: Final = (1 << 64) - 1
_DEEPEST: Final = 32
_LONGEST_KEY: Final = 511
_UNWRITTEN: Final = 1 << 20
"""Pages behind the end of the file at most: those that were free before they were ever written."""
_TELLING: Final = 1024
"""Pages between two words about how many it were."""
BROKEN: Final = 1000
"""Broken records after which no other is believed."""
Edges = tuple[bytes | None, bytes | None]
"""The least key that a page may have, and the least that it may not; None for no such bound."""


class BrokenRecord(NamedTuple):
    """A record that is not what was written, between the last one before and the next that is.

    ``low`` is empty where there is none before, ``high`` is None where there is none behind.
    """

    table: str
    low: bytes
    key: bytes
    high: bytes | None


class _Table(msgspec.Struct):
    """A tree of pages that is being walked, and what was met of it.

    ``visit`` is told of each record. ``last`` is the key before.
    """

    name: str
    tree: Tree
    visit: Callable[[Node, bytes], None]
    integers: bool = False
    branches: int = 0
    leaves: int = 0
    overflows: int = 0
    entries: int = 0
    last: bytes | None = None

    def damage(self, page: int, what: object) -> DamageError:
        """The error for a page."""
        return DamageError(f"{self.name}: page {page}: {what}")

    def check(self, page: int, one: bytes, other: bytes) -> None:
        """Keys are in order.

        Raises:
            DamageError: these are not.
        """
        if self.integers:
            one, other = one[::-1], other[::-1]  # they are numbers, the lowest byte first
        if not one < other:
            raise self.damage(page, "its keys are out of order")


class _Records(msgspec.Struct):
    """The records of one table, held against their checksums."""

    name: str
    version: int
    broken: list[BrokenRecord]
    good: bytes = b""
    waiting: list[bytes] = msgspec.field(default_factory=list)

    def check(self, node: Node, value: bytes) -> None:
        """A record is what was written; if not, it is told when the next good one is known."""
        crc = zlib.crc32(memoryview(value)[_CRC.size :], zlib.crc32(node.key, self.version))
        if value[: _CRC.size] == _CRC.pack(crc):
            if self.waiting:
                self.settle(node.key)
            self.good = node.key
            return
        self.waiting.append(node.key)
        if len(self.broken) + len(self.waiting) > BROKEN:
            raise DamageError(f"more than {BROKEN} records are broken")

    def settle(self, high: bytes | None) -> None:
        """The broken ones that were met lie before this key."""
        self.broken += [BrokenRecord(self.name, self.good, key, high) for key in self.waiting]
        self.waiting.clear()


class Walk:
    """Walks all pages of one commit, which somebody keeps from being written over.

    Args:
        descriptor: the file, open for reading.
        meta: of the commit.
        versions: of the records of each table, by name; of others the records are not checked.
        progress: told now and then how many pages have been seen.
    """

    def __init__(
        self,
        descriptor: int,
        meta: Meta,
        versions: Mapping[str, int],
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._descriptor = descriptor
        self._meta = meta
        self._versions = versions
        self._progress = progress
        self._size = meta.page_size
        pages = os.fstat(descriptor).st_size // self._size
        if not METAS <= meta.last + 1 <= pages + _UNWRITTEN:
            raise DamageError("the file is shorter than its pages")
        self._seen = bytearray(meta.last + 1)
        self._met = 0
        self.broken: list[BrokenRecord] = []

    def run(self) -> dict[str, int]:
        """Check everything; how many records each table has.

        Raises:
            DamageError: something does not fit. What is broken in records alone is in ``broken``.
            OSError: the disk failed.
        """
        self._seen[:METAS] = b"\1" * METAS
        named: list[tuple[str, Tree]] = []

        def list_table(node: Node, value: bytes) -> None:
            if node.flags != TABLE:
                raise DamageError("the list of tables names something else")
            named.append((node.key.decode("ascii", "backslashreplace"), Tree.parse(value)))

        self._walk(_Table("the list of tables", self._meta.main, list_table))
        counts = {name: self._records(name, tree) for name, tree in named}
        # All that is in use has been seen: what is free must not be.
        free = _Table("the list of free pages", self._meta.free, self._free, integers=True)
        self._walk(free)
        return counts

    def _records(self, name: str, tree: Tree) -> int:
        version = self._versions.get(name)
        records = _Records(name, version or 0, self.broken)

        def visit(node: Node, value: bytes) -> None:
            if node.flags & TABLE:
                raise DamageError(f"{name}: a record is called a table")
            if version is not None:
                records.check(node, value)

        table = _Table(name, tree, visit)
        self._walk(table)
        records.settle(None)
        return table.entries

    def _free(self, _node: Node, value: bytes) -> None:
        """Every page of a list of free pages is there, is there once, and is not in use."""
        count = _NUMBER.unpack_from(value)[0] if len(value) >= _NUMBER.size else _NONE
        if len(value) < _NUMBER.size * (count + 1):
            raise DamageError("a list of free pages is cut short")
        for [page] in _NUMBER.iter_unpack(value[_NUMBER.size : _NUMBER.size * (count + 1)]):
            self._mark("the list of free pages", page)

    def _walk(self, table: _Table) -> None:
        tree = table.tree
        wrong = tree.flags & 0x7FFF != (_INTEGER_KEYS if table.integers else 0)
        if wrong or (tree.pad and not table.integers):  # there it is the size of a page
            raise DamageError(f"{table.name}: it is of no kind that is written here")
        if tree.root == _NONE:
            if tree.depth:
                raise DamageError(f"{table.name}: it is deep, and has no pages")
        elif not 0 < tree.depth <= _DEEPEST:
            raise DamageError(f"{table.name}: it is {tree.depth} pages deep")
        else:
            self._page(table, tree.root, 1, (None, None))
        met = (table.branches, table.leaves, table.overflows, table.entries)
        if met != (tree.branches, tree.leaves, tree.overflows, tree.entries):
            raise DamageError(f"{table.name}: its pages or records are not as many as it says")

    def _mark(self, name: str, page: int) -> None:
        if not METAS <= page <= self._meta.last:
            raise DamageError(f"{name}: there is no page {page}")
        if self._seen[page]:
            raise DamageError(f"{name}: page {page} is used twice")
        self._seen[page] = 1
        self._met += 1
        if not self._met % _TELLING:
            self._progress(self._met)

    def _page(self, table: _Table, number: int, depth: int, edges: Edges) -> None:
        """A page, and all below it."""
        self._mark(table.name, number)
        data = os.pread(self._descriptor, self._size, number * self._size)
        leaf = depth == table.tree.depth
        if len(data) < self._size:
            raise table.damage(number, "the file ends before it does")
        try:
            found = list(nodes(data, number, LEAF if leaf else BRANCH))
        except DamageError as error:
            raise table.damage(number, error) from error
        if len(found) < (1 if leaf else 2):
            raise table.damage(number, "it is empty")
        if leaf:
            table.leaves += 1
            self._leaf(table, number, found, edges)
            return
        table.branches += 1
        bounds = [edges[0], *(node.key for node in found[1:]), edges[1]]
        for (low, high), node in zip(pairwise(bounds), found, strict=True):
            if low is not None and high is not None:
                table.check(number, low, high)
            self._page(table, node.child, depth + 1, (low, high))

    def _leaf(self, table: _Table, number: int, found: list[Node], edges: Edges) -> None:
        low, high = edges
        if low is not None and found[0].key != low:
            table.check(number, low, found[0].key)
        if high is not None:
            table.check(number, found[-1].key, high)
        for node in found:
            if node.flags & ~(BIG | TABLE) or not 0 < len(node.key) <= _LONGEST_KEY:
                raise table.damage(number, "a record is of no kind that is written here")
            if table.last is not None:
                table.check(number, table.last, node.key)
            table.last = node.key
            value = node.value
            if node.flags & BIG:
                value = self._overflow(table, _NUMBER.unpack(value)[0], node.length)
            table.entries += 1
            table.visit(node, value)

    def _overflow(self, table: _Table, first: int, length: int) -> bytes:
        """The value that lies in pages of its own."""
        data = os.pread(self._descriptor, HEADER, first * self._size)
        needed = (HEADER - 1 + length) // self._size + 1
        try:
            count = overflow(data, first, needed)
        except DamageError as error:
            raise table.damage(first, error) from error
        if first + count > self._meta.last + 1:
            raise table.damage(first, "a value reaches beyond the last page")
        for number in range(first, first + count):
            self._mark(table.name, number)
        table.overflows += count
        value = os.pread(self._descriptor, length, first * self._size + HEADER)
        if len(value) < length:
            raise table.damage(first, "the file ends before its value")
        return value
