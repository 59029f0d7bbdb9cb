"""A tree that is collected just before a mount shows it: the mount shows it all the same."""

from pathlib import Path

from typing_extensions import override

from cafs.distribution.interfaces import OpenTree
from cafs.fetch.interfaces import Patience
from cafs.model.spec import RefSpec
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key
from tests.vfs_world import (
    Item,
    PlantedDigests,
    PlantedRefs,
    World,
    archive,
    make_filesystem,
    plant,
)

ITEMS = {b"a": Item(data=b"alpha")}


class Fleeting(PlantedRefs):
    """Opens a tree that is gone at once, and then one that stays."""

    def __init__(self, store: Store, times: int) -> None:
        super().__init__()
        self._store = store
        self._left = times

    @override
    async def tree(self, spec: RefSpec, patience: Patience) -> OpenTree:
        name = f"tree {self._left}" if self._left > 0 else "tree"
        opened = self.trees.get(name) or await plant(self._store, name, ITEMS)
        self.trees[name] = opened
        if self._left > 0:
            self._left -= 1
            self._store.trees.withdraw(opened.record)
            self._store.trees.clear(opened.record.number)
        return opened


async def test_b_s4_a_tree_that_was_collected_before_it_was_attached_is_opened_again(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        mount = await store.mounts.open(new_key(), "test")
        refs, digests, spec = Fleeting(store, 1), PlantedDigests(), archive("t")
        filesystem = make_filesystem(store, mount, refs, digests, specs=[spec])
        world = World(store, mount, refs, digests, filesystem)
        assert await world.names("ref/t") == [b"a"]
        assert (await world.walk("ref/t/a")).size == 5
        number = refs.trees["tree"].record.number
        assert number in store.attachments.trees(store.mounts.live())
