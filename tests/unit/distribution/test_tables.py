"""Layers with tables of contents: read by the chunk, never a byte that their manifest denies."""

import hashlib
import random
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from cafs.codec import estargz
from cafs.distribution.pinned_table import TableMismatchError
from cafs.errors import CafsError, ContentError, DigestMismatchError
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import layer_record, raw_stream
from cafs.testing import tabled
from cafs.testing.archives import Item, directory, file, hard_link, opaque, symlink, whiteout
from cafs.testing.faults import Corrupt, IgnoreRange, Status
from cafs.testing.origin import Origin, running_origin
from cafs.testing.tabled import Edit, Table, Tabled
from tests.unit.distribution.conftest import USUAL, OpenWorld, World

FILLER = "".join(random.Random(1).choices("0123456789abcdef", k=2_500_000))
ITEMS = (
    directory("usr"),
    file("usr/first", "first of all"),
    symlink("usr/link", "first"),
    file("usr/filler", FILLER),
    file("usr/last", "last of all"),
    hard_link("usr/same", "usr/last"),
)
TREE = {
    "usr": "/",
    "usr/filler": FILLER,
    "usr/first": "first of all",
    "usr/last": "last of all",
    "usr/link": "-> first",
    "usr/same": "last of all",
}


@cache
def estargz_layer(items: tuple[Item, ...] = ITEMS, edit: Edit = len) -> Tabled:
    return tabled.estargz(items, chunk=200_000, edit=edit)


@cache
def zstd_chunked_layer(items: tuple[Item, ...] = ITEMS, edit: Edit = len) -> Tabled:
    return tabled.zstd_chunked(items, edit=edit)


