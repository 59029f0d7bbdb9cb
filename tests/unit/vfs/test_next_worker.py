"""A worker that takes a mount over gives the answers of the one before, for the same inodes."""

from dataclasses import replace
from pathlib import Path

import pytest

from cafs.distribution.policy import HostPolicy
from cafs.errors import MountError, NotFoundError, PolicyError, SourceChangedError
from cafs.model.member import Kind
from cafs.model.spec import RefSpec
from cafs.store.trees.attachments import SNAPSHOTS
from cafs.vfs.attributes import Attributes
from tests.unit.vfs.test_filesystem import DATA, GCC, TREE
from tests.vfs_world import (
    World,
    blob,
    blob_part,
    make_filesystem,
    meaning,
    part_of,
    plant,
    running_world,
    stored,
)

UNREAD = blob("unread")
SPECS = [GCC, DATA, UNREAD]
HOST = "ref/archive/https/files.example"
ATTRIBUTES = ("digest", "ref", "present", "trust")


async def fill(world: World) -> None:
    """A tree with everything, a file that has been read, one that has not, a ref by path."""
    tree = world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
    ad_hoc = "cimd:archive:v=0:https%3A%2F%2Ffiles.example%2Fx.tar"
    world.refs.trees[ad_hoc] = tree
    part, content = await blob_part(world.store, b"0123456789", pinned=False)
    world.refs.meanings["gcc"] = meaning(GCC, part_of(1000))
    world.refs.meanings["data"] = meaning(DATA, part)
    world.refs.files["data"] = content
    writer = await world.store.blobs.create("text/plain")
    await writer.write(b"blob")
    digest = (await writer.commit(None, None)).digest
    world.digests.contents[digest] = await stored(world.store, b"blob")
    await world.walk(f"digest/sha256/{digest.hex}")


def take_over(world: World, specs: list[RefSpec] = SPECS, view: str = "/") -> None:
    """Let a new worker take the mount over."""
    world.filesystem = make_filesystem(
        world.store, world.mount, world.refs, world.digests, specs=specs, view=view
    )


async def everything(world: World) -> list[Attributes]:
    """All that can be found by listing, and the control files."""
    found: list[Attributes] = []
    pending = [await world.walk(path) for path in ("", ".cafs", f"{HOST}/x.tar@")]
    while pending:
        node = pending.pop()
        found.append(node)
        if node.kind is Kind.DIRECTORY:
            names = [each.name for each in await world.filesystem.list(node.inode, 0, 999)]
            pending += [await world.walk(name, node.inode) for name in names]
    return found


async def told(world: World, node: Attributes) -> list[object]:
    """What can be known of an inode without looking anything up."""
    filesystem = world.filesystem
    answers: list[object] = [await filesystem.attributes(node.inode)]
    answers += [filesystem.is_control(node.inode)]
    answers += [await filesystem.xattr(node.inode, f"user.cafs.{x}".encode()) for x in ATTRIBUTES]
    answers += [await filesystem.xattrs(node.inode)]
    match node.kind:
        case Kind.DIRECTORY:
            whole = await filesystem.list(node.inode, 0, 999)
            answers.append(whole)
            answers += [await filesystem.list(node.inode, each.cookie, 2) for each in whole]
        case Kind.FILE:
            answers.append(await filesystem.read(node.inode, 0, node.size))
            answers.append(await filesystem.read(node.inode, 1, 3))
        case Kind.SYMLINK:
            answers.append(await filesystem.readlink(node.inode))
        case _:
            pass
    return answers


async def test_inodes_mean_to_a_new_worker_what_they_meant_to_the_old_one(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC, DATA]) as world:
        await fill(world)
        nodes = await everything(world)
        before = [await told(world, node) for node in nodes]
        asked = len(world.refs.asked)
        take_over(world, [GCC, DATA])
        assert [await told(world, node) for node in nodes] == before
        take_over(world, [GCC, DATA])
        fresh = await everything(world)
        # Only a control file is another one each time it is looked up.
        same = [node for node in nodes if not world.filesystem.is_control(node.inode)]
        assert [each for each in fresh if not world.filesystem.is_control(each.inode)] == same
        assert len(same) > 20
        assert len(world.refs.asked) > asked


