"""Extended attributes: what is known is told, what is not is absent, and nobody is asked."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from cafs.errors import UnreachableError
from cafs.fetch.content.exposing import DisownedError, Exposures
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import file_tree, indexed_stream, indexed_tree, located_stream
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import TreeStream
from cafs.model.ref import ArchiveRef
from cafs.model.resolved import Part
from cafs.model.spec import RefSpec
from cafs.store.tables.records import Incarnation
from tests.vfs_world import (
    Item,
    World,
    archive,
    blob,
    blob_part,
    meaning,
    part_of,
    plant,
    running_world,
    symlink,
)

GCC, DATA = archive("gcc"), blob("data")
CC = b"#!cc"
TREE = {
    b"cc": Item(
        data=CC,
        sha256=digest_of(CC).raw,
        xattrs=(
            (b"user.note", b"theirs"),
            (b"user.cafs.trust", b"forged"),
            (b"user.checksum.sha256", b"forged"),
            (b"security.capability", b"x"),
        ),
    ),
    b"link": symlink(b"cc"),
    b"plain": Item(data=b"plain"),
}
OURS = (
    b"user.cafs.digest",
    b"user.cafs.present",
    b"user.cafs.trust",
    b"user.cafs.mediatype",
    b"user.cafs.error",
    b"user.checksum.sha256",
)


async def values(world: World, path: str) -> dict[str, bytes]:
    """Our attributes that are there, by the last part of their names."""
    inode = (await world.walk(path)).inode
    found = {name: await world.filesystem.xattr(inode, name) for name in OURS}
    return {name.decode(): value for name, value in found.items() if value is not None}


async def test_of_an_unread_ref_only_its_name_is_known(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        assert await values(world, "ref/gcc") == {}
        assert await world.text("ref/gcc", "user.cafs.ref") == GCC.ref.canonical
        assert world.refs.asked == []


async def test_the_query_of_a_ref_is_told_to_nobody(tmp_path: Path) -> None:
    spec = RefSpec(name="tool", ref=ArchiveRef("https://files.example/t.tar?sig=hunter2"))
    async with running_world(tmp_path, [spec]) as world:
        told = await world.text("ref/tool", "user.cafs.ref")
        assert told == "cimd:archive:v=0:https%3A%2F%2Ffiles.example%2Ft.tar?…"


async def test_a_file_of_a_pinned_tree_is_verified(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        tree = world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        world.refs.meanings["gcc"] = meaning(GCC, part_of(9, digest_of(b"tar")))
        await world.walk("ref/gcc/cc")
        asked = list(world.refs.asked)
        assert await values(world, "ref/gcc/cc") == {
            "user.cafs.digest": str(digest_of(CC)).encode(),
            "user.cafs.present": b"4/4",
            "user.cafs.trust": b"verified",
            "user.checksum.sha256": digest_of(CC).raw,
        }
        assert await values(world, "ref/gcc") == {
            "user.cafs.digest": str(digest_of(b"tar")).encode(),
            "user.cafs.present": b"9/9",
            "user.cafs.trust": b"verified",
        }
        assert await world.text("ref/gcc/cc", "user.cafs.ref") == GCC.ref.canonical
        assert world.refs.asked[: len(asked)] == asked
        stream = world.store.streams.find(tree.record.streams[0].key)
        assert stream is not None
        await stream.discard()
        assert (await values(world, "ref/gcc/cc"))["user.cafs.present"] == b"0/4"


@pytest.mark.parametrize(
    ("pin", "trust"),
    [
        (None, b"provisional"),
        (digest_of(b"tar", "md5"), b"weak"),
        (digest_of(b"tar", "sha512"), b"verified"),
    ],
)
async def test_trust_is_what_the_pin_is_worth(
    tmp_path: Path, pin: Digest | None, trust: bytes
) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        world.refs.meanings["gcc"] = meaning(GCC, part_of(9, pin))
        assert (await values(world, "ref/gcc/plain"))["user.cafs.trust"] == trust
        assert "user.checksum.sha256" not in await values(world, "ref/gcc/plain")


async def test_an_image_is_worth_what_its_manifest_and_its_index_are(tmp_path: Path) -> None:
    meant = meaning(GCC, part_of(9, digest_of(b"tar")))
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        for algorithm, trust in (("sha512", b"verified"), ("md5", b"weak")):
            pin = digest_of(b"manifest", algorithm)
            for image in (replace(meant, digest=pin), replace(meant, named=pin)):
                world.refs.meanings["gcc"] = image
                assert (await values(world, "ref/gcc/plain"))["user.cafs.trust"] == trust


async def test_what_was_decoded_from_what_nobody_has_checked_is_provisional(
    tmp_path: Path,
) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE, checked=False)
        world.refs.meanings["gcc"] = meaning(GCC, part_of(9, digest_of(b"tar")))
        found = await values(world, "ref/gcc/cc")
    assert found["user.cafs.trust"] == b"provisional"
    assert "user.checksum.sha256" not in found
    assert "user.cafs.digest" not in found


@pytest.mark.parametrize("checked", [True, False])
async def test_what_an_index_says_is_vouched_for_and_has_no_digest_of_ours(
    tmp_path: Path, *, checked: bool
) -> None:
    items = TREE | {b"empty": Item(data=b"", sha256=digest_of(b"").raw)}
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(
            world.store, "gcc", items, checked=checked, vouched=True
        )
        world.refs.meanings["gcc"] = meaning(GCC, part_of(9, digest_of(b"tar")))
        assert await values(world, "ref/gcc/cc") == {
            "user.cafs.present": b"4/4",
            "user.cafs.trust": b"vouched",
        }
        assert await values(world, "ref/gcc/empty") == {
            "user.cafs.present": b"0/0",
            "user.cafs.trust": b"vouched",
        }
        assert (await values(world, "ref/gcc"))["user.cafs.trust"] == b"vouched"


async def test_without_a_pin_nobody_can_vouch(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE, vouched=True)
        world.refs.meanings["gcc"] = meaning(GCC, part_of(9))
        assert (await values(world, "ref/gcc/cc"))["user.cafs.trust"] == b"provisional"


async def test_an_archive_cannot_speak_in_our_names(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        inode = (await world.walk("ref/gcc/cc")).inode
        assert await world.filesystem.xattrs(inode) == [b"user.note"]
        assert await world.filesystem.xattr(inode, b"user.note") == b"theirs"
        assert await world.filesystem.xattr(inode, b"user.cafs.trust") != b"forged"
        assert await world.filesystem.xattr(inode, b"user.checksum.sha256") == digest_of(CC).raw
        assert await world.filesystem.xattr(inode, b"security.capability") is None
        assert await world.filesystem.xattr(inode, b"user.nothing") is None


@pytest.mark.parametrize("path", ["/", "ref", "digest", "ref/docker", ".cafs", ".cafs/version"])
async def test_other_nodes_have_none(tmp_path: Path, path: str) -> None:
    async with running_world(tmp_path) as world:
        inode = (await world.walk(path)).inode
        assert await world.filesystem.xattrs(inode) == []
        assert await values(world, path) == {}
        assert await world.filesystem.xattr(inode, b"user.cafs.ref") is None


async def test_symlinks_have_no_content_to_speak_of(tmp_path: Path) -> None:
    async with running_world(tmp_path, [GCC]) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        assert (await world.walk("ref/gcc/link")).kind is Kind.SYMLINK
        assert await values(world, "ref/gcc/link") == {}


async def file_world(world: World, part: Part) -> dict[str, bytes]:
    world.refs.meanings["data"] = meaning(DATA, part)
    return await values(world, "ref/data")


@pytest.mark.parametrize("pinned", [True, False])
async def test_a_file_ref_is_verified_once_it_has_passed_the_gate(
    tmp_path: Path, pinned: bool
) -> None:
    async with running_world(tmp_path, [DATA]) as world:
        part, content = await blob_part(world.store, b"bytes", pinned=pinned)
        world.refs.files["data"] = content
        before = await file_world(world, part)
        assert before["user.cafs.present"] == b"5/5"
        assert before["user.cafs.trust"] == b"provisional"
        assert "user.checksum.sha256" not in before
        await world.store.blobs.admit(content.key, media_type="text/plain", name="data")
        assert await file_world(world, part) == {
            "user.cafs.digest": str(digest_of(b"bytes")).encode(),
            "user.cafs.present": b"5/5",
            "user.cafs.trust": b"verified" if pinned else b"provisional",
            "user.checksum.sha256": digest_of(b"bytes").raw,
        }


@pytest.mark.parametrize("vouched", [True, False])
async def test_a_file_that_is_read_by_its_index_is_vouched_for_until_all_was_checked(
    tmp_path: Path, vouched: bool
) -> None:
    data, index = b"slice of a file", digest_of(b"index")
    async with running_world(tmp_path, [DATA]) as world:
        part, content = await blob_part(world.store, data, pinned=True)
        part = replace(part, index=index)
        world.refs.files["data"] = content
        key = indexed_stream(content.key, index)
        pieces = await world.store.streams.open(key, len(data))
        await pieces.write(0, data[:5])
        stream = TreeStream(
            key=key, size=len(data), raw=content.key, part=0, rules="segments", vouched=vouched
        )
        identity = indexed_tree(file_tree(content.key), index)
        with world.store.trees.writer(identity) as writer:
            writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
            writer.publish((stream,), None)
        before = await file_world(world, part)
        assert before["user.cafs.present"] == b"5/15"
        assert before["user.cafs.trust"] == (b"vouched" if vouched else b"verified")
        assert "user.checksum.sha256" not in before
        await world.store.blobs.admit(content.key, media_type="text/plain", name="data")
        after = await file_world(world, part)
        assert after["user.cafs.present"] == b"15/15"
        assert after["user.cafs.trust"] == b"verified"
        assert after["user.checksum.sha256"] == digest_of(data).raw


async def test_a_file_ref_of_which_nothing_is_local_says_so(tmp_path: Path) -> None:
    async with running_world(tmp_path, [DATA]) as world:
        _, world.refs.files["data"] = await blob_part(world.store, b"other", pinned=False)
        assert await file_world(world, part_of(9, digest_of(b"far away"))) == {
            "user.cafs.digest": str(digest_of(b"far away")).encode(),
            "user.cafs.present": b"0/9",
        }


async def test_a_blob_by_digest_is_verified(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        writer = await world.store.blobs.create("text/plain")
        await writer.write(b"blob")
        digest = (await writer.commit(None, None)).digest
        assert await values(world, f"digest/sha256/{digest.hex}") == {
            "user.cafs.digest": str(digest).encode(),
            "user.cafs.present": b"4/4",
            "user.cafs.trust": b"verified",
            "user.cafs.mediatype": b"text/plain",
            "user.checksum.sha256": digest.raw,
        }


async def test_b_s1_the_media_type_of_a_blob_is_told_and_each_ref_has_its_own(
    tmp_path: Path,
) -> None:
    """What one project's source calls a blob is not what another's does (B-10)."""
    async with running_world(tmp_path, [DATA]) as world:
        part, content = await blob_part(world.store, b"bytes", pinned=True)
        world.refs.files["data"] = content
        await world.store.blobs.admit(content.key, media_type="text/theirs", name="data")
        mine = replace(part, media_type="text/mine")
        assert (await file_world(world, mine))["user.cafs.mediatype"] == b"text/mine"
        digest = digest_of(b"bytes")
        found = await values(world, f"digest/sha256/{digest.hex}")
        assert found["user.cafs.mediatype"] == b"text/theirs"


async def test_a_blob_of_which_nobody_said_the_media_type_has_none(tmp_path: Path) -> None:
    async with running_world(tmp_path) as world:
        digest = (await world.store.blobs.put("", b"blob")).digest
        assert "user.cafs.mediatype" not in await values(world, f"digest/sha256/{digest.hex}")


async def test_why_an_index_is_of_no_use_is_told_by_the_ref_and_all_below_it(
    tmp_path: Path,
) -> None:
    def told(parts: Iterable[Part]) -> str | None:
        return next((f"the index of {part.size} is wrong" for part in parts), None)

    async with running_world(tmp_path, [GCC], told=told) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE)
        world.refs.meanings["gcc"] = meaning(GCC, part_of(9, digest_of(b"tar")))
        for path in ("ref/gcc", "ref/gcc/cc"):
            assert await world.text(path, "user.cafs.error") == "the index of 9 is wrong"
        assert await world.text("ref", "user.cafs.error") is None
        # What failed since is more.
        world.refs.failing["gcc"] = UnreachableError("down")
        assert await world.text("ref/gcc", "user.cafs.error") == "down"


@pytest.mark.expects_log("fetch.disowned")
async def test_what_turned_out_to_be_wrong_can_be_asked_why_and_not_read(tmp_path: Path) -> None:
    exposures = Exposures()
    part = replace(part_of(9, digest_of(b"tar")), index=digest_of(b"index"))
    key = indexed_stream(located_stream(part), digest_of(b"index"))
    async with running_world(tmp_path, [GCC], exposures=exposures) as world:
        world.refs.trees["gcc"] = await plant(world.store, "gcc", TREE, vouched=True)
        world.refs.meanings["gcc"] = meaning(GCC, part)
        file = (await world.walk("ref/gcc/cc")).inode
        await exposures.expose(key, "gcc", Incarnation(b"", 0))
        await exposures.disown(key, "its index is wrong", sure=True)
        for inode in (file, (await world.walk("ref/gcc")).inode):
            told = await world.filesystem.xattr(inode, b"user.cafs.error")
            assert b"its index is wrong" in (told or b"")
        # A kernel asks for attributes before it asks for an extended one, and keeps these not.
        assert (await world.filesystem.attributes(file)).attributes_ttl_s == 0
        with pytest.raises(DisownedError):
            await world.filesystem.open(file)
        with pytest.raises(DisownedError):
            await world.walk("ref/gcc/cc")
        await exposures.pardon()
        assert (await world.filesystem.attributes(file)).attributes_ttl_s > 0


@pytest.mark.expects_log("fetch.disowned")
async def test_a_file_that_turned_out_to_be_wrong_is_found_and_tells_why(tmp_path: Path) -> None:
    """A worker that has taken over cannot even open it."""
    exposures = Exposures()
    part = replace(part_of(9, digest_of(b"data")), index=digest_of(b"index"))
    key = indexed_stream(located_stream(part), digest_of(b"index"))
    async with running_world(tmp_path, [DATA], exposures=exposures) as world:
        world.refs.meanings["data"] = meaning(DATA, part)
        world.refs.failing["data"] = DisownedError("wrong")
        await exposures.expose(key, "data", Incarnation(b"", 0))
        await exposures.disown(key, "its index is wrong", sure=True)
        found = await world.walk("ref/data")
        assert found.size == 9
        told = await world.filesystem.xattr(found.inode, b"user.cafs.error")
        assert b"its index is wrong" in (told or b"")
        with pytest.raises(DisownedError):
            await world.filesystem.read(found.inode, 0, 1)
