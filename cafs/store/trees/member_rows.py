"""Where the members of a tree are by their digests: gathered while it is written, then sorted.

By their first byte they are sorted in pieces: 10⁶ of them take 12 MB until then.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from cafs.labour import worked
from cafs.store.db.transactions import Batch
from cafs.store.tables.tree_tables import LEAD, TreeTables, member_key, pack_number

_TOGETHER: Final = 8192
"""Members written in one transaction: about 20 ms."""
_BUCKETS: Final = 256
_ROW: Final = LEAD + 4
_PART: Final = _ROW << 16
"""Bytes of a bucket after which it is said that work was done: that of empty files has many."""


class MemberRows:
    """Those of one tree.

    Concurrency: one worker thread.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(_BUCKETS)]

    def add(self, digest: bytes, number: int) -> None:
        """Remember the raw digest of an entry's content, and the entry's number."""
        self._buckets[digest[0]] += digest[:LEAD] + pack_number(number)

    def write(self, tables: TreeTables, tree: int) -> None:
        """Write all: sorted, so that few pages are touched.

        Raises:
            StorageError: the store cannot be written.
        """
        rows: list[bytes] = []
        for bucket in self._buckets:
            # Of files with one content, empty ones above all, one is enough: the last.
            rows += {row[:LEAD]: row for row in sorted(_rows(bucket))}.values()
            whole = len(rows) - len(rows) % _TOGETHER
            for at in range(0, whole, _TOGETHER):
                tables.index.apply(partial(_put, tables, tree, rows[at : at + _TOGETHER]))
                worked()
            del rows[:whole]
        tables.index.apply(partial(_put, tables, tree, rows))


def _rows(bucket: bytearray) -> Iterator[bytes]:
    for at in range(0, len(bucket), _ROW):
        if not at % _PART:
            worked()
        yield bytes(bucket[at : at + _ROW])


def _put(tables: TreeTables, tree: int, rows: list[bytes], batch: Batch) -> None:
    for row in rows:
        batch.put(tables.members, member_key(row, tree), row[LEAD:])
