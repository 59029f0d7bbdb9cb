"""Locking beside who reads: nothing that is mounted is touched, and errors come as they are."""

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from cafs.distribution.locking import Located, Locker
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits
from cafs.testing import tabled
from cafs.testing.archives import file, tar_bytes
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, World
from tests.unit.distribution.test_tables import serve


async def lock(world: World, text: str, folder: Path) -> Located:
    await trio.Path(folder).mkdir()
    locker = Locker(world.store, world.resolver, world.fetcher, Limits())
    return await locker.locate(world.spec(text), folder, lambda _done, _all: None, USUAL)


TAR = tar_bytes({"a/b": (0o644, b"beta" * 1000), "c": (0o644, b"gamma")}, compression="gz")


async def test_a_tree_that_does_not_tell_all_stays_as_it_is_mounted(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    """Such as another version has made, with no segments; a mount may be reading it."""
    url = f"archive+{origin.put('/t.tgz', TAR)}"
    (right,) = (await lock(world, url, tmp_path / "first")).indexes.values()
    trees = world.store.trees
    (made,) = trees.all()
    with trees.writer(made.identity) as writer:
        for entry, _ in trees.rows(made.number):
            if entry.name:
                writer.add(entry)
        shown = writer.publish(made.streams, made.digest)
    (stream,) = shown.streams
    before = world.store.streams.find(stream.key)
    assert before is not None
    generation = before.incarnation()
    (index,) = (await lock(world, url, tmp_path / "again")).indexes.values()
    assert index.read_bytes() == right.read_bytes()
    assert list(trees.all()) == [shown]
    after = world.store.streams.find(stream.key)
    assert after is not None
    assert after.incarnation() == generation


async def test_of_several_layers_the_error_of_the_one_that_failed_is_raised(
    world: World, origin: Origin, tmp_path: Path
) -> None:
    """And not a group, in which nobody sees that the disk is full, say."""
    good = tabled.zstd_chunked([file("a", "alpha")])
    bad = replace(good, data=b"no archive" * 100)
    with pytest.raises((MalformedError, UnsupportedError)):
        await lock(world, serve(origin, good, bad), tmp_path / "new")
