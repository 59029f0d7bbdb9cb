"""Content by digest: only what is checked against it is ever opened."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from cafs.errors import DigestMismatchError, NotFoundError, UnsupportedError
from cafs.model.digest import digest_of
from cafs.model.resolved import Part, Resolved, Shape
from cafs.testing import archives
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, OpenWorld, World

DATA = b"data" * 1000
TAR = gzip.compress(archives.tar((archives.file("a/b", "content"),)), mtime=0)


async def test_a_blob_of_the_store_is_read_by_any_strong_digest(
    world: World, origin: Origin
) -> None:
    claim = digest_of(DATA, "sha512")
    await world.file(world.spec(origin.put("/data", DATA), integrity=str(claim)))
    origin.stop()
    for digest in (digest_of(DATA), claim):
        content = await world.digests.blob_content(digest, USUAL)
        assert content.digest() == digest_of(DATA)
        assert await world.read(content) == DATA


async def test_a_blob_that_a_ref_pins_is_fetched_for_it(world: World, origin: Origin) -> None:
    spec = world.spec(origin.put("/data", DATA), integrity=str(digest_of(DATA)))
    content = await world.digests.blob_content(digest_of(DATA), USUAL)
    assert await world.read(content) == DATA
    assert world.resolver.peek(spec) is not None


async def test_wrong_bytes_of_a_ref_never_come_under_the_digest(
    world: World, origin: Origin
) -> None:
    world.spec(origin.put("/data", DATA), integrity=str(digest_of(b"other")))
    content = await world.digests.blob_content(digest_of(b"other"), USUAL)
    with pytest.raises(DigestMismatchError):
        await world.read(content)
    with pytest.raises(NotFoundError):
        await world.digests.blob_content(digest_of(DATA), USUAL)


async def test_what_a_lock_names_is_known_before_anybody_has_read_the_ref(
    mounted: OpenWorld, origin: Origin
) -> None:
    digest, url = digest_of(TAR), origin.put("/x.tar.gz", TAR)
    part = Part(media_type="", size=len(TAR), digest=digest, urls=(url,))
    for opened in ("blob", "tree"):
        async with mounted() as world:
            spec = world.spec(url)
            locked = Resolved(
                ref=spec.ref.canonical,
                shape=Shape.TREE,
                digest=digest,
                parts=(part,),
                resolved_ns=1,
            )
            world.specs[:] = [replace(spec, locked=locked)]
            await world.digests.check(digest, USUAL)
            with pytest.raises(NotFoundError, match="no ref of this mount names it"):
                await world.digests.check(digest_of(DATA), USUAL)
            if opened == "blob":
                assert await world.read(await world.digests.blob_content(digest, USUAL)) == TAR
            else:
                tree = await world.digests.blob_tree(digest, USUAL)
                assert await world.paths(tree) == {"a": "/", "a/b": "content"}


@pytest.mark.parametrize("algorithm", ["md5", "sha1"])
async def test_a_weak_digest_names_nothing(world: World, origin: Origin, algorithm: str) -> None:
    weak = digest_of(DATA, algorithm)
    spec = world.spec(origin.put("/data", DATA), integrity=str(weak))
    assert await world.file(spec) == DATA
    with pytest.raises(NotFoundError):
        await world.digests.blob_content(weak, USUAL)


async def test_what_nothing_knows_is_not_found_and_asks_nobody(
    world: World, origin: Origin
) -> None:
    world.spec(origin.put("/data", DATA))
    with pytest.raises(NotFoundError, match="no ref of this mount names it"):
        await world.digests.blob_content(digest_of(DATA), USUAL)
    assert origin.requests == ()


async def test_the_integrity_of_an_image_names_none_of_its_layers(
    world: World, origin: Origin
) -> None:
    manifest = digest_of(DATA)
    world.spec(f"docker://127.0.0.1:{origin.port}/app", integrity=str(manifest))
    with pytest.raises(NotFoundError):
        await world.digests.blob_content(manifest, USUAL)


async def test_a_blob_is_opened_as_an_archive(mounted: OpenWorld, origin: Origin) -> None:
    digest = digest_of(TAR)
    url = origin.put("/x.bin", TAR)
    async with mounted() as world:
        world.spec(f"blob+{url}", integrity=str(digest))
        opened = await world.digests.blob_tree(digest, USUAL)
        assert await world.paths(opened) == {"a": "/", "a/b": "content"}
    origin.stop()
    async with mounted() as world:
        again = await world.digests.blob_tree(digest, USUAL)
        assert again.record == opened.record
        assert await world.paths(again) == {"a": "/", "a/b": "content"}


async def test_a_blob_that_is_no_archive_is_unsupported(world: World, origin: Origin) -> None:
    await world.file(world.spec(origin.put("/data", DATA), integrity=str(digest_of(DATA))))
    with pytest.raises(UnsupportedError, match="is no archive"):
        await world.digests.blob_tree(digest_of(DATA), USUAL)


async def test_what_another_store_has_is_opened_by_its_digest_though_nothing_names_it(
    mounted: OpenWorld, tmp_path: Path
) -> None:
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    digest = digest_of(TAR)
    (blobs / digest.hex).write_bytes(TAR)
    async with mounted(offline=True, look_in=(tmp_path / "layout",)) as world:
        opened = await world.digests.blob_tree(digest, USUAL)
        assert await world.paths(opened) == {"a": "/", "a/b": "content"}
        assert await world.read(await world.digests.blob_content(digest, USUAL)) == TAR


async def test_what_another_store_has_is_resolved_without_asking_a_source(
    mounted: OpenWorld, origin: Origin, tmp_path: Path
) -> None:
    blobs = tmp_path / "layout" / "blobs" / "sha512"
    blobs.mkdir(parents=True)
    digest = digest_of(DATA, "sha512")
    (blobs / digest.hex).write_bytes(DATA)
    async with mounted(look_in=(tmp_path / "layout",)) as world:
        spec = world.spec(origin.put("/data", DATA), integrity=str(digest))
        assert await world.file(spec) == DATA
        assert origin.requests == ()
