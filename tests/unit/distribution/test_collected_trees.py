"""Trees that are collected while a mount knows of them are made again."""

import pytest

from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import World
from tests.unit.distribution.test_url_refs import PLAIN, STRIPPED, tar_gz, zip_of


@pytest.mark.parametrize(
    ("name", "strip", "expected"),
    [
        ("t.tar.gz", 0, PLAIN),
        ("t.tar.gz", 1, STRIPPED),
        ("t.zip", 0, {"a": "/", "a/b": "beta"}),
        ("t.zip", 1, {"b": "beta"}),
    ],
    ids=["tar", "tar stripped", "zip", "zip stripped"],
)
async def test_a_tree_that_was_collected_is_made_again(
    world: World, origin: Origin, name: str, strip: int, expected: dict[str, str]
) -> None:
    data = zip_of({"a/b": b"beta"}) if name == "t.zip" else tar_gz()
    spec = world.spec(origin.put(f"/{name}", data), strip=strip)
    assert await world.tree(spec) == expected
    for tree in list(world.store.trees.all()):
        world.store.trees.withdraw(tree)
        world.store.trees.clear(tree.number)
    assert await world.tree(spec) == expected
