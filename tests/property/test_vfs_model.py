"""The file system against a model: a dictionary of paths, and a list of things one can ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings, strategies as st

from cafs.model.member import Kind, Piece
from cafs.vfs.attributes import UNDATED_NS
from tests.vfs_world import (
    Item,
    World,
    archive,
    directory,
    make_filesystem,
    plant,
    running_world,
    symlink,
)

GCC = archive("gcc")
NAMES = st.sampled_from([b"a", b"b", b"B", b"c.txt", b"\xff\xfe", "ü".encode(), b"a" * 255, b" "])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)


@st.composite
def items(draw: st.DrawFn) -> Item:
    match draw(st.sampled_from(["file", "sparse", "symlink", "directory", "device"])):
        case "file":
            mode = draw(st.integers(0, 0o7777))
            return Item(data=draw(st.binary(max_size=50)), mode=mode, mtime_ns=draw(TIMES))
        case "sparse":
            data = draw(st.binary(max_size=8))
            hole = draw(st.integers(0, 40))
            return Item(data=bytes(hole) + data, pieces=(Piece(hole, len(data)),))
        case "symlink":
            return symlink(draw(st.binary(min_size=1, max_size=20)))
        case "device":
            return Item(kind=Kind.BLOCK_DEVICE)
        case _:
            return directory(draw(st.integers(0, 0o777)))


TIMES = st.sampled_from([0, 1, 10**9, 1_700_000_000_123_456_789, -5])


@st.composite
def trees(draw: st.DrawFn) -> dict[bytes, Item]:
    """A tree by path, parents before children; some files have a second name."""
    tree: dict[bytes, Item] = {}
    for path, item in draw(st.lists(st.tuples(PATHS, items()), max_size=12)):
        parts = path.split(b"/")
        parents = [b"/".join(parts[:count]) for count in range(1, len(parts))]
        if path in tree or any(
            tree.get(each, directory()).kind is not Kind.DIRECTORY for each in parents
        ):
            continue
        for each in parents:
            tree.setdefault(each, directory())
        tree[path] = item
    files = [path for path, item in tree.items() if item.kind is Kind.FILE]
    for path in draw(st.lists(NAMES, max_size=2, unique=True)):
        if files and path not in tree:
            tree[path] = Item(kind=Kind.HARD_LINK, link=draw(st.sampled_from(files)))
    return tree


@dataclass(frozen=True)
class Look:
    path: bytes


@dataclass(frozen=True)
class Read:
    path: bytes
    offset: int
    length: int


@dataclass(frozen=True)
class List:
    path: bytes
    limit: int


@dataclass(frozen=True)
class Restart:
    """A new worker takes over."""


ANY_PATHS = st.one_of(st.just(b""), PATHS)
OPERATIONS = st.lists(
    st.one_of(
        st.builds(Look, ANY_PATHS),
        st.builds(Read, PATHS, st.integers(0, 60), st.integers(0, 60)),
        st.builds(List, ANY_PATHS, st.integers(1, 4)),
        st.just(Restart()),
    ),
    max_size=25,
)


class Model:
    """What the tree should look like, from the dictionary alone."""

    def __init__(self, tree: Mapping[bytes, Item]) -> None:
        self._tree = tree

    def at(self, path: bytes) -> Item | None:
        """The item that a path shows; None when there is none, or it is hidden."""
        if not path:
            return directory()
        item = self._tree.get(path)
        if item is not None and item.link:
            item = self._tree[item.link]
        return None if item is None or item.kind is Kind.BLOCK_DEVICE else item

    def links(self, path: bytes) -> int:
        first = self._tree[path].link or path
        return 1 + sum(item.link == first for item in self._tree.values())

    def names(self, path: bytes) -> list[bytes]:
        prefix = path + b"/" if path else b""
        return sorted(
            other.removeprefix(prefix)
            for other in self._tree
            if other.startswith(prefix)
            and b"/" not in other.removeprefix(prefix)
            and self.at(other) is not None
        )


async def find(world: World, path: bytes) -> int | None:
    """The inode at a path; None when some part of it is absent, or no directory."""
    inode = (await world.walk("ref/gcc")).inode
    for name in filter(None, path.split(b"/")):
        found = await world.filesystem.lookup(inode, name)
        if not found.inode:
            return None
        inode = found.inode
    return inode


async def look(world: World, model: Model, path: bytes) -> None:
    inode, item = await find(world, path), model.at(path)
    assert (inode is None) == (item is None)
    if inode is None or item is None:
        return
    found = await world.filesystem.attributes(inode)
    assert found.inode == inode
    assert found.kind is item.kind
    if not path:
        return
    assert found.size == len(item.target or item.data)
    assert found.mode == (0o777 if item.kind is Kind.SYMLINK else item.mode & 0o1777)
    assert found.mtime_ns == (item.mtime_ns or UNDATED_NS)
    assert found.links == model.links(path)
    if item.target is not None:
        assert await world.filesystem.readlink(inode) == item.target


async def read(world: World, model: Model, op: Read) -> None:
    inode, item = await find(world, op.path), model.at(op.path)
    if inode is not None and item is not None and item.kind is Kind.FILE:
        data = await world.filesystem.read(inode, op.offset, op.length)
        assert data == item.data[op.offset : op.offset + op.length]


async def listing(world: World, model: Model, op: List) -> None:
    inode, item = await find(world, op.path), model.at(op.path)
    if inode is not None and item is not None and item.kind is Kind.DIRECTORY:
        assert await world.pages(inode, op.limit) == model.names(op.path)


@settings(max_examples=60, deadline=None)
@given(trees(), OPERATIONS)
async def test_the_file_system_is_what_the_dictionary_says(
    tree: dict[bytes, Item], operations: list[Look | Read | List | Restart]
) -> None:
    model = Model(tree)
    with TemporaryDirectory() as where:
        async with running_world(Path(where) / "store", [GCC]) as world:
            world.refs.trees["gcc"] = await plant(world.store, "gcc", tree)
            numbers = {path: await find(world, path) for path in tree}
            for op in operations:
                match op:
                    case Look(path):
                        await look(world, model, path)
                    case Read():
                        await read(world, model, op)
                    case List():
                        await listing(world, model, op)
                    case Restart():
                        world.filesystem = make_filesystem(
                            world.store, world.mount, world.refs, world.digests, specs=[GCC]
                        )
            for path in tree:
                await look(world, model, path)
            assert numbers == {path: await find(world, path) for path in tree}
