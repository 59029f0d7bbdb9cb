"""A locked file that is no archive: read by the range, each slice checked."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from typing_extensions import override

from cafs.distribution.locking import Located, Locker, Reports
from cafs.distribution.repairing import Repairer
from cafs.errors import CafsError, ContentError
from cafs.fetch.content.exposing import DisownedError
from cafs.fetch.content.watched import WatchedContent
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import StreamKey, file_tree, indexed_stream, indexed_tree, raw_stream
from cafs.model.item import Item
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord
from cafs.model.ref import Ref
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.span import Span, SpanSet
from cafs.model.spec import RefSpec
from cafs.store.health.checking import Found
from cafs.testing.archives import tar_bytes
from cafs.testing.faults import Corrupt
from cafs.testing.origin import Origin
from tests.indexed import listed
from tests.unit.distribution.conftest import USUAL, OpenWorld, World
from tests.unit.distribution.test_promoting import Indexes as BesideLock
from tests.unit.fetch.conftest import until

MIB = 1 << 20
SIZE = 12 * MIB + 300
DATA = random.Random(11).randbytes(SIZE)
DIGEST = digest_of(DATA)
TREE = file_tree(raw_stream(DIGEST))


class Indexes(BesideLock):
    """Has one index, of which it may be told that it is wrong."""

    @override
    def wrong(self, digest: Digest, error: CafsError) -> None:
        self.told = error.line


async def lock(world: World, url: str, folder: Path) -> Located:
    await trio.Path(folder).mkdir()
    locker = Locker(world.store, world.resolver, world.fetcher, Limits())
    return await locker.locate(world.spec(f"blob+{url}"), folder, Reports(), USUAL)


@pytest.fixture
async def index(mounted: OpenWorld, origin: Origin, tmp_path: Path) -> bytes:
    """The index that locking the file makes, in a store that is gone."""
    async with mounted() as world:
        located = await lock(world, origin.put("/model", DATA), tmp_path / "locked")
    (path,) = located.indexes.values()
    data = path.read_bytes()
    shutil.rmtree(tmp_path / "store")
    origin.forget()
    return data


def locked(
    world: World, origin: Origin, index: bytes | Digest, *, mirrors: tuple[str, ...] = ()
) -> RefSpec:
    """The file as a lock names it."""
    url = origin.url("/model")
    spec = world.spec(f"blob+{url}", name="model", mirrors=mirrors)
    part = Part(
        media_type="application/octet-stream",
        size=SIZE,
        digest=DIGEST,
        urls=(url, *mirrors),
        index=index if isinstance(index, Digest) else digest_of(index),
    )
    meaning = Resolved(
        ref=spec.ref.canonical, shape=Shape.FILE, digest=DIGEST, parts=(part,), resolved_ns=0
    )
    return replace(spec, locked=meaning)


def ad_hoc(ref: Ref) -> RefSpec:
    return RefSpec(name="", ref=ref)


def pieces_lost(key: StreamKey, lost: SpanSet) -> Found:
    """Some of what was there of the file by its pieces has gone."""
    return Found(
        item=Item.stream(key),
        what="changed",
        lost=lost,
        size=SIZE,
        key=key,
        streams=(key,),
        whole=False,
    )


def record(world: World, index: bytes) -> TreeRecord | None:
    return world.store.trees.find(indexed_tree(TREE, digest_of(index)))


async def test_an_index_of_a_file_has_a_digest_for_each_mebibyte(index: bytes) -> None:
    header, entries, segments = listed(index)
    assert (header.blob, header.size, header.decoded) == (DIGEST, SIZE, SIZE)
    assert (header.compression, header.mark, len(entries)) == ("none", "+file", 1)
    assert [each.length for each, _ in segments] == [MIB] * 12 + [300]
    assert [each.sha256 for each, _ in segments] == [
        digest_of(DATA[at : at + MIB]).raw for at in range(0, SIZE, MIB)
    ]


@pytest.mark.parametrize(
    "data",
    [b"small", DATA[:MIB], tar_bytes({"a": (0o644, DATA)}, compression="gz")],
    ids=["small", "one-slice", "archive"],
)
async def test_what_is_in_a_file_is_nobodys_business_and_small_ones_have_no_index(
    world: World, origin: Origin, tmp_path: Path, data: bytes
) -> None:
    located = await lock(world, origin.put("/x.bin", data), tmp_path / "locked")
    (part,) = located.resolved.parts
    assert (part.digest, part.size) == (digest_of(data), len(data))
    assert (part.index is not None) is (len(data) > MIB)
    assert {part.index} - {None} == set(located.indexes)


async def test_a_file_with_a_pin_of_any_algorithm_and_a_bare_digest_have_an_index_too(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    url = origin.url("/model")
    async with mounted() as world:
        locker = Locker(world.store, world.resolver, world.fetcher, Limits())
        specs = [
            world.spec(f"blob+{url}", integrity=str(digest_of(DATA, "sha512"))),
            world.spec(f"blob+{url}", integrity=str(DIGEST)),
            world.spec(str(DIGEST), mirrors=(url,)),
        ]
        for number, spec in enumerate(specs):
            folder = tmp_path / str(number)
            folder.mkdir()
            located = await locker.locate(spec, folder, Reports(), USUAL)
            assert located.resolved.digest == DIGEST
            assert [path.read_bytes() for path in located.indexes.values()] == [index]
        assert SIZE <= origin.bytes_sent("/model") <= SIZE + 2


async def test_of_a_locked_file_what_is_read_is_fetched_and_not_the_rest(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        content = await world.resolver.file(locked(world, origin, index), USUAL)
        assert (content.size, content.digest(), content.present()) == (SIZE, None, 0)
        assert await content.read(0, 16, USUAL) == DATA[:16]
        assert await content.read(SIZE - 10, 100, USUAL) == DATA[-10:]
        assert origin.bytes_sent("/model") <= 2 * MIB
        assert content.present() == MIB + 300
        at = 5 * MIB - 7
        assert await content.read(at, MIB + 20, USUAL) == DATA[at : at + MIB + 20]
        assert origin.bytes_sent("/model") < SIZE


@pytest.mark.expects_log("fetch.mirror")
async def test_wrong_bytes_of_a_slice_come_from_another_source(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    mirror = origin.put("/mirror", DATA)
    origin.fault("/model", Corrupt(3 * MIB + 5))
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index, mirrors=(mirror,))
        content = await world.resolver.file(spec, USUAL)
        assert await content.read(3 * MIB, 100, USUAL) == DATA[3 * MIB : 3 * MIB + 100]
        assert origin.bytes_sent("/mirror") < 3 * MIB


@pytest.mark.expects_log("fetch.mirror")
async def test_where_nobody_has_the_right_bytes_the_error_names_the_range_and_both_digests(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    origin.fault("/model", Corrupt(3 * MIB + 5))
    wrong = bytearray(DATA[3 * MIB : 4 * MIB])
    wrong[5] ^= 0xFF
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        content = await world.resolver.file(locked(world, origin, index), USUAL)
        with pytest.raises(ContentError) as failed:
            await content.read(3 * MIB, 100, USUAL)
        said = failed.value.line
        assert f"model: bytes {3 * MIB}-{4 * MIB - 1} of the file are sha256:" in said
        assert "decode" not in said
        assert f"the index {digest_of(index)} that cafs.lock names" in said
        assert "cafs lock --check --full tells which" in said
        assert str(digest_of(bytes(wrong))) in said
        assert str(digest_of(DATA[3 * MIB : 4 * MIB])) in said
        # What is right elsewhere is read all the same.
        assert await content.read(7 * MIB, 100, USUAL) == DATA[7 * MIB : 7 * MIB + 100]


@pytest.mark.expects_log("lazy.no: model")
@pytest.mark.parametrize("kind", ["nowhere", "changed", "of an archive"])
async def test_without_its_index_a_locked_file_comes_whole(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes, kind: str
) -> None:
    found = index
    if kind == "changed":
        found = index[:-1] + bytes([index[-1] ^ 1])
    elif kind == "of an archive":
        found = index[:11] + b"\0" + index[12:]
    source = None if kind == "nowhere" else Indexes(tmp_path / "index", found)
    named = found if kind == "of an archive" else index
    async with mounted(indexes=source) as world:
        if source is not None:
            source._digest = digest_of(named)
        content = await world.resolver.file(locked(world, origin, named), USUAL)
        assert await content.read(SIZE - 5, 5, USUAL) == DATA[-5:]
        assert origin.bytes_sent("/model") == SIZE
        assert content.digest() == DIGEST


async def test_once_all_of_it_is_here_a_file_is_verified_and_lies_there_once(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index)
        content = await world.resolver.file(spec, USUAL)
        assert await content.read(0, 16, USUAL) == DATA[:16]
        before = record(world, index)
        assert before is not None
        assert before.streams[0].vouched
        raw = await world.resolver.part(spec, 0, USUAL)
        await raw.ensure(Span(0, SIZE), USUAL)
        with trio.fail_after(60):
            while (now := record(world, index)) is None or now.streams[0].vouched:
                assert await content.read(MIB, 16, USUAL) == DATA[MIB : MIB + 16]
                await trio.sleep(0.01)
        assert now.digest == DIGEST
        pieces = indexed_stream(raw.key, digest_of(index))
        await until(lambda: world.store.streams.find(pieces) is None)
        assert content.digest() == DIGEST
        assert await world.read(content) == DATA
        assert world.store.streams.find(pieces) is None


async def test_a_file_that_was_read_once_to_its_end_lies_there_once(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    """Nobody comes to read again: the kernel has its pages."""
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index)
        content = await world.resolver.file(spec, USUAL)
        assert await world.read(content) == DATA
        raw = await world.resolver.part(spec, 0, USUAL)
        pieces = indexed_stream(raw.key, digest_of(index))
        assert world.store.streams.find(pieces) is not None
        await until(lambda: world.store.streams.find(pieces) is None)
        assert content.digest() == DIGEST


async def test_a_file_that_went_in_between_is_read_by_its_pieces_again(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    """Of what was verified they are verified too, and need no index any more."""
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index)
        content = await world.resolver.file(spec, USUAL)
        assert await world.read(content) == DATA
        raw = await world.resolver.part(spec, 0, USUAL)
        # They go when it is on record that they were verified.
        pieces = indexed_stream(raw.key, digest_of(index))
        await until(lambda: world.store.streams.find(pieces) is None)
        now = record(world, index)
        assert now is not None
        assert not now.streams[0].vouched
        await world.store.blobs.delete(DIGEST)
        origin.forget()
        assert await content.read(5 * MIB, 16, USUAL) == DATA[5 * MIB : 5 * MIB + 16]
        assert 0 < origin.bytes_sent("/model") <= 2 * MIB


@pytest.mark.expects_log("fetch.disowned")
async def test_an_index_that_is_not_of_the_files_bytes_is_found_out(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    """It was made of other bytes, and says that it is of these."""
    other = DATA[: 2 * MIB] + bytes(MIB) + DATA[3 * MIB :]
    async with mounted() as world:
        located = await lock(world, origin.put("/other", other), tmp_path / "other")
    (path,) = located.indexes.values()
    forged = path.read_bytes().replace(digest_of(other).raw, DIGEST.raw)
    shutil.rmtree(tmp_path / "store")
    async with mounted(indexes=Indexes(tmp_path / "index", forged)) as world:
        spec = locked(world, origin, forged)
        content = await world.resolver.file(spec, USUAL)
        assert await content.read(0, 16, USUAL) == DATA[:16]
        raw = await world.resolver.part(spec, 0, USUAL)
        await raw.ensure(Span(0, SIZE), USUAL)

        async def go_on() -> None:
            while True:
                assert await content.read(0, 16, USUAL) == DATA[:16]
                await trio.sleep(0.01)

        says = f"the index {digest_of(forged)}"
        with trio.fail_after(60), pytest.raises(DisownedError, match=says):
            await go_on()
        await until(lambda: record(world, forged) is None)
    async with mounted(indexes=Indexes(tmp_path / "index", forged)) as world:
        content = await world.resolver.file(locked(world, origin, forged), USUAL)
        assert await world.read(content) == DATA


async def test_what_has_a_digest_for_a_name_is_checked_whole_whatever_the_lock_has(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index)
        world.specs.append(spec)
        shown = await world.resolver.file(spec, USUAL)
        assert isinstance(shown, WatchedContent)
        content = await world.digests.blob_content(DIGEST, USUAL)
        assert await content.read(0, 16, USUAL) == DATA[:16]
        assert content.digest() == DIGEST


@pytest.mark.expects_log("fetch.disowned")
@pytest.mark.parametrize("same", [True, False])
async def test_a_pin_of_another_algorithm_counts_as_soon_as_all_is_here(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes, same: bool
) -> None:
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        pin = digest_of(DATA if same else b"else", "sha512")
        plain = locked(world, origin, index)
        spec = replace(plain, integrity=pin)
        content = await world.resolver.file(spec, USUAL)
        assert await content.read(0, 16, USUAL) == DATA[:16]
        assert origin.bytes_sent("/model") <= 2 * MIB
        raw = await world.resolver.part(plain, 0, USUAL)
        await raw.ensure(Span(0, SIZE), USUAL)

        async def settled() -> None:
            while (now := record(world, index)) is not None and now.streams[0].vouched:
                await content.read(0, 16, USUAL)
                await trio.sleep(0.01)
            await content.read(0, 16, USUAL)

        with trio.fail_after(60):
            if same:
                await settled()
                known = world.store.blobs.stat(pin)
                assert known is not None
                assert known.digest == DIGEST
                return
            with pytest.raises(DisownedError, match=str(pin)):
                await settled()


async def test_what_was_read_of_a_file_belongs_to_its_ref_and_is_repaired_alone(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index)
        content = await world.resolver.file(spec, USUAL)
        assert await content.read(5 * MIB, 16, USUAL) == DATA[5 * MIB : 5 * MIB + 16]
        key = indexed_stream(raw_stream(DIGEST), digest_of(index))
        resolved = world.resolver.peek(spec)
        assert resolved is not None
        assert record(world, index) in world.store.belongings.trees(resolved)
        assert Item.stream(key) in world.store.belongings.items(resolved)
        lost = SpanSet([Span(5 * MIB, 5 * MIB + 4096)])
        pieces = world.store.streams.find(key)
        assert pieces is not None
        await pieces.discard()
        found = pieces_lost(key, lost)
        origin.forget()

        repairer = Repairer(world.store, world.resolver, [spec], ad_hoc)
        assert await repairer.repair(found, USUAL) == "it is there again"
        # Its raw bytes are still here.
        assert origin.bytes_sent("/model") == 0


async def test_slices_that_are_damaged_are_let_go_where_the_whole_file_is_there_too(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    """It is read as that, so nothing brings them again: that is no damage any more."""
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, origin, index)
        content = await world.resolver.file(spec, USUAL)
        assert await content.read(5 * MIB, 16, USUAL) == DATA[5 * MIB : 5 * MIB + 16]
        key = indexed_stream(raw_stream(DIGEST), digest_of(index))
        await world.store.blobs.put("", DATA, DIGEST)
        pieces = world.store.streams.find(key)
        assert pieces is not None
        lost = SpanSet([Span(5 * MIB, 5 * MIB + 4096)])
        await pieces.reject(*lost)
        origin.forget()
        repairer = Repairer(world.store, world.resolver, [spec], ad_hoc)
        how = await repairer.repair(pieces_lost(key, lost), USUAL)
        assert how == "all of the file is there, and is read instead"
        assert world.store.streams.find(key) is None
        assert await world.read(content) == DATA
        assert origin.bytes_sent("/model") == 0


async def test_whatever_is_read_of_a_locked_file_is_what_the_file_has(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, index: bytes
) -> None:
    chance = random.Random(7)
    spans = [(chance.randrange(SIZE), chance.randrange(1, 3 * MIB)) for _ in range(24)]
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        content = await world.resolver.file(locked(world, origin, index), USUAL)

        async def read(offset: int, length: int) -> None:
            assert await content.read(offset, length, USUAL) == DATA[offset : offset + length]

        for at in range(0, len(spans), 8):
            async with trio.open_nursery() as nursery:
                for span in spans[at : at + 8]:
                    nursery.start_soon(read, *span)
        # Neighbours come in one request, and nothing comes twice.
        assert origin.bytes_sent("/model") <= SIZE
        assert len(origin.requests_for("/model")) < len(spans)