KINDS: dict[str, Callable[..., Tabled]] = {
    "estargz": estargz_layer,
    "zstd:chunked": zstd_chunked_layer,
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def serve(origin: Origin, *layers: Tabled) -> str:
    """Serve an image of these layers; what it is called."""
    manifest = tabled.manifest(layers)
    kind = "application/vnd.oci.image.manifest.v1+json"
    for name in ("latest", str(digest_of(manifest))):
        origin.put(f"/v2/app/manifests/{name}", manifest, content_type=kind)
    for layer in layers:
        origin.put(blob(layer), layer.data)
    return f"docker://127.0.0.1:{origin.port}/app"


def blob(layer: Tabled) -> str:
    """Where a layer is served."""
    return f"/v2/app/blobs/sha256:{hashlib.sha256(layer.data).hexdigest()}"


@kinds
async def test_a_tree_is_shown_by_its_table_and_a_file_read_by_its_chunks(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    opened = await world.resolver.tree(world.spec(serve(origin, layer)), USUAL)
    asked = origin.requests_for(blob(layer))
    assert len(asked) <= 2
    assert all(one.header("range") for one in asked)
    (entry,) = (
        each
        for _, each in world.store.trees.children(opened.record.number, 1, None, 10)
        if each.name == b"first"
    )
    found = await opened.contents[entry.stream].read(entry.offset, entry.size, USUAL)
    assert found == b"first of all"
    assert origin.bytes_sent(blob(layer)) < len(layer.data) / 2
    assert await world.paths(opened) == TREE


@kinds
async def test_what_a_table_says_is_vouched_for_and_has_no_digests_of_ours(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    opened = await world.resolver.tree(world.spec(serve(origin, layer)), USUAL)
    assert opened.record.digest is None
    assert [one.vouched for one in opened.record.streams] == [True]
    await world.paths(opened)
    assert world.store.members.find(digest_of(b"first of all")) == []
    made = layer_record(raw_stream(digest_of(layer.data)))
    assert world.store.trees.find(made) is None, "nothing goes by the name of what a pass makes"


@kinds
async def test_the_next_mount_asks_for_nothing_again(
    mounted: OpenWorld, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    async with mounted() as world:
        number = (await world.resolver.tree(world.spec(serve(origin, layer)), USUAL)).record.number
    before = len(origin.requests_for(blob(layer)))
    async with mounted() as world:
        again = await world.resolver.tree(world.spec(serve(origin, layer)), USUAL)
        assert again.record.number == number
        assert len(origin.requests_for(blob(layer))) == before
        assert await world.paths(again) == TREE


@kinds
async def test_layers_with_tables_are_merged_as_any(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    over = (
        whiteout("usr/first"),
        file("usr/more", FILLER),
        hard_link("usr/below", "usr/last"),
        directory("gone"),
        opaque("gone"),
    )
    lower, upper = make((*ITEMS, file("gone/inside", "x"))), make(over)
    assert await world.tree(world.spec(serve(origin, lower, upper))) == {
        "gone": "/",
        "usr": "/",
        "usr/below": "last of all",
        "usr/filler": FILLER,
        "usr/last": "last of all",
        "usr/link": "-> first",
        "usr/more": FILLER,
        "usr/same": "last of all",
    }


@kinds
async def test_a_pass_that_was_made_here_comes_before_a_table(
    mounted: OpenWorld, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    plain = Tabled(layer.data, layer.media_type, {}, {}, 0, 0)
    async with mounted() as world:
        await world.tree(world.spec(serve(origin, plain)))
    async with mounted() as world:
        opened = await world.resolver.tree(world.spec(serve(origin, layer)), USUAL)
        assert not any(one.vouched for one in opened.record.streams)


@kinds
@pytest.mark.expects_log("fetch|contents")
async def test_a_table_that_was_damaged_on_the_way_is_asked_for_again(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    origin.fault(blob(layer), Corrupt(at=layer.stop - 100, times=1))
    assert await world.tree(world.spec(serve(origin, layer))) == TREE
    assert origin.bytes_sent(blob(layer)) < 2 * len(layer.data)


@kinds
@pytest.mark.expects_log("fetch|contents")
async def test_a_table_that_stays_wrong_is_named_with_what_was_expected_and_found(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    # In the text of zstd:chunked, in the middle of what deflate made of eStargz's.
    origin.fault(blob(layer), Corrupt(at=(layer.start + layer.stop) // 2))
    with pytest.raises(TableMismatchError) as caught:
        await world.tree(world.spec(serve(origin, layer)))
    assert isinstance(caught.value, DigestMismatchError)
    pinned = next(text for text in layer.annotations.values() if text.startswith("sha256:"))
    assert caught.value.expected == Digest.parse(pinned)
    assert "layer 1 of 1" in caught.value.line
    assert str(layer.start) in caught.value.line
    assert pinned in caught.value.line
    # A byte that does not change what is decoded would not be noticed, and would not matter.
    origin.heal()


@kinds
@pytest.mark.expects_log(".")
async def test_a_flipped_byte_anywhere_is_never_a_wrong_byte(
    mounted: OpenWorld, origin: Origin, make: Callable[..., Tabled], tmp_path: Path
) -> None:
    layer = make()
    end = len(layer.data)
    # The footer of eStargz all through, the table here and there, and the chunks.
    places = [*range(end - 51, end, 15), *range(layer.start, end, (end - layer.start) // 3)]
    places += range(0, layer.start, layer.start // 2)
    spec, errors = serve(origin, layer), 0
    for number, place in enumerate(places):
        if number:
            shutil.rmtree(tmp_path / "store")
        origin.heal()
        origin.fault(blob(layer), Corrupt(at=place))
        async with mounted() as world:
            found = await outcome(world, spec)
        if isinstance(found, CafsError):
            errors += 1
            assert "layer 1 of 1" in found.line
        else:
            assert found == TREE
    assert 0 < errors < len(places)


@kinds
@pytest.mark.expects_log("fetch.mirror.doubted")
async def test_a_wrong_chunk_is_of_a_layer_and_names_the_table_that_says_so(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    spec = serve(origin, layer)
    origin.fault(blob(layer), Corrupt(at=layer.start // 2))
    found = await outcome(world, spec)
    assert isinstance(found, ContentError)
    (part,) = (await world.resolver.resolve(world.spec(spec), USUAL)).parts
    assert part.contents is not None
    assert re.search(r"layer 1 of 1: bytes \d+-\d+ of the layer", found.line)
    assert f"the table of contents {part.contents.digest} that the manifest names" in found.line
    assert "archive" not in found.line
    assert "index" not in found.line


async def outcome(world: World, spec: str) -> dict[str, str] | CafsError:
    """All of a tree, or why not."""
    try:
        return await world.tree(world.spec(spec))
    except CafsError as error:
        return error


@kinds
@pytest.mark.expects_log("fetch|contents")
async def test_a_table_that_is_wrong_at_one_source_is_had_of_another(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    ref = serve(origin, layer)
    with running_origin() as mirror:
        serve(mirror, layer)
        origin.fault(blob(layer), Corrupt(at=(layer.start + layer.stop) // 2))
        spec = world.spec(ref, mirrors=(mirror.url(""),))
        opened = await world.resolver.tree(spec, USUAL)
        assert [one.vouched for one in opened.record.streams] == [True]
        assert await world.paths(opened) == TREE


def _undigested(table: Table) -> None:
    for entry in table["entries"]:
        entry.pop("chunkDigest", None)
        entry.pop("digest", None)


def _escaping(table: Table) -> None:
    table["entries"][-1]["name"] = "../evil"


@kinds
@pytest.mark.parametrize("edit", [_undigested, _escaping, lambda table: table.update(version=7)])
@pytest.mark.expects_log("lazy.no: ")
async def test_a_table_that_does_not_do_is_not_used(
    world: World,
    origin: Origin,
    make: Callable[..., Tabled],
    edit: Callable[[Table], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = await world.resolver.tree(world.spec(serve(origin, make(edit=edit))), USUAL)
    assert not any(one.vouched for one in opened.record.streams)
    found = await world.paths(opened)
    added = {path: found.pop(path) for path in set(found) - set(TREE)}
    assert found == TREE
    # A pass over an eStargz layer shows what a container engine would unpack.
    assert set(added) <= {".no.prefetch.landmark", "stargz.index.json"}
    assert "lazy.no: docker://" in caplog.text


@pytest.mark.expects_log("lazy.no: .*no eStargz footer|fetch")
async def test_a_layer_without_the_footer_that_is_promised_is_read_from_its_beginning(
    world: World, origin: Origin
) -> None:
    layer = tabled.estargz(ITEMS)
    short = Tabled(layer.data[:-51], layer.media_type, layer.annotations, {}, 0, 0)
    found = await world.tree(world.spec(serve(origin, short)))
    assert {path: found[path] for path in TREE} == TREE


@pytest.mark.expects_log("lazy.no: .*no table of contents at byte 5,|fetch")
async def test_a_footer_that_leads_nowhere_does_not_have_the_layer_taken_for_a_table(
    world: World, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    layer = tabled.estargz([file("filler", random.Random(2).randbytes(17 << 20))])
    data = layer.data[: -estargz.FOOTER] + tabled.footer(5)
    lost = Tabled(data, layer.media_type, layer.annotations, {}, 0, 0)
    opened = await world.resolver.tree(world.spec(serve(origin, lost)), USUAL)
    assert not any(one.vouched for one in opened.record.streams)
    assert "no table of contents at byte 5," in caplog.text


@pytest.mark.expects_log("lazy.no: .*manifest-position")
async def test_annotations_that_are_not_known_are_said_not_to_be(
    world: World, origin: Origin
) -> None:
    layer = tabled.zstd_chunked(ITEMS)
    said = {
        name: "5:6:7:8" if "position" in name else text for name, text in layer.annotations.items()
    }
    other = Tabled(layer.data, layer.media_type, said, {}, 0, 0)
    assert await world.tree(world.spec(serve(origin, other))) == TREE


@kinds
async def test_a_source_without_ranges_is_read_whole(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    origin.fault(blob(layer), IgnoreRange())
    found = await world.tree(world.spec(serve(origin, layer)))
    assert {path: found[path] for path in TREE} == TREE


@kinds
async def test_a_table_that_cannot_be_had_is_an_error_of_its_source(
    world: World, origin: Origin, make: Callable[..., Tabled]
) -> None:
    layer = make()
    origin.fault(blob(layer), Status(404))
    with pytest.raises(CafsError, match="404"):
        await world.tree(world.spec(serve(origin, layer)))


async def test_a_small_layer_comes_whole_and_is_checked_whole(world: World, origin: Origin) -> None:
    layer = tabled.zstd_chunked([file("small", "x")])
    opened = await world.resolver.tree(world.spec(serve(origin, layer)), USUAL)
    assert await world.paths(opened) == {"small": "x"}
    assert not any(one.vouched for one in opened.record.streams)
    assert len(origin.requests_for(blob(layer))) == 1
