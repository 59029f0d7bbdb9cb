"""Members of archives by their digest: hashed as they stream by, read where they lie."""

import gzip
import hashlib
import io
import os
import random
import zipfile
from pathlib import Path

import pytest
import trio

from cafs.distribution.interfaces import OpenTree
from cafs.errors import CafsError, NotFoundError, RefusedError, SourceChangedError
from cafs.model.digest import EMPTY, Digest, digest_of
from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import TreeStream
from cafs.store.store import Store
from cafs.testing.archives import file, hard_link, tar, tar_bytes
from cafs.testing.faults import Status
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, OpenWorld, World

BIG = random.Random(1).randbytes(3 << 20)
FILES = {"a/small": b"small", "a/big": BIG, "b/copy": b"small", "b/empty": b""}
TAR = tar_bytes({name: (0o644, data) for name, data in FILES.items()})


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


async def by_digest(world: World, data: bytes) -> bytes:
    return await world.read(await world.digests.blob_content(digest_of(data), USUAL))


async def read_all(world: World, opened: OpenTree) -> list[bytes]:
    """The content of every file of a tree, in the order of their entries."""
    trees, number = world.store.trees, opened.record.number
    entries = [trees.entry(number, each) for each in range(opened.record.count)]
    return [
        await opened.contents[each.stream].read(each.offset, each.size, USUAL)
        for each in entries
        if each.kind is Kind.FILE
    ]


async def drop_streams(store: Store) -> None:
    """What an eviction takes: everything that was decoded."""
    for page in store.trees._tables.index.pages(store.trees._tables.trees):
        for _, raw in page:
            record = store.trees._tables.records.unpack(raw)
            for stream in record.streams if record else ():
                found = store.streams.find(stream.key)
                if found is not None and stream.rules:
                    await found.discard()


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("pinned", [True, False])
async def test_every_member_of_a_tar_is_found_by_its_digest(
    world: World, origin: Origin, kind: str, pinned: bool
) -> None:
    data = gzip.compress(TAR, mtime=0) if kind == "tar.gz" else TAR
    pin = str(digest_of(data)) if pinned else None
    spec = world.spec(origin.put(f"/x.{kind}", data), integrity=pin)
    with pytest.raises(NotFoundError):
        await by_digest(world, BIG)
    await world.resolver.tree(spec, USUAL)
    origin.stop()
    for content in FILES.values():
        assert await by_digest(world, content) == content
    member = await world.digests.blob_content(digest_of(BIG), USUAL)
    assert (member.size, member.present(), member.digest()) == (len(BIG),) * 2 + (digest_of(BIG),)
    assert await member.read(1 << 20, 1000, USUAL) == BIG[1 << 20 :][:1000]
    assert await member.read(len(BIG) - 10, 1000, USUAL) == BIG[-10:]
    assert await member.read(len(BIG), 1000, USUAL) == b""


async def test_entries_say_the_digest_of_what_they_are(world: World, origin: Origin) -> None:
    tree = await world.resolver.tree(world.spec(origin.put("/x.tar", TAR)), USUAL)
    trees, number = world.store.trees, tree.record.number
    found: dict[bytes, bytes] = {}
    for entry in (trees.entry(number, each) for each in range(tree.record.count)):
        if entry.kind is Kind.FILE:
            found[entry.name] = entry.sha256
        else:
            assert entry.sha256 == b""
    assert found == {
        os.path.basename(name).encode(): hashlib.sha256(data).digest()
        for name, data in FILES.items()
    }
    assert found[b"empty"] == EMPTY.raw


async def test_hard_links_are_the_file_that_they_link_to(world: World, origin: Origin) -> None:
    data = tar([file("one", "linked"), hard_link("two", "one"), file("one", "later")])
    tree = await world.resolver.tree(world.spec(origin.put("/x.tar", data)), USUAL)
    assert await world.paths(tree) == {"one": "later", "two": "linked"}
    for content in (b"linked", b"later"):
        assert await by_digest(world, content) == content


