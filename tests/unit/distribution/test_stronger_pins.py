"""A lock, and a pin by another algorithm: the lock vouches for pieces, and never overrules."""

from dataclasses import replace
from pathlib import Path

import pytest

from cafs.errors import DigestMismatchError, OfflineError, UnsupportedError
from cafs.fetch.content.exposing import DisownedError
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import archive_tree, indexed_tree, raw_stream
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.testing import tabled
from cafs.testing.archives import file, tar_bytes
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, OpenWorld, World
from tests.unit.distribution.test_promoting import (
    DATA,
    DIGEST,
    Indexes as BesideLock,
    index_of,
    settled,
    targz,
    whole,
)

RIGHT = tar_bytes({"a": (0o644, b"right")}, compression="gz")
EVIL = tar_bytes({"a": (0o644, b"evil!")}, compression="gz")
MADE = archive_tree(raw_stream(DIGEST))


def locked(spec: RefSpec, data: bytes, index: Digest | None = None) -> RefSpec:
    """A ref, and a lock that says that it is ``data``."""
    url = getattr(spec.ref, "url", "")
    part = Part(media_type="x/y", size=len(data), digest=digest_of(data), urls=(url,), index=index)
    meaning = Resolved(
        ref=spec.ref.canonical,
        shape=Shape.TREE,
        digest=part.digest,
        parts=(part,),
        resolved_ns=0,
    )
    return replace(spec, locked=meaning)


def pinned(world: World, url: str, data: bytes = RIGHT) -> RefSpec:
    return world.spec(f"archive+{url}", name="a", integrity=str(digest_of(data, "sha512")))


async def test_a_lock_that_says_other_bytes_than_the_pin_gets_none_of_them_read(
    mounted: OpenWorld, origin: Origin
) -> None:
    url = origin.put("/t.tgz", EVIL)
    async with mounted() as world:
        with pytest.raises(DigestMismatchError, match=str(digest_of(RIGHT, "sha512"))):
            await world.tree(locked(pinned(world, url), EVIL))
    async with mounted() as world:
        with pytest.raises(DigestMismatchError, match=str(digest_of(RIGHT, "sha512"))):
            await world.file(locked(pinned(world, url), EVIL))


async def test_bytes_that_are_here_for_another_ref_are_held_against_the_pin(
    mounted: OpenWorld, origin: Origin
) -> None:
    url = origin.put("/t.tgz", EVIL)
    async with mounted() as world:
        other = world.spec(f"archive+{url}", integrity=str(digest_of(EVIL)))
        assert await world.tree(other) == {"a": "evil!"}
        for ask in (world.tree, world.file):
            with pytest.raises(DigestMismatchError, match=str(digest_of(RIGHT, "sha512"))):
                await ask(locked(pinned(world, url), EVIL))
        origin.forget()
        assert await world.tree(locked(pinned(world, url, EVIL), EVIL)) == {"a": "evil!"}
        assert origin.requests == ()


async def test_a_lock_that_says_the_same_is_read_and_asks_once(
    mounted: OpenWorld, origin: Origin
) -> None:
    url = origin.put("/t.tgz", RIGHT)
    async with mounted() as world:
        spec = locked(pinned(world, url), RIGHT)
        assert await world.tree(spec) == {"a": "right"}
        assert await world.file(spec) == RIGHT
        assert origin.bytes_sent("/t.tgz") == len(RIGHT)


async def test_where_the_store_knows_the_pin_the_lock_must_say_the_same(
    mounted: OpenWorld, origin: Origin
) -> None:
    for kind in ("archive", "blob"):
        url = origin.put(f"/{kind}", RIGHT)
        async with mounted() as world:
            spec = world.spec(f"{kind}+{url}", name="a", integrity=str(digest_of(RIGHT, "sha512")))
            assert await world.file(spec) == RIGHT
            with pytest.raises(DigestMismatchError, match=str(digest_of(EVIL))):
                await world.resolver.resolve(locked(spec, EVIL), USUAL)


@pytest.mark.expects_log("fetch.disowned")
@pytest.mark.parametrize("same", [True, False])
async def test_what_an_index_describes_is_read_in_pieces_until_all_is_held_against_the_pin(
    mounted: OpenWorld, origin: Origin, tmp_path: Path, same: bool
) -> None:
    index = await index_of(mounted, origin, tmp_path / "store")
    origin.forget()
    async with mounted(indexes=BesideLock(tmp_path / "index", index)) as world:
        plain = targz(world, origin, index)
        spec = replace(plain, integrity=digest_of(DATA if same else RIGHT, "sha512"))
        opened = await world.resolver.tree(spec, USUAL)
        assert opened.record.identity == indexed_tree(MADE, digest_of(index))
        await opened.contents[0].read(0, 512, USUAL)
        assert origin.bytes_sent("/x.tar.gz") < len(DATA) / 2
        await whole(world, plain)
        record = await settled(world, opened)
        if same:
            assert record is not None
            assert record.digest == DIGEST
            assert world.store.blobs.stat(digest_of(DATA, "sha512")) is not None
            return
        with pytest.raises(DisownedError, match=str(digest_of(RIGHT, "sha512"))):
            await opened.contents[0].read(0, 512, USUAL)


