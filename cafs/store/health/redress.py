"""Redress: what becomes of records that a disk has damaged while the pages around them are whole.

Such a record reads as absent already. For most tables that is all: what it said is fetched, asked
or found out again. The tables of trees are different: a tree without one of its names would lie
about a directory. And since the key may be what was damaged, it is not known which tree it was: all
trees between the neighbours of the record are forgotten, and made again by their passes.

Everything here blocks; it belongs in a thread.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from cafs.model.identity import TreeIdentity
from cafs.store.db.btree import BrokenRecord
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Table
from cafs.store.tables.tree_tables import TreeTables, draft_key

_LOG: Final = logging.getLogger("cafs.store")
_TREES: Final = frozenset({"entries", "names", "segments", "windows"})
_NUMBER: Final = 8
"""Bytes of a tree's number, with which the keys of those tables begin."""
_LOSSES: Final = {
    "pins": "something that was pinned is so no more",
    "mounts": "a live mount is not known any more; unmount it, and mount it again",
    "resolved": "a live mount asks again what a ref means",
    "attachments": "a live mount forgets inodes that it gave out",
}
"""What a person should know, by table."""


def redress(environment: Environment, broken: Sequence[BrokenRecord]) -> list[str]:
    """Remove broken records, and what cannot be right without them.

    Returns:
        What was lost by each record that was still broken, for people.

    Raises:
        StorageError: the records cannot be written.
    """
    told: list[str] = []
    for each in broken:
        table = environment.table(each.table)
        if not environment.apply(partial(_delete, table, each.key), urgent=True):
            continue  # written anew since, or removed
        _LOG.warning("store.record.removed table=%s key=%s", table.name, each.key.hex())
        said = _LOSSES.get(each.table, "what it said is found out again")
        if each.table in _TREES:
            said = f"{_forget_trees(environment, each)} trees are made again when they are read"
        told.append(f"a record of {each.table}: {said}")
    return told


def _delete(table: Table, key: bytes, batch: Batch) -> bool:
    return batch.delete_broken(table, key)


def _forget_trees(environment: Environment, record: BrokenRecord) -> int:
    """Forget the trees of which the record may have been; how many it were.

    Who has one of them open reads on in what is left; a new mount makes it anew.
    """
    first = int.from_bytes(record.low[:_NUMBER], "big")
    last = (1 << 64) - 1 if record.high is None else int.from_bytes(record.high[:_NUMBER], "big")
    tables = TreeTables(environment)
    found: list[tuple[TreeIdentity, int]] = []
    for page in environment.pages(tables.trees):
        for _, raw in page:
            tree = tables.records.unpack(raw)
            if tree is not None and first <= tree.number <= last:
                found.append((tree.identity, tree.number))

    def change(batch: Batch) -> None:
        for identity, number in found:
            batch.put(tables.drafts, draft_key(number), b"")
            batch.delete(tables.trees, bytes.fromhex(identity))

    environment.apply(change, urgent=True)
    return len(found)
