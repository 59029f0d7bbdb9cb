"""How the tree of a part comes to be: what comes before what, and what is left when that fails."""

import shutil
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path

import pytest
import trio
from typing_extensions import override

from cafs.distribution.index_source import IndexSource
from cafs.distribution.indexing import Indexing
from cafs.distribution.recording import LAYER
from cafs.errors import CafsError
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.passes.making import ARCHIVE
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import indexed_tree, layer_record, raw_stream
from cafs.model.limits import Limits
from cafs.model.resolved import Part
from cafs.store.trees.index_export import export_index
from cafs.testing import tabled
from cafs.testing.archives import file
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, OpenWorld, World
from tests.unit.distribution.test_tables import ITEMS, blob, serve

LAYER_BYTES = tabled.zstd_chunked(ITEMS)
DIGEST = digest_of(LAYER_BYTES.data)
MADE = layer_record(raw_stream(DIGEST))


@dataclass
class Indexes(IndexSource):
    """Has one index, or none; ``asked`` counts, ``told`` is what was wrong with it."""

    path: Path | None = None
    asked: int = 0
    told: list[str] = field(default_factory=list)

    @override
    async def get(self, digest: Digest, patience: Patience) -> Path | None:
        self.asked += 1
        return self.path

    @override
    def wrong(self, digest: Digest, error: CafsError) -> None:
        self.told.append(error.line)


@dataclass
class Index:
    """An index file, and what is in it."""

    path: Path
    data: bytes

    def spoil(self, data: bytes) -> None:
        """Put other bytes into the file."""
        self.path.write_bytes(data)


@pytest.fixture
async def index(mounted: OpenWorld, origin: Origin, tmp_path: Path) -> Index:
    """The index of the layer, made by a pass in a store that is gone."""
    bare = replace(LAYER_BYTES, annotations={})
    async with mounted() as world:
        await world.resolver.tree(world.spec(serve(origin, bare)), USUAL)
        record = world.store.trees.find(MADE)
        assert record is not None
        out, size = BytesIO(), len(LAYER_BYTES.data)
        export_index(world.store.trees, record, out, digest=DIGEST, size=size, mark=LAYER.mark)
    shutil.rmtree(tmp_path / "store")
    origin.forget()
    found = Index(tmp_path / "index", out.getvalue())
    found.spoil(found.data)
    return found


async def located(world: World, origin: Origin) -> tuple[Part, Content]:
    """The layer as its manifest has it, and its bytes."""
    spec = world.spec(serve(origin, LAYER_BYTES))
    resolved = await world.resolver.resolve(spec, USUAL)
    return resolved.parts[0], await world.resolver.part(spec, 0, USUAL)


async def test_an_index_comes_before_a_table_and_costs_no_request(
    mounted: OpenWorld, origin: Origin, index: Index
) -> None:
    pin = digest_of(index.data)
    async with mounted() as world:
        part, raw = await located(world, origin)
        indexes = Indexes(index.path)
        indexing = Indexing(world.store, world.fetcher, Limits(), indexes)
        part = replace(part, index=pin)
        record = await indexing.tree(part, raw, LAYER, USUAL, name="layer")
        assert record is not None
        assert record.identity == indexed_tree(MADE, pin)
        assert not origin.requests_for(blob(LAYER_BYTES))
        again = await indexing.tree(part, raw, LAYER, USUAL, name="layer")
        assert again == record
        assert indexes.asked == 1


@pytest.mark.expects_log("lazy.no: layer: nobody has its index")
async def test_without_the_index_there_is_the_table(
    mounted: OpenWorld, origin: Origin, index: Index
) -> None:
    async with mounted() as world:
        part, raw = await located(world, origin)
        assert part.contents is not None
        for indexes in (Indexes(), None):
            indexing = Indexing(world.store, world.fetcher, Limits(), indexes)
            wanted = replace(part, index=DIGEST)
            record = await indexing.tree(wanted, raw, LAYER, USUAL, name="layer")
            assert record is not None
            assert record.identity == indexed_tree(MADE, part.contents.digest)