@pytest.mark.parametrize("form", ["gnu", "posix"])
async def test_sparse_members_are_hashed_with_their_holes(
    world: World, origin: Origin, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as sparse:
        sparse.write(b"head")
        sparse.seek(3 << 20)
        sparse.write(b"middle" * 1000)
        sparse.truncate(5 << 20)
    (tmp_path / "behind").write_bytes(b"behind")
    await trio.run_process(
        ["tar", "-C", tmp_path, f"--format={form}", "-Scf", tmp_path / "x.tar", "sparse", "behind"]
    )
    assert (tmp_path / "x.tar").stat().st_size < 1 << 20
    url = origin.put("/x.tar", (tmp_path / "x.tar").read_bytes())
    await world.resolver.tree(world.spec(url), USUAL)
    content = path.read_bytes()
    assert await by_digest(world, content) == content
    assert await by_digest(world, b"behind") == b"behind"


async def test_a_member_of_a_zip_is_found_once_it_was_decoded(
    mounted: OpenWorld, origin: Origin
) -> None:
    data = zip_of(FILES)
    async with mounted() as world:
        spec = world.spec(origin.put("/x.zip", data), integrity=str(digest_of(data)))
        tree = await world.resolver.tree(spec, USUAL)
        with pytest.raises(NotFoundError):
            await by_digest(world, BIG)
        assert len(await read_all(world, tree)) == 4
        await world.store.members.flush()
        assert await by_digest(world, BIG) == BIG
    origin.stop()
    async with mounted() as world:
        assert await by_digest(world, b"small") == b"small"
        await drop_streams(world.store)
        assert await by_digest(world, BIG) == BIG  # decoded again from the blob


async def test_a_member_of_a_zip_of_which_not_all_is_here_is_not_found(
    world: World, origin: Origin
) -> None:
    big = random.Random(5).randbytes(24 << 20)
    data = zip_of({**FILES, "rest": big})
    tree = await world.resolver.tree(world.spec(origin.put("/x.zip", data)), USUAL)
    entry = world.store.trees.entry(tree.record.number, 2)
    await tree.contents[0].read(entry.offset, entry.size, USUAL)
    await world.store.members.flush()
    with pytest.raises(NotFoundError):
        await by_digest(world, b"small")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
async def test_what_was_evicted_is_decoded_again_or_fetched_again_or_gone(
    mounted: OpenWorld, origin: Origin, kind: str
) -> None:
    data = gzip.compress(TAR, mtime=0) if kind == "tar.gz" else TAR
    pin = digest_of(data, "sha512")
    async with mounted() as world:
        spec = world.spec(origin.put(f"/x.{kind}", data), integrity=str(pin))
        await world.resolver.tree(spec, USUAL)
        member = await world.digests.blob_content(digest_of(BIG), USUAL)
        await drop_streams(world.store)
        assert await world.read(member) == BIG  # from the blob that is still here
        await drop_streams(world.store)
        await world.store.blobs.delete(pin)
        with pytest.raises(NotFoundError):  # by sha512 it is pinned; nobody knows its sha256 now
            await world.read(member)
        await world.resolver.tree(spec, USUAL)
        await world.read(await world.resolver.file(spec, USUAL))
        assert await world.read(member) == BIG
    async with mounted(offline=True) as world:
        await drop_streams(world.store)
        await world.store.blobs.delete(pin)
        with pytest.raises(NotFoundError):
            await by_digest(world, BIG)


async def test_what_lies_in_two_archives_is_read_from_the_one_that_is_here(
    world: World, origin: Origin
) -> None:
    first = gzip.compress(TAR, mtime=0)
    second = gzip.compress(tar_bytes({"other/big": (0o644, BIG)}), mtime=0)
    for name, data in (("1", first), ("2", second)):
        spec = world.spec(origin.put(f"/{name}.tar.gz", data))
        await world.resolver.tree(spec, USUAL)
    member = await world.digests.blob_content(digest_of(BIG), USUAL)
    origin.stop()
    for data in (first, second):
        places = world.store.members.find(digest_of(BIG))
        (place,) = [each for each in places if each.tree.digest == digest_of(data)]
        found = world.store.streams.find(place.tree.streams[0].key)
        assert found is not None
        await world.store.blobs.delete(digest_of(data))
        await found.discard()
        if data is first:
            assert await world.read(member) == BIG
    with pytest.raises(NotFoundError):
        await world.read(member)


async def test_what_lies_in_two_archives_is_fetched_from_the_one_whose_server_still_has_it(
    world: World, origin: Origin
) -> None:
    archives: dict[Digest, str] = {}
    for path in ("/1.tar.gz", "/2.tar.gz"):
        data = gzip.compress(tar_bytes({path: (0o644, BIG)}), mtime=0)
        spec = world.spec(origin.put(path, data), integrity=str(digest_of(data)))
        await world.resolver.tree(spec, USUAL)
        archives[digest_of(data)] = path
    member = await world.digests.blob_content(digest_of(BIG), USUAL)
    first, second = [each.tree.digest for each in world.store.members.find(digest_of(BIG))]
    assert first is not None
    assert second is not None
    await drop_streams(world.store)
    for digest in archives:
        await world.store.blobs.delete(digest)
    origin.remove(archives[first])
    assert await world.read(member) == BIG
    await drop_streams(world.store)
    await world.store.blobs.delete(second)
    origin.fault(archives[second], Status(503))
    # The first reason is told: known content that cannot be had is no ENOENT.
    with pytest.raises(RefusedError, match=archives[first]):
        await member.read(0, 10, USUAL)


async def test_an_archive_inside_an_archive_is_opened_by_its_digest(
    world: World, origin: Origin
) -> None:
    inner = gzip.compress(tar_bytes({"deep": (0o644, b"inside")}), mtime=0)
    outer = tar_bytes({"inner.tar.gz": (0o644, inner)})
    await world.resolver.tree(world.spec(origin.put("/x.tar", outer)), USUAL)
    opened = await world.digests.blob_tree(digest_of(inner), USUAL)
    assert await world.paths(opened) == {"deep": "inside"}
    assert await by_digest(world, b"inside") == b"inside"


async def test_bytes_of_an_unpinned_archive_that_changed_never_come_under_a_members_digest(
    mounted: OpenWorld, origin: Origin
) -> None:
    """The source has other bytes by the same name: what they decode to is not what was hashed."""
    old = gzip.compress(tar_bytes({"f": (0o644, b"old!" * 1000)}), compresslevel=0, mtime=0)
    new = gzip.compress(tar_bytes({"f": (0o644, b"new!" * 1000)}), compresslevel=0, mtime=0)
    async with mounted() as world:
        spec = world.spec(origin.put("/x.tar.gz", old, etag='"same"'))
        tree = await world.resolver.tree(spec, USUAL)
        await world.store.blobs.delete(digest_of(old))
        await drop_streams(world.store)
        origin.put("/x.tar.gz", new, etag='"same"')
        with pytest.raises(SourceChangedError):
            await tree.contents[0].read(0, 2000, USUAL)
        with pytest.raises(NotFoundError):
            await by_digest(world, b"old!" * 1000)
        assert await by_digest(world, b"new!" * 1000) == b"new!" * 1000


async def test_a_forged_index_makes_no_digest_true(world: World, origin: Origin) -> None:
    """Entries that claim digests, over bytes that do not have them, are believed by nobody."""
    await world.resolver.tree(world.spec(origin.put("/x.tar", TAR)), USUAL)
    store, claimed = world.store, digest_of(b"claimed")
    evil = await store.streams.open("ee" * 32, 7)  # type: ignore[arg-type]
    await evil.write(0, b"forged!")

    def forge() -> None:
        with store.trees.writer(TreeIdentity("dd" * 32)) as writer:
            writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
            for digest in (claimed, digest_of(b"small")):
                writer.add(
                    Entry(
                        name=digest.hex[:5].encode(),
                        parent=ROOT,
                        kind=Kind.FILE,
                        mode=0o644,
                        size=7,
                        sha256=digest.raw,
                    )
                )
            stream = TreeStream(key=evil.key, size=7, raw=evil.key, part=0, rules="tar")
            writer.publish((stream,), digest_of(b"some raw blob"), members=True)

    await trio.to_thread.run_sync(forge)
    with pytest.raises(CafsError):
        await by_digest(world, b"claimed")
    assert await by_digest(world, b"small") == b"small"


async def test_members_go_with_their_tree(mounted: OpenWorld, origin: Origin) -> None:
    async with mounted() as world:
        data = zip_of({"a": b"in a zip"})
        zipped = await world.resolver.tree(
            world.spec(origin.put("/x.zip", data), integrity=str(digest_of(data))), USUAL
        )
        await read_all(world, zipped)
        await world.store.members.flush()
        plain = await world.resolver.tree(world.spec(origin.put("/x.tar", TAR)), USUAL)
        tables = world.store.trees._tables
        for each in (zipped, plain):
            await world.store.trees.delete(each.record.identity)
        with pytest.raises(NotFoundError):
            await by_digest(world, b"in a zip")
        with pytest.raises(NotFoundError):
            await by_digest(world, BIG)
        assert not list(world.store.members.beginning(digest_of(BIG).hex[:4]))
        await world.store.trees.purge([zipped.record.number, plain.record.number])
        with tables.index.read() as snapshot:
            for table in (tables.members, tables.contents, tables.numbers, tables.entries):
                assert not list(snapshot.scan(table, b"", b"\xff" * 60)), table.name


async def test_r23_members_are_found_by_how_their_digests_begin(
    world: World, origin: Origin
) -> None:
    files = {f"f{number}": b"content %d" % number for number in range(300)}
    data = tar_bytes({name: (0o644, each) for name, each in files.items()})
    await world.resolver.tree(world.spec(origin.put("/x.tar", data)), USUAL)
    expected = sorted(hashlib.sha256(each).hexdigest() for each in files.values())
    expected = sorted([*expected, digest_of(data).hex])
    for digits in ("0", "a", "7f", expected[0][:3], expected[9][:20], expected[9]):
        found = [each.hex for each in world.store.beginning("sha256", digits)]
        assert found == [each for each in expected if each.startswith(digits)]
