"""What a lock says of an image is held against its manifest, where that is in the store."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from cafs.distribution.manifests import OCI_INDEX, OCI_MANIFEST, ImageManifest, parse_manifest
from cafs.errors import ContentError
from cafs.model.digest import Digest, digest_of
from cafs.model.resolved import Contents, Part, Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.testing import tabled
from cafs.testing.archives import file
from cafs.testing.origin import Origin
from tests.unit.distribution.conftest import USUAL, World

LAYERS = [tabled.zstd_chunked([file(name, name * 100)]) for name in "ab"]
MANIFEST = tabled.manifest(LAYERS)
EVIL = digest_of(b"evil")


def index(*offers: bytes, kind: str = OCI_MANIFEST) -> bytes:
    listed = [
        {"mediaType": kind, "digest": str(digest_of(each)), "size": len(each)} for each in offers
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}).encode()


def parsed() -> ImageManifest:
    found = parse_manifest(MANIFEST, OCI_MANIFEST, name="image")
    assert isinstance(found, ImageManifest)
    return found


NAMED = index(b"other", MANIFEST)
NESTED = index(NAMED, kind=OCI_INDEX)


def image(named: bytes = NAMED, manifest: bytes = MANIFEST) -> Resolved:
    """What a lock says that is right."""
    parts = tuple(
        Part(media_type="x/y", size=len(each.data), digest=digest_of(each.data), urls=())
        for each in LAYERS
    )
    return Resolved(
        ref="",
        shape=Shape.TREE,
        digest=digest_of(manifest),
        parts=parts,
        resolved_ns=0,
        named=digest_of(named),
    )


def spec(world: World, origin: Origin, locked: Resolved) -> RefSpec:
    ref = world.spec(f"docker://127.0.0.1:{origin.port}/app:1", name="base")
    return replace(ref, locked=replace(locked, ref=ref.ref.canonical))


def changed(number: int, **facts: object) -> Callable[[Resolved], Resolved]:
    def change(right: Resolved) -> Resolved:
        parts = list(right.parts)
        parts[number] = replace(parts[number], **facts)  # type: ignore[arg-type]
        return replace(right, parts=tuple(parts))

    return change


WRONG: list[tuple[Callable[[Resolved], Resolved], str, tuple[object, ...]]] = [
    (changed(1, digest=EVIL), "layer 2 is", (EVIL, digest_of(LAYERS[1].data))),
    (changed(0, size=7), "layer 1 has 7 bytes", (len(LAYERS[0].data),)),
    (lambda right: replace(right, parts=right.parts[:1]), "names 1 layers, and that has 2", ()),
    (lambda right: replace(right, parts=right.parts[::-1]), "layer 1 is", ()),
    (
        lambda right: replace(right, digest=EVIL),
        f"names the manifest {EVIL}",
        (digest_of(MANIFEST),),
    ),
    (lambda right: replace(right, digest=digest_of(NESTED)), "names the manifest", ()),
]


@pytest.mark.parametrize(("change", "what", "named"), WRONG)
async def test_a_lock_whose_parts_are_not_the_manifests_is_refused(
    world: World,
    origin: Origin,
    change: Callable[[Resolved], Resolved],
    what: str,
    named: tuple[Digest | int, ...],
) -> None:
    for document in (NAMED, MANIFEST, NESTED):
        await world.store.blobs.put("x/y", document)
    with pytest.raises(ContentError) as refused:
        await world.resolver.resolve(spec(world, origin, change(image())), USUAL)
    assert what in refused.value.line
    assert all(str(each) in refused.value.line for each in named)
    assert refused.value.line.startswith("base: cafs.lock")
    assert "cafs lock --upgrade base" in refused.value.line
    assert origin.requests == ()


@pytest.mark.parametrize(
    "known", [(), (NAMED,), (MANIFEST,), (NAMED, MANIFEST), (NESTED, MANIFEST), (NESTED, NAMED)]
)
@pytest.mark.parametrize("named", [NAMED, NESTED, MANIFEST])
async def test_what_is_right_or_not_known_is_taken_and_nobody_is_asked(
    world: World, origin: Origin, known: tuple[bytes, ...], named: bytes
) -> None:
    for document in known:
        await world.store.blobs.put("x/y", document)
    assert (await world.resolver.resolve(spec(world, origin, image(named)), USUAL)).parts
    assert origin.requests == ()


async def test_what_nobody_here_knows_is_not_refused(world: World, origin: Origin) -> None:
    wrong = changed(1, digest=EVIL)(image())
    assert (await world.resolver.resolve(spec(world, origin, wrong), USUAL)).parts == wrong.parts


CONTENTS = [each.contents for each in parsed().layers]


@pytest.mark.parametrize("said", [None, CONTENTS[0]])
async def test_a_table_of_contents_need_not_be_locked(
    world: World, origin: Origin, said: Contents | None
) -> None:
    await world.store.blobs.put("x/y", MANIFEST)
    locked = changed(0, contents=said)(image(MANIFEST))
    assert (await world.resolver.resolve(spec(world, origin, locked), USUAL)).parts


async def test_a_table_of_contents_that_is_not_the_manifests_is_refused(
    world: World, origin: Origin
) -> None:
    await world.store.blobs.put("x/y", MANIFEST)
    locked = changed(0, contents=CONTENTS[1])(image(MANIFEST))
    with pytest.raises(ContentError, match="table of contents of layer 1"):
        await world.resolver.resolve(spec(world, origin, locked), USUAL)
