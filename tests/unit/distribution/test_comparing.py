"""Comparing trees: as deep as they are, in the order of names."""

from cafs.distribution.comparing import compare
from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import TreeRecord
from cafs.store.store import Store
from tests.unit.distribution.conftest import World

_DEEP = 1500
"""Deeper than Python calls: what is below a link of one layer is as deep as both together."""


def directory(name: bytes, parent: int) -> Entry:
    return Entry(name=name, parent=parent, kind=Kind.DIRECTORY, mode=0o755)


def deep(store: Store, identity: str, size: int) -> TreeRecord:
    """A file of a size, below very many directories."""
    with store.trees.writer(TreeIdentity(identity * 32)) as writer:
        at = writer.add(directory(b"", ROOT))
        for _ in range(_DEEP):
            at = writer.add(directory(b"d", at))
        writer.add(Entry(name=b"f", parent=at, kind=Kind.FILE, mode=0o644, size=size))
        return writer.publish((), None)


async def test_trees_deeper_than_pythons_stack_are_compared(world: World) -> None:
    trees = [deep(world.store, *each) for each in (("ab", 1), ("cd", 2))]
    (change,) = compare(world.store.trees, *trees)
    assert change.path == b"d/" * _DEEP + b"f"
    assert change.old is not None
    assert change.new is not None
    assert (change.old.size, change.new.size) == (1, 2)