async def test_two_who_read_one_table_at_once_get_the_same_tree(
    world: World, origin: Origin
) -> None:
    part, raw = await located(world, origin)
    numbers: list[int] = []

    async def read() -> None:
        indexing = Indexing(world.store, world.fetcher, Limits())
        record = await indexing.tree(part, raw, LAYER, USUAL, name="layer")
        numbers.append(record.number if record is not None else -1)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
    assert len(set(numbers)) == 1
    assert world.store.trees.numbered(numbers[0]) is not None


async def test_with_neither_a_pass_must_be_made(
    mounted: OpenWorld, origin: Origin, index: Index
) -> None:
    async with mounted() as world:
        part, raw = await located(world, origin)
        indexing = Indexing(world.store, world.fetcher, Limits())
        bare = replace(part, contents=None)
        assert await indexing.tree(bare, raw, LAYER, USUAL, name="layer") is None


@pytest.mark.expects_log("lazy.no: layer: index sha256")
@pytest.mark.parametrize("pinned", [False, True], ids=["changed", "malformed"])
async def test_an_index_that_is_wrong_makes_no_tree_and_stops_no_reader(
    mounted: OpenWorld, origin: Origin, index: Index, pinned: bool
) -> None:
    wrong = index.data[:-1] + bytes([index.data[-1] ^ 1])
    index.spoil(wrong)
    pin = digest_of(wrong if pinned else index.data)
    async with mounted() as world:
        part, raw = await located(world, origin)
        indexes = Indexes(index.path)
        indexing = Indexing(world.store, world.fetcher, Limits(), indexes)
        bare = replace(part, index=pin, contents=None)
        assert await indexing.tree(bare, raw, LAYER, USUAL, name="layer") is None
        assert world.store.trees.find(indexed_tree(MADE, pin)) is None
        assert indexes.asked == (1 if pinned else 2)
        (told,) = indexes.told
        assert str(pin) in told


@pytest.mark.expects_log("lazy.no: layer: index sha256")
@pytest.mark.parametrize("of", ["other bytes", "an archive"])
async def test_an_index_of_something_else_says_what_to_do(
    mounted: OpenWorld, origin: Origin, index: Index, of: str
) -> None:
    async with mounted() as world:
        part, raw = await located(world, origin)
        indexes = Indexes(index.path)
        indexing = Indexing(world.store, world.fetcher, Limits(), indexes)
        making = LAYER if of == "other bytes" else ARCHIVE
        digest = digest_of(b"other") if of == "other bytes" else part.digest
        wanted = replace(part, index=digest_of(index.data), contents=None, digest=digest)
        assert await indexing.tree(wanted, raw, making, USUAL, name="layer") is None
        (told,) = indexes.told
        assert "it is of" in told
        assert "cafs lock makes it anew" in told


async def test_an_index_that_goes_after_it_was_found_is_asked_for_again(
    mounted: OpenWorld, origin: Origin, index: Index
) -> None:
    class Moving(Indexes):
        """Has it at first where it is gone by the time that it is read."""

        @override
        async def get(self, digest: Digest, patience: Patience) -> Path | None:
            self.asked += 1
            return index.path if self.asked > 1 else index.path.with_name("gone")

    async with mounted() as world:
        part, raw = await located(world, origin)
        indexing = Indexing(world.store, world.fetcher, Limits(), Moving())
        part = replace(part, index=digest_of(index.data))
        record = await indexing.tree(part, raw, LAYER, USUAL, name="layer")
        assert record is not None
        assert record.identity == indexed_tree(MADE, digest_of(index.data))


async def test_an_image_finds_what_it_is_made_of_again_after_its_layers_records_went(
    mounted: OpenWorld, origin: Origin
) -> None:
    large = "".join(f"{number}\n" for number in range(900_000))
    layers = [replace(tabled.estargz([file("a", large)]), annotations={})]
    ref = serve(origin, *layers)
    async with mounted() as world:
        opened = await world.resolver.tree(world.spec(ref), USUAL)
        planted = [one.planted for one in opened.record.streams]
        assert [one.rules for one in opened.record.streams] == ["segments"]
        made = layer_record(raw_stream(digest_of(layers[0].data)))
        assert planted == [made]
        await world.store.trees.delete(made)
    async with mounted() as world:
        again = await world.resolver.tree(world.spec(ref), USUAL)
        assert again.record.number == opened.record.number
        assert world.store.trees.find(made) is not None
        assert (await world.paths(again))["a"] == large
