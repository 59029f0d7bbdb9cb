"""Writing a tree whose entries come ready from an index: nothing is looked up, or replaced."""

from typing import Final

from typing_extensions import override

from cafs.codec.index_entries import EntryPage
from cafs.errors import MalformedError
from cafs.model.identity import TreeIdentity
from cafs.store.db.transactions import Batch
from cafs.store.tables.records import pack_rows
from cafs.store.tables.tree_tables import TreeTables, entry_key, name_key, pack_number
from cafs.store.trees.tree_writing import TreeWriter

_ROWS: Final = 32_768
"""Entries written in one transaction, with their names: about 20 ms. Each is synced, which a loaded
disk may take as long for as all the rest, and pages that two of them touch are written twice."""
_WEIGHT: Final = 16 << 20
"""Bytes of them that may wait for one."""


class TreeImporter(TreeWriter):
    """Writes a tree page by page, some in a transaction.

    Concurrency: as ``TreeWriter``.
    """

    def __init__(self, tables: TreeTables, identity: TreeIdentity, name: str) -> None:
        """``name`` is what errors call the index."""
        super().__init__(tables, identity)
        self._name = name
        self._ready: list[tuple[bytes, bytes]] = []
        self._bound: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def add_page(self, page: EntryPage) -> None:
        """Write entries that follow those that were written, and bind the names that mean one.

        Raises:
            MalformedError: a name is bound twice in its directory; told now, or by ``flush``.
            StorageError: the store cannot be written.
        """
        tree, tables, packed = self._tree, self._tables, pack_rows(page.rows)
        rows = ((entry_key(tree, number), row) for number, row in enumerate(packed, page.first))
        names = (
            (name_key(tree, parent, name), pack_number(number))
            for parent, name, number in page.names
        )
        # Sealed here and not in the transaction, for which others wait.
        self._ready += tables.entries.seal_all(rows)
        self._bound += tables.names.seal_all(names)
        self._bytes += sum(map(len, packed))
        self.count += len(page.rows)
        if len(self._ready) >= _ROWS or self._bytes >= _WEIGHT:
            self.flush()

    @override
    def flush(self) -> None:
        if self._ready:
            self._bound.sort()
            self._tables.index.apply(self._write_ready)
            self._ready.clear()
            self._bound.clear()
            self._bytes = 0
        super().flush()

    def _write_ready(self, batch: Batch) -> None:
        batch.put_new(self._tables.entries, self._ready)
        if not batch.put_new(self._tables.names, self._bound):
            raise MalformedError(
                f"{self._name}: two entries are bound to one name in one directory"
            )
