"""Mounts: inode ranges by path and by number, for the life of a mount."""

from pathlib import Path

import pytest
import trio

from cafs.errors import NotFoundError
from cafs.model.resolved import Resolved, Shape
from cafs.store.store import Store, open_store
from cafs.store.trees.attachments import SNAPSHOTS
from cafs.store.trees.mounts import new_key

MEANING = Resolved(ref="r", shape=Shape.FILE, digest=None, parts=(), resolved_ns=1)


async def test_inodes_are_handed_out_from_two(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    first = await store.attachments.attach(mount, "", tree=None)
    second = await store.attachments.attach(mount, "ref/a", count=1000, tree=7, root=3)
    third = await store.attachments.attach(mount, "ref/b")
    assert (first.first, second.first, third.first) == (2, 3, 1003)
    assert (second.path, second.count, second.tree, second.root) == ("ref/a", 1000, 7, 3)


async def test_an_attachment_is_found_by_any_inode_of_its_range(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    one = await store.attachments.attach(mount, "a", count=10)
    two = await store.attachments.attach(mount, "b", count=5)
    found = [store.attachments.find(mount, inode) for inode in (0, 1, 2, 11, 12, 16, 17, 1 << 60)]
    assert found == [None, None, one, one, two, two, None, None]


async def test_attaching_a_path_again_changes_nothing(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    first = await store.attachments.attach(mount, "a", count=10)
    assert await store.attachments.attach(mount, "a", count=99, tree=1) == first
    assert store.attachments.at(mount, "a") == first


async def test_many_tasks_that_attach_a_path_get_one_range(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    found: set[int] = set()

    async def attach() -> None:
        found.add((await store.attachments.attach(mount, "a")).first)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(attach)
    assert len(found) == 1


async def test_replacing_gives_a_fresh_range_and_keeps_the_old_readable(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    old = await store.attachments.attach(mount, "a", content=b"one")
    new = await store.attachments.attach(mount, "a", content=b"two", replace=True)
    assert new.first == old.first + 1
    assert store.attachments.at(mount, "a") == new
    assert store.attachments.find(mount, old.first) == old
    assert old.content == b"one"


async def test_old_snapshots_are_forgotten(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    kept = await store.attachments.attach(mount, "other", content=b"x")
    inodes = [
        (await store.attachments.attach(mount, "a", content=b"%d" % number, replace=True)).first
        for number in range(SNAPSHOTS + 3)
    ]
    readable = [inode for inode in inodes if store.attachments.find(mount, inode) is not None]
    assert readable == inodes[3:]
    assert store.attachments.find(mount, kept.first) == kept


async def test_under_lists_direct_children_by_path(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    for path in ("", "ref", "ref/b", "ref/a", "ref/a/deep", "digest", "ref2"):
        await store.attachments.attach(mount, path)
    assert [each.path for each in store.attachments.under(mount, "ref")] == ["ref/a", "ref/b"]
    assert [each.path for each in store.attachments.under(mount, "")] == ["digest", "ref", "ref2"]
    assert store.attachments.under(mount, "nothing") == []


async def test_mounts_do_not_mix_and_numbers_are_not_reused(store: Store) -> None:
    one = await store.mounts.open(new_key(), "one")
    two = await store.mounts.open(new_key(), "two")
    first = await store.attachments.attach(one, "a")
    assert store.attachments.at(two, "a") is None
    assert (await store.attachments.attach(two, "a")).first == first.first
    await store.mounts.resolve(one, "key", MEANING)
    assert store.mounts.resolved(two, "key") is None
    await store.mounts.remove(two)
    assert await store.mounts.open(new_key(), "three") > two


async def test_a_removed_mount_is_forgotten(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    await store.attachments.attach(mount, "a", content=b"x")
    await store.mounts.resolve(mount, "key", MEANING)
    await store.mounts.remove(mount)
    await store.mounts.remove(mount)
    assert store.attachments.at(mount, "a") is None
    assert store.attachments.find(mount, 2) is None
    assert store.attachments.under(mount, "") == []
    assert store.mounts.resolved(mount, "key") is None
    with pytest.raises(NotFoundError, match=f"mount {mount}"):
        await store.attachments.attach(mount, "a")


async def test_a_ref_means_what_it_was_resolved_to(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    assert store.mounts.resolved(mount, "key") is None
    await store.mounts.resolve(mount, "key", MEANING)
    assert store.mounts.resolved(mount, "key") == MEANING


async def test_a_path_that_is_no_unicode_is_attached_nowhere(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    assert store.attachments.at(mount, b"ref/\xff".decode("utf-8", "surrogateescape")) is None


async def test_a_new_worker_sees_what_the_old_one_attached(tmp_path: Path) -> None:
    async with open_store(tmp_path, boot_id="one") as store:
        mount = await store.mounts.open(new_key(), "test")
        attached = await store.attachments.attach(mount, "a", count=5)
    async with open_store(tmp_path, boot_id="one") as store:
        assert store.attachments.find(mount, attached.first + 4) == attached
        assert (await store.attachments.attach(mount, "b")).first == attached.first + 5
