"""Trees: entries by number, names by directory, segments by stream, straight from the records.

Nothing of a tree is kept in memory, so a tree of a million entries opens at once. Each call is one
short read transaction, of a few microseconds.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from cafs.errors import StorageError
from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Entry
from cafs.model.record import Segment, TreeRecord
from cafs.model.span import Span
from cafs.store.db.transactions import Batch, Snapshot, after as behind
from cafs.store.tables.records import unpack_entry, unpack_segment
from cafs.store.tables.tree_tables import (
    NUMBER_BYTES,
    START_BYTES,
    TreeTables,
    draft_key,
    entry_key,
    name_key,
    segment_key,
    segment_start,
    unpack_number,
)
from cafs.store.trees.tree_importing import TreeImporter
from cafs.store.trees.tree_writing import PURGE, TreeWriter

_LOG: Final = logging.getLogger("cafs.store")
_PAGE: Final = 256
_WEIGHT: Final = 1 << 20
"""Entries that are read at once, and their bytes."""
_BEYOND: Final = b"\xff" * 33
"""Beyond the key of any identity."""


class Trees:
    """The trees of a store.

    Concurrency: any number of tasks, threads and processes.
    """

    def __init__(self, tables: TreeTables) -> None:
        self._tables = tables
        self._index = tables.index

    def find(self, identity: TreeIdentity) -> TreeRecord | None:
        """The published tree of an identity, None when there is none."""
        tables = self._tables
        return tables.records.unpack(self._index.get(tables.trees, bytes.fromhex(identity)))

    def numbered(self, tree: int) -> TreeRecord | None:
        """The published tree of a number, None when there is none. It looks at each record."""
        tables = self._tables
        with self._index.read() as snapshot:
            for _, raw in snapshot.scan(tables.trees, b"", _BEYOND):
                record = tables.records.unpack(raw)
                if record is not None and record.number == tree:
                    return record
        return None

    def has(self, tree: int) -> bool:
        """Whether the records of a tree are there, whatever they are of; what nobody shows goes."""
        return self._index.get(self._tables.entries, entry_key(tree, ROOT)) is not None

    def entry(self, tree: int, number: int) -> Entry:
        """An entry by its number.

        Raises:
            KeyError: there is no such tree, or no such entry in it.
        """
        with self._index.read() as snapshot:
            return self._entry(snapshot, tree, number)

    def _entry(self, snapshot: Snapshot, tree: int, number: int) -> Entry:
        raw = snapshot.get(self._tables.entries, entry_key(tree, number))
        if raw is None:
            raise KeyError((tree, number))
        return unpack_entry(raw)

    def child(self, tree: int, parent: int, name: bytes) -> int | None:
        """The number of the entry that a name means in a directory; a hard link's own number."""
        raw = self._index.get(self._tables.names, name_key(tree, parent, name))
        return None if raw is None else unpack_number(raw)

    def children(
        self, tree: int, parent: int, after: int | None, limit: int
    ) -> list[tuple[int, Entry]]:
        """A page of a directory, by name bytes.

        Args:
            tree: the tree's number.
            parent: the directory's number.
            after: the number of the last child of the page before, None for the first page. A
                key, not a rank: the page is right whatever happened between.
            limit: entries at most.

        Raises:
            KeyError: ``after`` is no entry of that directory.
        """
        tables = self._tables
        prefix = name_key(tree, parent, b"")
        page: list[tuple[int, Entry]] = []
        with self._index.read() as snapshot:
            start = prefix
            if after is not None:
                last = self._entry(snapshot, tree, after)
                if last.parent != parent:
                    raise KeyError((tree, after))
                start = prefix + last.name + b"\0"
            for _, raw in snapshot.scan(tables.names, start, behind(prefix)):
                if len(page) >= limit:
                    break
                number = unpack_number(raw)
                page.append((number, self._entry(snapshot, tree, number)))
        return page

    def segment_at(self, tree: int, stream: int, offset: int) -> Segment | None:
        """The segment that has the byte at ``offset`` of a stream, None when none has."""
        with self._index.read() as snapshot:
            return self._segment_at(snapshot, tree, stream, offset)

    def _segment_at(
        self, snapshot: Snapshot, tree: int, stream: int, offset: int
    ) -> Segment | None:
        key = segment_key(tree, stream, offset)
        found = snapshot.floor(self._tables.segments, key)
        if found is None or found[0][:-8] != key[:-8]:
            return None
        segment = unpack_segment(segment_start(found[0]), found[1])
        return segment if offset < segment.start + segment.length else None

    def window(self, tree: int, stream: int, start: int) -> bytes:
        """What the codec of the segment at ``start`` must have before it, packed; else nothing."""
        return self._index.get(self._tables.windows, segment_key(tree, stream, start)) or b""

    def segments(
        self, tree: int, stream: int, span: Span, most: int | None = None
    ) -> list[Segment]:
        """The segments that share a byte with a span of a stream, ascending; the first ``most``."""
        if not span.length:
            return []
        with self._index.read() as snapshot:
            first = self._segment_at(snapshot, tree, stream, span.start)
            found = [] if first is None else [first]
            start = segment_key(tree, stream, span.start + (0 if first is None else 1))
            stop = segment_key(tree, stream, span.stop)
            for key, raw in snapshot.scan(self._tables.segments, start, stop):
                if len(found) == most:
                    break
                found.append(unpack_segment(segment_start(key), raw))
        return found

    def rows(self, tree: int) -> Iterator[tuple[Entry, bool]]:
        """All entries of a tree by number, and whether each is what its name means.

        Blocks; each page is a transaction of its own, so the tree must not be purged meanwhile.
        """
        tables, start = self._tables, entry_key(tree, ROOT)
        stop = behind(start[:-NUMBER_BYTES])
        while True:
            with self._index.read() as snapshot:
                page = _page(snapshot.scan(tables.entries, start, stop))
                names = [self._named(snapshot, tree, key, entry) for key, entry in page]
            if not page:
                return
            yield from zip((entry for _, entry in page), names, strict=True)
            start = page[-1][0] + b"\0"

    def _named(self, snapshot: Snapshot, tree: int, key: bytes, entry: Entry) -> bool:
        number = key[-NUMBER_BYTES:]
        if unpack_number(number) == ROOT:
            return True
        bound = snapshot.get(self._tables.names, name_key(tree, entry.parent, entry.name))
        return bound == number

    def all_segments(self, tree: int, stream: int) -> Iterator[tuple[Segment, bytes]]:
        """All segments of a stream, ascending, each with its packed window.

        One without a digest has that of what was decoded of it, once it was. Blocks; as ``rows``.
        """
        tables, start = self._tables, segment_key(tree, stream, 0)
        for page in self._index.pages(tables.segments, start, behind(start[:-START_BYTES])):
            for key, raw in page:
                segment = unpack_segment(segment_start(key), raw)
                if not segment.sha256:
                    digest = self._index.get(tables.contents, key) or b""
                    segment = replace(segment, sha256=digest)
                yield segment, self._index.get(tables.windows, key) or b""

    def writer(self, identity: TreeIdentity) -> TreeWriter:
        """A writer of a new tree, to be used as a context manager in one worker thread."""
        return TreeWriter(self._tables, identity)

    def importer(self, identity: TreeIdentity, name: str) -> TreeImporter:
        """A writer of a new tree that an index has, which errors call ``name``; as ``writer``."""
        return TreeImporter(self._tables, identity, name)

    def amend(self, change: Callable[[TreeRecord], TreeRecord]) -> int:
        """Replace the records of published trees by what ``change`` makes of them. Blocks.

        Returns:
            how many are others now.

        Raises:
            StorageError: the store cannot be written.
        """
        tables = self._tables
        todo = [(each, now) for each in self.all() if (now := change(each)) != each]

        def amend(batch: Batch) -> int:
            count = 0
            for old, new in todo:
                key = bytes.fromhex(old.identity)
                if tables.records.unpack(batch.get(tables.trees, key)) == old:
                    batch.put(tables.trees, key, tables.records.pack(new))
                    count += 1
            return count

        return self._index.apply(amend, urgent=True) if todo else 0

    async def delete(self, identity: TreeIdentity) -> None:
        """Forget a tree. Who has its number reads on; its records go when nobody uses the store.

        Cancellation: all or nothing.
        """
        tables = self._tables
        key = bytes.fromhex(identity)

        def change(batch: Batch) -> None:
            old = tables.records.unpack(batch.get(tables.trees, key))
            if old is not None:
                batch.put(tables.drafts, draft_key(old.number), b"")
            batch.delete(tables.trees, key)

        await self._index.commit(change, urgent=True)

    def all(self) -> Iterator[TreeRecord]:
        """Every published tree, by identity."""
        for page in self._index.pages(self._tables.trees):
            for _, raw in page:
                record = self._tables.records.unpack(raw)
                if record is not None:
                    yield record

    def left(self) -> list[int]:
        """The numbers of trees that no identity means, and that nobody is writing.

        Raises:
            OSError: the disk failed.
        """
        tables = self._tables
        free = [tree for tree in tables.draft_numbers() if not tables.is_held(tree)]
        # In this order: who published one between the two looks has taken its mark away.
        return [tree for tree in free if tables.is_draft(tree)]

    def withdraw(self, record: TreeRecord) -> bool:
        """Let an identity mean nothing, if it still means this tree; whether it did. Blocks.

        The tree's own records stay until it is purged, for those who have its number.

        Raises:
            StorageError: the store cannot be written.
        """
        tables, key = self._tables, bytes.fromhex(record.identity)

        def change(batch: Batch) -> bool:
            now = tables.records.unpack(batch.get(tables.trees, key))
            if now is None or now.number != record.number:
                return False
            batch.put(tables.drafts, draft_key(now.number), b"")
            return batch.delete(tables.trees, key)

        return self._index.apply(change, urgent=True)

    def clear(self, tree: int) -> None:
        """Remove the records of a tree that is not published, and that nobody uses. Blocks.

        Raises:
            StorageError: the store cannot be written; the rest can be removed later.
        """
        self._tables.purge(tree, PURGE)

    def unpublished(self) -> set[int]:
        """The numbers of trees that no identity means, whether or not somebody uses them."""
        return set(self._tables.draft_numbers())

    async def purge(self, trees: Iterable[int]) -> None:
        """Remove the records of trees that are not published, and that nobody uses.

        A failure is logged, and what is left is removed by whoever opens the store alone.

        Cancellation: the rest is removed by whoever opens the store alone.
        """
        try:
            for tree in trees:
                for clearing in self._tables.clearing(tree, PURGE):
                    while await self._index.commit(clearing, urgent=True):
                        pass
        except StorageError as error:
            _LOG.warning("store.tree.unpurged error=%s", error.line)


def _page(records: Iterator[tuple[bytes, bytes]]) -> list[tuple[bytes, Entry]]:
    """Some entries: few, or fewer that are large."""
    page: list[tuple[bytes, Entry]] = []
    weight = 0
    for key, raw in records:
        page.append((key, unpack_entry(raw)))
        weight += len(raw)
        if len(page) == _PAGE or weight > _WEIGHT:
            break
    return page
