"""What somebody vouched for, once all of the bytes are here: right, it is verified; wrong, gone."""

import gzip
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import structs
from typing_extensions import override

from cafs.distribution.index_source import IndexSource
from cafs.distribution.interfaces import OpenTree
from cafs.errors import CafsError
from cafs.fetch.content.exposing import DisownedError
from cafs.fetch.interfaces import Patience
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import TreeIdentity, archive_tree, layer_record, raw_stream
from cafs.model.member import Entry
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.span import Span
from cafs.model.spec import RefSpec
from cafs.store.store import Store
from cafs.store.trees.index_export import export_index
from cafs.testing.archives import file, tar, zip_archive
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from cafs.testing.tabled import Table, Tabled
from tests.unit.distribution.conftest import USUAL, OpenWorld, World
from tests.unit.distribution.test_tables import ITEMS, KINDS, TREE, kinds, serve
from tests.unit.fetch.conftest import until

WRONG = pytest.mark.expects_log("fetch.disowned")
TEXT = Generated(3 << 20, seed=4).read(0, 3 << 20).hex()
FILES = {"a": "first", "large": TEXT, "z": "last"}
DATA = gzip.compress(tar(file(*each) for each in FILES.items()), 6, mtime=0)
DIGEST = digest_of(DATA)
Forge = Callable[[int, Entry], Entry]


async def whole(world: World, spec: RefSpec) -> None:
    """Have all of the raw content come, and pass its gate."""
    resolved = await world.resolver.resolve(spec, USUAL)
    for number in range(len(resolved.parts)):
        raw = await world.resolver.part(spec, number, USUAL)
        await raw.ensure(Span(0, raw.size), USUAL)


async def settled(world: World, opened: OpenTree) -> TreeRecord | None:
    """Read until what was vouched for is verified, or known to be wrong; its record then."""
    key = opened.record.streams[0].key

    def known() -> bool:
        now = world.store.trees.numbered(opened.record.number)
        wrong = world.fetcher.exposures.find(key)
        return wrong is not None or now is None or not now.streams[0].vouched

    with trio.fail_after(60), suppress(DisownedError):
        while not known():
            # A reader notices that all is here.
            await opened.contents[0].read(0, 1, USUAL)
            await trio.sleep(0.01)
    return world.store.trees.numbered(opened.record.number)


# ---- tables of contents ----