@pytest.mark.parametrize("same", [True, False])
async def test_an_image_pinned_by_sha512_is_what_its_manifest_says(
    mounted: OpenWorld, origin: Origin, same: bool
) -> None:
    layer = tabled.zstd_chunked([file("a", "right")])
    manifest = tabled.manifest([layer])
    part = Part(media_type="x/y", size=len(layer.data), digest=digest_of(layer.data), urls=())
    pin = digest_of(manifest, "sha512")
    kind = "application/vnd.oci.image.manifest.v1+json"
    origin.put(f"/v2/app/manifests/{pin}", manifest, content_type=kind)
    named = digest_of(manifest if same else b"evil")
    async with mounted(offline=False) as world:
        spec = world.spec(f"docker://127.0.0.1:{origin.port}/app@{pin}", name="a")
        meaning = Resolved(
            ref=spec.ref.canonical,
            shape=Shape.TREE,
            digest=named,
            parts=(part,),
            resolved_ns=0,
            named=named,
        )
        spec = replace(spec, locked=meaning)
        if not same:
            with pytest.raises(DigestMismatchError, match=str(named)):
                await world.resolver.resolve(spec, USUAL)
            return
        assert (await world.resolver.resolve(spec, USUAL)).named == named
    origin.forget()
    async with mounted(offline=True) as world:
        assert (await world.resolver.resolve(spec, USUAL)).named == named
    assert origin.requests == ()


async def test_offline_an_image_whose_pin_nothing_here_knows_is_not_believed(
    mounted: OpenWorld,
) -> None:
    pin, named = digest_of(b"right", "sha512"), digest_of(b"evil")
    async with mounted(offline=True) as world:
        spec = world.spec(f"docker://127.0.0.1:9/app@{pin}", name="a")
        meaning = Resolved(
            ref=spec.ref.canonical,
            shape=Shape.TREE,
            digest=named,
            parts=(),
            resolved_ns=0,
            named=named,
        )
        with pytest.raises(OfflineError):
            await world.resolver.resolve(replace(spec, locked=meaning), USUAL)


MD5, SHA256, SHA512 = (digest_of(RIGHT, each) for each in ("md5", "sha256", "sha512"))
OTHER = digest_of(EVIL)


@pytest.mark.expects_log("fetch.mirror.wrong")
@pytest.mark.parametrize(("own", "integrity"), [(MD5, SHA256), (MD5, SHA512), (SHA256, MD5)])
async def test_of_two_pins_that_which_proves_something_counts(
    world: World, origin: Origin, own: Digest, integrity: Digest
) -> None:
    mirrors = (origin.put("/evil", EVIL), origin.put("/right", RIGHT))
    spec = world.spec(str(own), integrity=str(integrity), mirrors=mirrors)
    assert await world.file(spec) == RIGHT
    assert world.store.blobs.stat(SHA256) is not None


async def test_an_integrity_counts_where_the_ref_has_a_weak_digest(
    world: World, origin: Origin
) -> None:
    mirrors = (origin.put("/right", RIGHT),)
    spec = world.spec(str(MD5), integrity=str(OTHER), mirrors=mirrors)
    with pytest.raises(DigestMismatchError, match=f"expected {OTHER}"):
        await world.file(spec)


@pytest.mark.parametrize("lock", [False, True])
async def test_two_pins_that_would_both_have_to_be_compared_are_refused_without_asking(
    world: World, origin: Origin, lock: bool
) -> None:
    """One of them would count, and nobody would see that the other is of something else."""
    mirrors = (origin.put("/right", RIGHT),)
    for own, integrity in ((SHA512, OTHER), (OTHER, SHA512)):
        spec = world.spec(str(own), name="a", integrity=str(integrity), mirrors=mirrors)
        with pytest.raises(UnsupportedError, match=f"a: named by {own}, .* of {integrity}"):
            await world.file(locked(spec, EVIL) if lock else spec)
    spec = world.spec(str(SHA256), integrity=str(OTHER), mirrors=mirrors)
    with pytest.raises(DigestMismatchError):
        await world.file(locked(spec, RIGHT) if lock else spec)
    assert origin.requests == ()
