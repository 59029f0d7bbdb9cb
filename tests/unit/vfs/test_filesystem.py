"""The file system over a real store: names, numbers, reads, failures."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cafs.errors import (
    NotFoundError,
    OfflineError,
    PolicyError,
    SourceChangedError,
    StorageError,
    UnreachableError,
    UsageError,
)
from cafs.model.digest import digest_of
from cafs.model.member import Kind, Piece
from cafs.model.ref import ArchiveRef
from cafs.vfs.attributes import FOREVER_S, UNDATED_NS, Appearance
from tests.vfs_world import (
    Item,
    archive,
    blob,
    directory,
    make_filesystem,
    meaning,
    part_of,
    plant,
    running_world,
    stored,
    symlink,
)

GCC, DATA = archive("gcc"), blob("data")
TREE = {
    b"bin": directory(),
    b"bin/cc": Item(data=b"#!cc", mode=0o755, mtime_ns=5_000_000_000),
    b"bin/gcc": Item(kind=Kind.HARD_LINK, link=b"bin/cc"),
    b"bin/c89": symlink(b"cc"),
    b"bin/zip-link": Item(kind=Kind.SYMLINK, data=b"gcc", target=None),
    b"empty": Item(),
    b"lib": directory(0o700),
    b"null": Item(kind=Kind.CHARACTER_DEVICE, device=0x103),
    b"pipe": Item(kind=Kind.FIFO),
    b"sparse": Item(data=bytes(5000) + b"end", pieces=(Piece(5000, 3),)),
    b"su": Item(data=b"su", mode=0o4755),
}


async def test_a_directory_ref_is_found_without_asking_anybody(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        found = await world.walk("ref/gcc")
        assert (found.kind, found.mode, found.mtime_ns) == (Kind.DIRECTORY, 0o555, UNDATED_NS)
        assert found.entry_ttl_s <= 1
        assert found.attributes_ttl_s <= 1
        assert await world.filesystem.attributes(found.inode) == found
        assert world.refs.asked == []


@pytest.mark.parametrize(
    ("path", "ttl_s"),
    [
        ("", FOREVER_S),
        ("ref", FOREVER_S),
        ("digest", FOREVER_S),
        ("tree", FOREVER_S),
        (".cafs", FOREVER_S),
        ("ref/docker", 1),
        ("ref/gcc", 1),
        ("digest/sha256", 1),
        ("tree/sha256", 1),
    ],
)
async def test_names_are_believed_as_long_as_they_stay_and_listings_for_a_second(
    tmp_path: Path, path: str, ttl_s: float
) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        found = await world.walk(path)
        assert (found.entry_ttl_s, found.attributes_ttl_s) == (ttl_s, 1)


async def test_the_first_look_inside_resolves(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        found = await world.walk("ref/gcc/bin/cc")
        assert world.refs.asked == ["gcc"]
        assert (found.kind, found.mode, found.size, found.mtime_ns) == (
            Kind.FILE,
            0o755,
            4,
            5_000_000_000,
        )
        assert (found.entry_ttl_s, found.attributes_ttl_s) == (FOREVER_S, FOREVER_S)
        assert (found.uid, found.gid) == (1000, 1001)
        assert await world.filesystem.read(found.inode, 0, 100) == b"#!cc"


async def test_a_hard_link_is_the_file_itself(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        assert await world.walk("ref/gcc/bin/gcc") == await world.walk("ref/gcc/bin/cc")
        assert (await world.walk("ref/gcc/bin/gcc")).links == 2
        bin_ = await world.walk("ref/gcc/bin")
        listed = {each.name: each for each in await world.filesystem.list(bin_.inode, 0, 10)}
        assert listed[b"gcc"].attributes == listed[b"cc"].attributes
        assert listed[b"gcc"].cookie != listed[b"cc"].cookie


async def test_symlinks_tell_their_text_even_if_it_is_content(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        for path, target in (("bin/c89", b"cc"), ("bin/zip-link", b"gcc")):
            link = await world.walk(f"ref/gcc/{path}")
            assert (link.kind, link.size) == (Kind.SYMLINK, len(target))
            assert await world.filesystem.readlink(link.inode) == target
        with pytest.raises(NotFoundError, match="no symbolic link"):
            await world.filesystem.readlink((await world.walk("ref/gcc/empty")).inode)


async def test_names_that_a_tree_lacks_may_be_remembered_for_a_year(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        absent = await world.filesystem.lookup((await world.walk("ref/gcc")).inode, b"nothing")
        assert (absent.inode, absent.entry_ttl_s) == (0, FOREVER_S)


@pytest.mark.parametrize(
    "path", ["nothing", "ref/nothing", "ref/gcc?", "digest/sha256/00", ".cafs/nothing", "ref/x\xff"]
)
async def test_other_names_are_absent_only_for_now(tmp_path: Path, path: str) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        with pytest.raises(NotFoundError, match=r"no such path|has no file"):
            await world.walk(path.encode("latin-1"))


async def test_the_root_lists_what_there_is_and_control_is_found_unlisted(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC, DATA]) as world:
        assert sorted(await world.names("/")) == [b"digest", b"ref", b"tree"]
        assert sorted(await world.names("/ref")) == [
            b"archive",
            b"blob",
            b"data",
            b"docker",
            b"gcc",
        ]
        assert (await world.walk(".cafs")).kind is Kind.DIRECTORY
        assert world.refs.asked == []


async def test_listings_of_trees_are_sorted_and_hide_devices(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        shown = [b"bin", b"empty", b"lib", b"pipe", b"sparse", b"su"]
        for limit in (1, 2, 3, 100):
            assert await world.names("ref/gcc", limit) == shown
        absent = await world.filesystem.lookup((await world.walk("ref/gcc")).inode, b"null")
        assert absent.inode == 0


async def test_a_second_name_of_a_hidden_device_is_hidden_too(tmp_path: Path) -> None:
    device = Item(kind=Kind.BLOCK_DEVICE, device=0x800)
    items = {b"sda": device, b"disk": Item(kind=Kind.HARD_LINK, link=b"sda")}
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", items)
        assert await world.names("ref/gcc") == []
        inside = (await world.walk("ref/gcc")).inode
        assert (await world.filesystem.lookup(inside, b"disk")).inode == 0


async def test_devices_and_set_id_bits_are_there_when_asked_for(tmp_path: Path) -> None:
    appearance = Appearance(uid=0, gid=0, suid=True, dev=True)
    async with running_world(tmp_path, [GCC], appearance=appearance) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        null = await world.walk("ref/gcc/null")
        assert (null.kind, null.device) == (Kind.CHARACTER_DEVICE, 0x103)
        assert (await world.walk("ref/gcc/su")).mode == 0o4755
        assert b"null" in await world.names("ref/gcc")


async def test_holes_are_zeros(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        sparse = await world.walk("ref/gcc/sparse")
        assert sparse.size == 5003
        assert await world.filesystem.read(sparse.inode, 0, 9999) == TREE[b"sparse"].data
        assert await world.filesystem.read(sparse.inode, 4999, 3) == b"\0en"


async def test_one_tree_at_two_paths_has_two_ranges_of_numbers(tmp_path: Path) -> None:
    other = archive("other")
    async with running_world(tmp_path, [GCC, other]) as world:
        tree = await plant(world.store, "gcc", TREE)
        world.refs.trees.update(gcc=tree, other=tree)
        one, two = await world.walk("ref/gcc/bin"), await world.walk("ref/other/bin")
        assert one.inode != two.inode
        assert one.inode + tree.record.count <= two.inode or two.inode < one.inode


async def test_a_new_worker_gives_the_numbers_of_the_old_one(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC, DATA]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        world.refs.files["data"] = await stored(world.store, b"data")
        paths = (
            "",
            "ref",
            "ref/gcc",
            "ref/gcc/bin/cc",
            "ref/data",
            "digest",
            "ref/docker",
            ".cafs",
        )
        before = [await world.walk(path) for path in paths]
        listed = [
            await world.filesystem.list(each.inode, 0, 99)
            for each in before
            if each.kind is Kind.DIRECTORY
        ]
        world.filesystem = make_filesystem(
            world.store, world.mount, world.refs, world.digests, specs=[GCC, DATA]
        )
        assert [await world.filesystem.attributes(each.inode) for each in before] == before
        assert [await world.walk(path) for path in paths] == before
        assert listed == [
            await world.filesystem.list(each.inode, 0, 99)
            for each in before
            if each.kind is Kind.DIRECTORY
        ]


async def test_a_subdir_of_the_tree_can_be_what_a_ref_shows(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        tree = await plant(world.store, "gcc", TREE)
        world.refs.trees["gcc"] = type(tree)(tree.record, 1, tree.contents)
        assert await world.names("ref/gcc") == [b"c89", b"cc", b"gcc", b"zip-link"]
        assert await world.filesystem.read((await world.walk("ref/gcc/cc")).inode, 0, 9) == b"#!cc"


@pytest.mark.parametrize(
    ("view", "path"),
    [
        ("ref", "gcc/bin/cc"),
        ("ref/gcc", "bin/cc"),
        ("ref/gcc/bin", "cc"),
        ("/", "ref/gcc/bin/cc"),
    ],
)
async def test_a_view_shows_a_subtree_and_control_stays_reachable(
    tmp_path: Path, view: str, path: str
) -> None:
    async with running_world(tmp_path, [GCC], view=view) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        root = await world.filesystem.attributes(1)
        assert (root.inode, root.kind) == (1, Kind.DIRECTORY)
        assert world.refs.asked == []
        assert (await world.walk(path)).mode == 0o755
        assert path.split("/", maxsplit=1)[0].encode() in await world.names("/")
        version = await world.walk(".cafs/version")
        assert await world.filesystem.read(version.inode, 0, 99) == b"1.2.3\n"
        assert b".cafs" not in await world.names("/")


async def test_a_view_that_the_tree_lacks_says_so_when_it_is_looked_into(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC], view="ref/gcc/usr/lib") as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        with pytest.raises(NotFoundError, match="ref/gcc has no directory 'usr/lib'"):
            await world.walk("x")
        with pytest.raises(NotFoundError, match="usr/lib"):
            await world.filesystem.list(1, 0, 10)


async def test_a_file_cannot_be_the_view(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ref/data.*file"):
        async with running_world(tmp_path, [DATA], view="ref/data"):
            pass


async def test_a_file_ref_has_its_size_before_a_byte_is_read(tmp_path: Path) -> None:
    async with running_world(tmp_path, [DATA]) as world:
        content = world.refs.files["data"] = await stored(world.store, b"0123456789")
        ref = await world.walk("ref")
        named = await world.filesystem.lookup(ref.inode, b"data")
        assert named.attributes_ttl_s == 0
        assert world.refs.asked == []
        found = await world.filesystem.attributes(named.inode)
        assert found.inode == named.inode
        assert (found.kind, found.mode, found.size) == (Kind.FILE, 0o444, 10)
        assert content.reads == 0
        assert await world.filesystem.read(found.inode, 3, 4) == b"3456"
        assert await world.filesystem.read(found.inode, 8, 9) == b"89"
        assert await world.filesystem.read(found.inode, 10, 9) == b""
        assert content.reads == 2


async def test_a_listing_asks_nobody_and_never_tells_a_wrong_size(tmp_path: Path) -> None:
    known = blob("known")
    async with running_world(tmp_path, [DATA, known]) as world:
        world.refs.meanings["known"] = meaning(known, part_of(77))
        ref = await world.walk("ref")
        listed = {each.name: each for each in await world.filesystem.list(ref.inode, 0, 99)}
        assert world.refs.asked == []
        assert listed[b"known"].attributes.size == 77
        unsized = listed[b"data"].attributes
        assert (unsized.kind, unsized.entry_ttl_s, unsized.attributes_ttl_s) == (Kind.FILE, 0, 0)
        with pytest.raises(SourceChangedError, match="not known when it was listed"):
            await world.filesystem.open(unsized.inode)
        with pytest.raises(SourceChangedError, match="ref/data"):
            await world.filesystem.read(unsized.inode, 0, 1)
        # Not size 0: a kernel that does not ask to open would take the file for an empty one.
        with pytest.raises(SourceChangedError, match=r"ref/data: its size"):
            await world.filesystem.attributes(unsized.inode)
        world.refs.files["data"] = await stored(world.store, b"data")
        assert (await world.walk("ref/data")).inode != unsized.inode


async def test_a_listing_goes_on_where_it_was_while_sizes_become_known(tmp_path: Path) -> None:
    specs = [blob(name) for name in "abcdef"]
    async with running_world(tmp_path, specs) as world:
        ref = (await world.walk("ref")).inode
        first = await world.filesystem.list(ref, 0, 4)
        for spec in specs:
            world.refs.meanings[spec.name] = meaning(spec, part_of(5))
            world.refs.files[spec.name] = await stored(world.store, b"12345")
            await world.walk(f"ref/{spec.name}")
        rest = await world.filesystem.list(ref, first[-1].cookie, 99)
        names = [each.name for each in (*first, *rest)]
        assert sorted(names) == [b"a", b"archive", b"b", b"blob", b"c", b"d", b"docker", b"e", b"f"]


async def test_a_failing_ref_fails_inside_and_tells_why_on_its_directory(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        found = await world.walk("ref/gcc")
        assert await world.text("ref/gcc", "user.cafs.error") is None
        world.refs.failing["gcc"] = UnreachableError("GET https://…: 503", hint="try later")
        with pytest.raises(UnreachableError):
            await world.filesystem.lookup(found.inode, b"bin")
        with pytest.raises(UnreachableError):
            await world.filesystem.list(found.inode, 0, 9)
        assert await world.text("ref/gcc", "user.cafs.error") == "GET https://…: 503 (try later)"
        errors = await world.walk(".cafs/errors.json")
        told = json.loads(await world.filesystem.read(errors.inode, 0, errors.size))
        assert [each["path"] for each in told] == ["ref/gcc", "ref/gcc"]


async def test_a_file_ref_without_a_size_tells_why_on_the_directory_above(tmp_path: Path) -> None:
    async with running_world(tmp_path, [DATA]) as world:
        world.refs.failing["data"] = UnreachableError("GET https://…: 503")
        with pytest.raises(UnreachableError):
            await world.walk("ref/data")
        named = await world.filesystem.lookup((await world.walk("ref")).inode, b"data")
        told = await world.filesystem.xattr(named.inode, b"user.cafs.error")
        assert told == b"GET https://\xe2\x80\xa6: 503"
        assert await world.text("ref", "user.cafs.error") == "GET https://…: 503"


async def test_a_failing_read_tells_why_on_the_file(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        found = await world.walk("ref/gcc/bin/cc")
        world.refs.failing["gcc"] = OfflineError("gcc: 4 bytes are missing")
        with pytest.raises(OfflineError):
            await world.filesystem.read(found.inode, 0, 4)
        told = await world.filesystem.xattr(found.inode, b"user.cafs.error")
        assert told == b"bin/cc: gcc: 4 bytes are missing"
        errors = await world.walk(".cafs/errors.json")
        (failure,) = json.loads(await world.filesystem.read(errors.inode, 0, errors.size))
        assert failure["path"] == "ref/gcc/bin/cc"


async def test_a_tree_that_was_built_anew_is_looked_up_anew(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        old = await world.walk("ref/gcc/bin/cc")
        await world.filesystem.open(old.inode)
        ref = await world.walk("ref/gcc")
        world.refs.trees["gcc"] = await plant(world.store, "gcc", {b"new": Item(data=b"1")})
        with pytest.raises(SourceChangedError, match="another tree"):
            await world.filesystem.read(old.inode, 0, 4)
        with pytest.raises(SourceChangedError, match="another tree"):
            await world.filesystem.open(old.inode)
        # Names in trees are kept for a year: the name of the ref must mean another inode.
        assert (await world.walk("ref/gcc")).inode != ref.inode
        assert (await world.filesystem.attributes(ref.inode)).kind is Kind.DIRECTORY
        new = await world.walk("ref/gcc/new")
        assert new.inode != old.inode
        assert await world.filesystem.read(new.inode, 0, 4) == b"1"
        # A kernel that does not ask to open learns it here.
        with pytest.raises(SourceChangedError, match="another tree"):
            await world.filesystem.attributes(old.inode)


async def test_other_settings_of_a_ref_give_other_numbers(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC, DATA]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        world.refs.files["data"] = await stored(world.store, b"data")
        paths = ["ref/gcc", "ref/gcc/bin/cc", "ref/data"]
        before = [(await world.walk(path)).inode for path in paths]
        moved = replace(GCC, ref=ArchiveRef("https://files.example/other.tar"))
        patient = replace(DATA, deadline_s=7.0)
        world.filesystem = make_filesystem(
            world.store, world.mount, world.refs, world.digests, specs=[moved, patient]
        )
        for inode in before[:2]:
            with pytest.raises(SourceChangedError, match="ref/gcc: the settings"):
                await world.filesystem.attributes(inode)
        assert await world.filesystem.read(before[2], 0, 9) == b"data"
        after = [(await world.walk(path)).inode for path in paths]
        assert set(before[:2]).isdisjoint(after)
        assert after[2] == before[2]
        # The old settings again are the old numbers again.
        world.filesystem = make_filesystem(
            world.store, world.mount, world.refs, world.digests, specs=[GCC, DATA]
        )
        assert [(await world.walk(path)).inode for path in paths] == before


async def test_a_listing_of_refs_changes_its_time_when_the_settings_name_others(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        before = await world.walk("ref")
        for specs in ([GCC], [GCC, DATA], [DATA]):
            world.filesystem = make_filesystem(
                world.store, world.mount, world.refs, world.digests, specs=specs
            )
            after = await world.walk("ref")
            assert (after.mtime_ns == before.mtime_ns) == (specs == [GCC])
            assert after.inode == before.inode


async def test_what_lies_in_trees_is_known_to_be_inside(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC, DATA]) as world:
        first = world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        world.refs.files["data"] = await stored(world.store, b"data")
        inside = [await world.walk(f"ref/gcc/{path.decode()}") for path in TREE if path != b"null"]
        outside = [await world.walk(path) for path in ("", "ref", "ref/gcc", "ref/data", ".cafs")]
        # Another tree at the same place has a range of its own, and both stay what they are.
        world.refs.trees["gcc"] = await plant(world.store, "other", {b"one": Item(data=b"1")})
        inside.append(await world.walk("ref/gcc/one"))
        for each in inside:
            with suppress(SourceChangedError):
                await world.filesystem.attributes(each.inode)
            assert world.filesystem.is_inside(each.inode)
        assert not any(world.filesystem.is_inside(each.inode) for each in outside)
        last = max(each.inode for each in inside)
        for inode in range(last + 5):
            at = world.store.attachments.find(world.mount, inode)
            known = at is not None and at.tree is not None
            assert world.filesystem.is_inside(inode) == known
        assert first.record.count > 1


async def test_an_unknown_number_makes_a_kernel_look_its_path_up_again(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        with pytest.raises(SourceChangedError, match="inode 12345"):
            await world.filesystem.attributes(12345)


async def test_refs_named_by_path_need_a_host_that_settings_name(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        with pytest.raises(PolicyError, match=r"evil\.example"):
            await world.walk("ref/archive/https/evil.example/x.tar@")
        assert (await world.walk("ref/archive/https/files.example/x.tar@")).kind is Kind.DIRECTORY
        assert world.refs.asked == []


async def test_refs_named_by_path_open_and_their_directories_grow(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        ref = "cimd:archive:v=0:https%3A%2F%2Ffiles.example%2Fx.tar"
        world.refs.trees[ref] = await plant(world.store, "x", TREE)
        path = "ref/archive/https/files.example"
        host = await world.walk(path)
        assert await world.names(path) == []
        assert (await world.walk(f"{path}/x.tar@/bin/cc")).size == 4
        assert await world.names(path) == [b"x.tar@"]
        grown = await world.walk(path)
        assert (grown.inode, grown.mtime_ns > host.mtime_ns) == (host.inode, True)


async def test_a_directory_is_listed_once_a_ref_below_it_has_opened(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        ref = "cimd:blob:v=0:https%3A%2F%2Ffiles.example%2Fa%2Fb.bin"
        place = "ref/blob/https/files.example"
        await world.walk(f"{place}/typed/wrongly")
        with pytest.raises(KeyError):
            await world.walk(f"{place}/a/nothing.bin@")
        await world.walk("ref/archive/https/files.example/unread.tar@")
        for name in ("tree", "digest"):  # a listing could not say ENOENT
            with pytest.raises(NotFoundError):
                await world.walk(f"{name}/sha256/{'0' * 64}")
        for path in ("ref/blob", "ref/blob/https", place, "ref/archive/https", "tree/sha256"):
            assert await world.names(path) == []
        before = await world.walk("ref/blob")
        world.refs.files[ref] = await stored(world.store, b"bytes")
        await world.walk(f"{place}/a/b.bin@")
        assert await world.names("ref/blob") == [b"https"]
        assert await world.names(place) == [b"a"]
        assert await world.names(f"{place}/a") == [b"b.bin@"]
        assert (await world.walk("ref/blob")).mtime_ns > before.mtime_ns


async def test_the_usual_spellings_are_symlinks(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        alias = await world.walk("ref/docker/127.0.0.1:5000")
        assert alias.kind is Kind.SYMLINK
        assert await world.filesystem.readlink(alias.inode) == b"127.0.0.1+5000"
        assert (await world.filesystem.attributes(alias.inode)) == alias
        assert await world.names("ref/docker") == []


async def test_blobs_of_the_store_are_files_by_digest(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        before = await world.walk("digest/sha256")
        digests = []
        for data in (b"one", b"two", b"three"):
            writer = await world.store.blobs.create("text/plain")
            await writer.write(data)
            digests.append((await writer.commit(None, None)).digest)
            world.digests.contents[digests[-1]] = await stored(world.store, data)
        listed = sorted(digest.hex.encode() for digest in digests)
        for limit in (1, 2, 99):
            assert await world.names("digest/sha256", limit) == listed
        assert (await world.walk("digest/sha256")).mtime_ns != before.mtime_ns
        found = await world.walk(f"digest/sha256/{digests[2].hex}")
        assert (found.size, found.entry_ttl_s) == (5, FOREVER_S)
        assert await world.filesystem.read(found.inode, 0, 9) == b"three"
        assert await world.names("digest") == [b"sha256"]


async def test_a_digest_that_nothing_knows_is_absent_for_now(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        with pytest.raises(NotFoundError, match="nothing here knows it"):
            await world.walk(f"digest/sha256/{digest_of(b'?').hex}")


async def test_a_blob_can_be_opened_as_a_tree(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        digest = digest_of(b"archive")
        world.digests.trees[digest] = await plant(world.store, "x", TREE)
        path = f"tree/sha256/{digest.hex}"
        found = await world.walk(f"{path}/bin/cc")
        assert await world.filesystem.read(found.inode, 0, 9) == b"#!cc"
        assert await world.names("tree/sha256") == [digest.hex.encode()]


async def test_each_lookup_of_a_control_file_is_a_snapshot(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        one, two = await world.walk(".cafs/status.json"), await world.walk(".cafs/status.json")
        assert one.inode != two.inode
        assert await world.filesystem.read(one.inode, 0, 99) == b'{"n": 1}'
        assert await world.filesystem.read(two.inode, 0, 99) == b'{"n": 2}'
        assert (one.size, one.entry_ttl_s) == (8, 0)
        control = await world.walk(".cafs")
        assert all(world.filesystem.is_control(each.inode) for each in (one, two, control))
        assert not world.filesystem.is_control((await world.walk("ref")).inode)
        readme = await world.walk(".cafs/README")
        assert (await world.walk(".cafs/README")).inode == readme.inode
        assert await world.filesystem.read(readme.inode, 0, 4) == b"This"
        names = await world.names(".cafs")
        assert sorted(names) == [
            b"README",
            b"errors.json",
            b"inflight.json",
            b"status.json",
            b"version",
        ]


async def test_the_room_is_that_of_the_store(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        space = await world.filesystem.space()
        assert 0 < space.available <= space.free <= space.size


async def test_while_the_store_is_removed_the_room_is_that_of_where_it_was(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        away = tmp_path.with_name(f"{tmp_path.name}-away")
        place = world.store.path.rename(away)
        try:
            space = await world.filesystem.space()
        finally:
            place.rename(world.store.path)
        assert 0 < space.available <= space.free <= space.size


async def test_a_disk_that_does_not_tell_its_room_is_an_error_that_is_expected(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path) as world:
        away = tmp_path.with_name(f"{tmp_path.name}-away")
        place = world.store.path.rename(away)
        try:
            world.store.path.symlink_to(world.store.path)
            with pytest.raises(StorageError, match="symbolic links"):
                await world.filesystem.space()
        finally:
            world.store.path.unlink()
            place.rename(world.store.path)


@pytest.mark.parametrize("path", ["ref/data", ".cafs/version"])
async def test_files_have_nothing_below_them(tmp_path: Path, path: str) -> None:
    async with running_world(tmp_path, [DATA]) as world:
        world.refs.files["data"] = await stored(world.store, b"data")
        inode = (await world.walk(path)).inode
        with pytest.raises(NotFoundError):
            await world.filesystem.lookup(inode, b"x")
        with pytest.raises(NotFoundError, match="no directory"):
            await world.filesystem.list(inode, 0, 9)


async def test_only_files_are_read(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        for path in ("/", "ref", "ref/docker"):
            inode = (await world.walk(path)).inode
            with pytest.raises(NotFoundError, match="is no file"):
                await world.filesystem.read(inode, 0, 9)
        assert await world.filesystem.read((await world.walk("ref/gcc/lib")).inode, 0, 9) == b""