@kinds
async def test_a_layer_whose_table_is_right_becomes_verified(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    spec = world.spec(serve(origin, layer))
    opened = await world.resolver.tree(spec, USUAL)
    assert await world.paths(opened) == TREE
    await whole(world, spec)
    record = await settled(world, opened)
    assert record is not None
    assert [one.vouched for one in record.streams] == [False]
    made = world.store.trees.find(layer_record(raw_stream(digest_of(layer.data))))
    assert made is not None
    # What the pass has decoded is let go of: it can be decoded again.
    assert world.store.streams.find(made.streams[0].key) is None
    assert await world.paths(opened) == TREE
    stream = world.store.streams.find(record.streams[0].key)
    assert stream is not None
    assert stream.behind() == digest_of(layer.data)


def _entry(table: Table, name: str) -> dict[str, Any]:
    (found,) = (
        one for one in table["entries"] if one["name"].endswith(name) and one["type"] != "chunk"
    )
    assert isinstance(found, dict)
    return found


def rename(table: Table) -> None:
    _entry(table, "usr/first")["name"] = "usr/evil"


def set_id(table: Table) -> None:
    _entry(table, "usr/first")["mode"] = 0o4755


def swap(table: Table) -> None:
    """Let each of two names show what is the other's."""
    one, other = _entry(table, "usr/one"), _entry(table, "usr/two")
    one["name"], other["name"] = other["name"], one["name"]


def leave_out(table: Table) -> None:
    table["entries"].remove(_entry(table, "usr/link"))


FORGED: dict[Callable[[Table], None], str] = {
    rename: "there is no 'usr/evil' in the layer",
    set_id: "'usr/first' is another in the layer",
    swap: "'usr/two' has other content in the layer",
    leave_out: "it does not name 'usr/link', which is in the layer",
}


@WRONG
@kinds
@pytest.mark.parametrize("edit", FORGED)
async def test_a_table_that_shows_other_files_than_the_layer_is_found_out(
    world: World, origin: Origin, make: Callable[..., Tabled], edit: Callable[[Table], None]
) -> None:
    layer = make((*ITEMS, file("usr/one", "A" * 20), file("usr/two", "B" * 20)), edit=edit)
    spec = world.spec(serve(origin, layer))
    opened = await world.resolver.tree(spec, USUAL)
    assert [one.vouched for one in opened.record.streams] == [True]
    await world.paths(opened)  # each piece has the digest that the table says
    await whole(world, spec)
    await settled(world, opened)
    with pytest.raises(DisownedError, match=r"the table of contents sha256:.* is wrong") as failed:
        await world.paths(opened)
    assert FORGED[edit] in failed.value.line


@WRONG
async def test_the_next_mount_shows_what_is_in_the_layer(
    mounted: OpenWorld, origin: Origin
) -> None:
    ref = serve(origin, KINDS["estargz"](edit=rename))
    async with mounted() as world:
        spec = world.spec(ref)
        opened = await world.resolver.tree(spec, USUAL)
        await whole(world, spec)
        await settled(world, opened)
    async with mounted() as world:
        again = await world.resolver.tree(world.spec(ref), USUAL)
        found = await world.paths(again)
        assert found.items() >= TREE.items()
        assert "usr/evil" not in found


# ---- indexes ----


class Indexes(IndexSource):
    """Has one index."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._digest = path, digest_of(data)
        path.write_bytes(data)

    @override
    async def get(self, digest: Digest, patience: Patience) -> Path | None:
        return self._path if digest == self._digest else None

    @override
    def wrong(self, digest: Digest, error: CafsError) -> None:
        raise error


def copied(store: Store, record: TreeRecord, forge: Forge) -> TreeRecord:
    """A tree like another, but for what is forged in it, which looks like one of a pass."""
    with store.trees.writer(TreeIdentity("ab" * 32)) as writer:
        for number, (entry, _) in enumerate(store.trees.rows(record.number)):
            writer.add(forge(number, entry))
        for segment, window in store.trees.all_segments(record.number, 0):
            writer.add_segment(0, segment, window)
        return writer.publish(record.streams, record.digest)


async def index_of(
    mounted: OpenWorld, origin: Origin, store: Path, forge: Forge | None = None
) -> bytes:
    """The index of the archive, made in a store that is gone."""
    url = origin.put("/x.tar.gz", DATA)
    async with mounted() as world:
        await world.resolver.tree(world.spec(url, integrity=str(DIGEST)), USUAL)
        record = world.store.trees.find(archive_tree(raw_stream(DIGEST)))
        assert record is not None
        record = record if forge is None else copied(world.store, record, forge)
        out = BytesIO()
        export_index(world.store.trees, record, out, digest=DIGEST, size=len(DATA), mark="")
    shutil.rmtree(store)
    return out.getvalue()


def targz(world: World, origin: Origin, index: bytes) -> RefSpec:
    """The archive as a lock names it."""
    return locked(world, origin.url("/x.tar.gz"), DIGEST, len(DATA), index)


def locked(world: World, url: str, digest: Digest, size: int, index: bytes) -> RefSpec:
    """A ref that a lock names with an index."""
    spec = world.spec(url)
    part = Part(
        media_type="application/octet-stream",
        size=size,
        digest=digest,
        urls=(url,),
        index=digest_of(index),
    )
    meaning = Resolved(
        ref=spec.ref.canonical, shape=Shape.TREE, digest=digest, parts=(part,), resolved_ns=0
    )
    return replace(spec, locked=meaning)


async def test_an_archive_whose_index_is_right_becomes_verified(
    mounted: OpenWorld, origin: Origin, tmp_path: Path
) -> None:
    index = await index_of(mounted, origin, tmp_path / "store")
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = targz(world, origin, index)
        opened = await world.resolver.tree(spec, USUAL)
        assert opened.record.digest is None
        assert await world.paths(opened) == FILES
        await whole(world, spec)
        record = await settled(world, opened)
        assert record is not None
        assert record.digest == DIGEST
        assert await world.paths(opened) == FILES
        stream = world.store.streams.find(record.streams[0].key)
        assert stream is not None
        assert stream.behind() == DIGEST
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        # What a pass has found comes before what anybody says.
        again = await world.resolver.tree(targz(world, origin, index), USUAL)
        assert again.record.identity == archive_tree(raw_stream(DIGEST))
        assert await world.paths(again) == FILES


async def test_a_zip_whose_index_is_right_becomes_verified(
    mounted: OpenWorld, origin: Origin, tmp_path: Path
) -> None:
    data = zip_archive(file(*each) for each in FILES.items())
    url, digest = origin.put("/x.zip", data), digest_of(data)
    out = BytesIO()
    async with mounted() as world:
        opened = await world.resolver.tree(world.spec(url, integrity=str(digest)), USUAL)
        await world.paths(opened)
        trees, number = world.store.trees, opened.record.number
        await until(lambda: all(one.sha256 for one, _ in trees.all_segments(number, 0)))
        export_index(trees, opened.record, out, digest=digest, size=len(data), mark="")
    shutil.rmtree(tmp_path / "store")
    index = out.getvalue()
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = locked(world, url, digest, len(data), index)
        opened = await world.resolver.tree(spec, USUAL)
        assert [one.vouched for one in opened.record.streams] == [True]
        assert await world.paths(opened) == FILES
        await whole(world, spec)
        record = await settled(world, opened)
        assert record is not None
        assert record.digest == digest
        assert await world.paths(opened) == FILES


def evil(_: int, entry: Entry) -> Entry:
    return structs.replace(entry, name=b"evil") if entry.name == b"a" else entry


def aside(_: int, entry: Entry) -> Entry:
    return structs.replace(entry, offset=entry.offset + 1) if entry.name == b"large" else entry


@WRONG
@pytest.mark.parametrize(("forge", "says"), [(evil, "'a'"), (aside, "'large'")])
async def test_an_index_that_says_something_else_than_the_archive_is_found_out(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, forge: Forge, says: str
) -> None:
    index = await index_of(mounted, origin, tmp_path / "store", forge)
    async with mounted(indexes=Indexes(tmp_path / "index", index)) as world:
        spec = targz(world, origin, index)
        opened = await world.resolver.tree(spec, USUAL)
        await whole(world, spec)
        await settled(world, opened)
        with pytest.raises(DisownedError, match=f"the index {digest_of(index)}") as failed:
            await opened.contents[0].read(0, 10, USUAL)
        assert f"{says}, is another" in failed.value.line
        await until(lambda: world.store.trees.find(opened.record.identity) is None)


async def test_what_has_no_room_is_not_promoted(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = await index_of(mounted, origin, tmp_path / "store")
    caplog.set_level("INFO")
    async with mounted(
        indexes=Indexes(tmp_path / "index", index), quota=len(DATA) + (4 << 20)
    ) as world:
        spec = targz(world, origin, index)
        opened = await world.resolver.tree(spec, USUAL)
        await whole(world, spec)
        with trio.fail_after(60):
            while "promote.skipped" not in caplog.text:
                await opened.contents[0].read(0, 1, USUAL)
                await trio.sleep(0.01)
        assert world.store.trees.find(archive_tree(raw_stream(DIGEST))) is None