async def test_snapshots_outlive_the_worker_that_made_them(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        first = await world.walk(".cafs/status.json")
        take_over(world)
        assert await world.filesystem.read(first.inode, 0, 99) == b'{"n": 1}'
        assert world.filesystem.is_control(first.inode)
        assert await world.filesystem.attributes(first.inode) == first
        for _ in range(1 + SNAPSHOTS):  # the new worker begins to count as the old one did
            await world.walk(".cafs/status.json")
        # It has gone; whoever opens the path again gets a new one.
        with pytest.raises(SourceChangedError, match="not known"):
            await world.filesystem.attributes(first.inode)
        with pytest.raises(SourceChangedError, match="not known"):
            await world.filesystem.read(first.inode, 0, 99)


async def test_a_name_that_was_listed_without_its_size_is_no_file_to_a_new_worker_either(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path, SPECS) as world:
        ref = await world.walk("ref")
        listed = {each.name: each for each in await world.filesystem.list(ref.inode, 0, 99)}
        unsized = listed[b"unread"].attributes.inode
        take_over(world)
        with pytest.raises(SourceChangedError, match="ref/unread: its size was not known"):
            await world.filesystem.attributes(unsized)
        with pytest.raises(SourceChangedError, match="ref/unread: its size was not known"):
            await world.filesystem.read(unsized, 0, 1)
        again = {each.name: each for each in await world.filesystem.list(ref.inode, 0, 99)}
        assert again == listed


async def test_what_is_local_of_a_tree_is_known_though_this_worker_has_not_opened_it(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path, SPECS) as world:
        await fill(world)
        inode = (await world.walk("ref/gcc/bin/cc")).inode
        asked = len(world.refs.asked)
        take_over(world)
        assert await world.filesystem.xattr(inode, b"user.cafs.present") == b"4/4"
        assert len(world.refs.asked) == asked


async def test_what_may_no_longer_be_named_is_no_longer_listed(tmp_path: Path) -> None:
    async with running_world(tmp_path, SPECS) as world:
        await fill(world)
        opened = await world.walk(f"{HOST}/x.tar@")
        await world.pages(opened.inode, 99)
        before = await world.walk("ref/archive")
        assert await world.names(HOST) == [b"x.tar@"]
        world.filesystem = make_filesystem(
            world.store,
            world.mount,
            world.refs,
            world.digests,
            specs=SPECS,
            policy=HostPolicy(frozenset()),
        )
        for path in (HOST, "ref/archive/https", "ref/archive"):
            assert await world.names(path) == []
        after = await world.walk("ref/archive")
        assert (after.inode, after.mtime_ns != before.mtime_ns) == (before.inode, True)
        with pytest.raises(PolicyError):
            await world.filesystem.attributes(opened.inode)
        with pytest.raises(PolicyError):
            await world.walk(f"{HOST}/x.tar@")


async def test_the_root_shows_what_it_has_always_shown(tmp_path: Path) -> None:
    async with running_world(tmp_path, SPECS, view="ref/gcc/bin") as world:
        await world.filesystem.settle()
        moved = replace(GCC, strip=1)
        for specs, view in (([moved], "ref/gcc/bin"), ([GCC], "ref/gcc"), ([GCC], "/")):
            take_over(world, specs, view)
            with pytest.raises(MountError, match="the mount's root would show something else"):
                await world.filesystem.settle()
        take_over(world, [replace(GCC, deadline_s=1.0)], "ref/gcc/bin")
        await world.filesystem.settle()


async def test_a_whole_namespace_may_name_other_refs(tmp_path: Path) -> None:
    async with running_world(tmp_path, SPECS) as world:
        await world.filesystem.settle()
        take_over(world, [DATA])
        await world.filesystem.settle()
        with pytest.raises(NotFoundError):
            await world.walk("ref/gcc")
