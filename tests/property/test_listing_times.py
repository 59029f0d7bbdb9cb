"""What a kernel keeps of a listing: another one always has another mtime, whoever answers.

A list of things that can happen to a mount's namespace, and after each a look at every directory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from hypothesis import given, settings, strategies as st

from cafs.distribution.interfaces import OpenTree
from cafs.model.digest import digest_of
from cafs.model.ref import ArchiveRef
from cafs.model.spec import RefSpec
from cafs.vfs.attributes import BRIEFLY_S
from tests.vfs_world import (
    Item,
    World,
    archive,
    blob,
    make_filesystem,
    plant,
    running_world,
    stored,
)

HOST = "files.example"
DIRECTORIES = (
    "",
    ".cafs",
    "ref",
    "ref/archive",
    "ref/archive/https",
    f"ref/archive/https/{HOST}",
    f"ref/archive/https/{HOST}/a",
    "ref/blob",
    f"ref/blob/https/{HOST}",
    f"ref/blob/https/{HOST}/a",
    "ref/docker",
    "digest",
    "digest/sha256",
    "digest/sha512",
    "tree",
    "tree/sha256",
)
GCC, DATA = archive("gcc"), blob("data")
MOVED = replace(GCC, ref=ArchiveRef("https://files.example/moved.tar"))
SETTINGS: tuple[list[RefSpec], ...] = ([GCC], [GCC, DATA], [MOVED, DATA], [DATA], [])


@dataclass(frozen=True)
class Opens:
    """Somebody looks into an archive, or at a file, that a path names."""

    kind: str
    path: str


@dataclass(frozen=True)
class Mistypes:
    """Somebody looks for what is not there."""

    path: str


@dataclass(frozen=True)
class Arrives:
    """A blob comes into the store."""

    data: bytes


@dataclass(frozen=True)
class Leaves:
    """A blob is deleted from it."""

    data: bytes


@dataclass(frozen=True)
class Unpacks:
    """A blob is opened as an archive."""

    data: bytes


@dataclass(frozen=True)
class Restarts:
    """Another worker takes over, with settings of its own."""

    specs: Sequence[RefSpec]


Event = Opens | Mistypes | Arrives | Leaves | Unpacks | Restarts
PATHS = st.sampled_from(["x", "y", "a/x", "a/y", "a/b/x"])
BLOBS = st.sampled_from([b"1", b"2", b"3"])
EVENTS = st.lists(
    st.one_of(
        st.builds(Opens, st.sampled_from(["archive", "blob"]), PATHS),
        st.builds(Mistypes, PATHS),
        st.builds(Arrives, BLOBS),
        st.builds(Leaves, BLOBS),
        st.builds(Unpacks, BLOBS),
        st.builds(Restarts, st.sampled_from(SETTINGS)),
    ),
    max_size=10,
)


async def happen(world: World, event: Event, tree: OpenTree) -> None:
    match event:
        case Opens(kind, path):
            name = f"cimd:{kind}:v=0:{quote(f'https://{HOST}/{path}', safe='')}"
            world.refs.trees[name] = tree
            world.refs.files[name] = await stored(world.store, b"bytes")
            found = await world.walk(f"ref/{kind}/https/{HOST}/{path}@")
            if kind == "archive":
                await world.filesystem.list(found.inode, 0, 1)
        case Mistypes(path):
            await world.walk(f"ref/archive/https/{HOST}/{path}/more")
        case Arrives(data):
            writer = await world.store.blobs.create("text/plain")
            await writer.write(data)
            await writer.commit(None, None)
        case Leaves(data):
            await world.store.blobs.delete(digest_of(data))
        case Unpacks(data):
            world.digests.trees[digest_of(data)] = tree
            await world.walk(f"tree/sha256/{digest_of(data).hex}/file")
        case Restarts(specs):
            world.filesystem = make_filesystem(
                world.store, world.mount, world.refs, world.digests, specs=specs
            )


async def listings(world: World) -> dict[str, tuple[list[bytes], int]]:
    """The names and the mtime of every directory."""
    found = {}
    for path in DIRECTORIES:
        node = await world.walk(path)
        assert node.attributes_ttl_s <= BRIEFLY_S
        found[path] = (await world.pages(node.inode, 3), node.mtime_ns)
    return found


@settings(max_examples=20, deadline=None)
@given(EVENTS)
async def test_another_listing_has_another_time_and_the_same_one_the_same(
    events: list[Event],
) -> None:
    with TemporaryDirectory() as where:
        async with running_world(Path(where) / "store", [GCC]) as world:
            tree = await plant(world.store, "tree", {b"file": Item(data=b"data")})
            seen: dict[str, dict[int, list[bytes]]] = {path: {} for path in DIRECTORIES}
            before = await listings(world)
            for event in events:
                await happen(world, event, tree)
                after = await listings(world)
                for path, (names, time) in after.items():
                    # Not only since the last look: a kernel may have kept a listing for long.
                    assert sorted(seen[path].setdefault(time, names)) == sorted(names), path
                    if names == before[path][0] and not (
                        path == "ref" and isinstance(event, Restarts)
                    ):
                        assert time == before[path][1], path
                before = after
