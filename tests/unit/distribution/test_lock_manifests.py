"""What a lock says of an image is held against its manifest, where that is in the store."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from cafs.distribution import lock_manifests
from cafs.distribution.manifests import (
    OCI_INDEX,
    OCI_MANIFEST,
    ImageIndex,
    ImageManifest,
    parse_manifest,
)
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


@pytest.mark.parametrize(
    "kind", [OCI_MANIFEST, "application/json", f"{OCI_INDEX}; charset=utf-8", "x/y"]
)
async def test_what_the_store_has_is_what_it_says_itself_whatever_the_index_calls_it(
    world: World, origin: Origin, kind: str
) -> None:
    outer = index(NAMED, kind=kind)
    for document in (outer, NAMED, MANIFEST):
        await world.store.blobs.put("x/y", document)
    assert (await world.resolver.resolve(spec(world, origin, image(outer)), USUAL)).parts
    wrong = replace(image(outer), digest=EVIL)
    with pytest.raises(ContentError, match=f"names the manifest {EVIL}"):
        await world.resolver.resolve(spec(world, origin, wrong), USUAL)


@pytest.mark.parametrize("kind", ["application/json", f"{OCI_INDEX}; charset=utf-8", "x/y"])
async def test_an_offer_that_is_not_here_and_may_be_an_index_may_have_the_manifest(
    world: World, origin: Origin, kind: str
) -> None:
    outer = index(NAMED, kind=kind)
    for document in (outer, MANIFEST):
        await world.store.blobs.put("x/y", document)
    assert (await world.resolver.resolve(spec(world, origin, image(outer)), USUAL)).parts


async def test_an_offer_that_nobody_could_choose_is_no_reason_to_refuse(
    world: World, origin: Origin
) -> None:
    outer = index(b"no JSON", b'{"config": {}}', NAMED)
    for document in (outer, b"no JSON", b'{"config": {}}', NAMED, MANIFEST):
        await world.store.blobs.put("x/y", document)
    assert (await world.resolver.resolve(spec(world, origin, image(outer)), USUAL)).parts
    wrong = replace(image(outer), digest=digest_of(b"no JSON"))
    with pytest.raises(ContentError):
        await world.resolver.resolve(spec(world, origin, wrong), USUAL)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The size of each document that is parsed, and whether that holds up the event loop."""
    found: list[tuple[int, bool]] = []
    loop = threading.get_ident()

    def parse(data: bytes, media_type: str, *, name: str) -> ImageIndex | ImageManifest:
        found.append((len(data), threading.get_ident() == loop))
        return parse_manifest(data, media_type, name=name)

    monkeypatch.setattr(lock_manifests, "parse_manifest", parse)
    return found


async def test_what_an_index_repeats_is_read_once_and_what_is_long_elsewhere(
    world: World, origin: Origin, looks: list[tuple[int, bool]]
) -> None:
    inner = index(*[MANIFEST] * 2000)
    outer = index(*[inner] * 300, kind=OCI_INDEX)
    for document in (outer, inner, MANIFEST):
        await world.store.blobs.put("x/y", document)
    assert (await world.resolver.resolve(spec(world, origin, image(outer)), USUAL)).parts
    read = [(len(outer), False), (len(inner), False), (len(MANIFEST), True)]
    assert looks == read
    looks.clear()
    wrong = replace(image(outer), digest=EVIL)
    with pytest.raises(ContentError, match=f"has {digest_of(MANIFEST)}$"):
        await world.resolver.resolve(spec(world, origin, wrong), USUAL)
    assert looks == read


async def test_of_many_documents_so_many_are_read_and_then_it_is_not_known(
    world: World, origin: Origin, looks: list[tuple[int, bool]]
) -> None:
    inner = [index(MANIFEST, b"%d" % number) for number in range(40)]
    outer = index(*inner, kind=OCI_INDEX)
    for document in (outer, *inner):
        await world.store.blobs.put("x/y", document)
    wrong = replace(image(outer), digest=EVIL)
    assert (await world.resolver.resolve(spec(world, origin, wrong), USUAL)).parts
    assert len(looks) == 16


@pytest.mark.parametrize(("count", "told"), [(10, ", 2 more$"), (1001, "")])
async def test_of_many_manifests_some_are_told_and_more_than_there_can_be_are_not_looked_for(
    world: World, origin: Origin, count: int, told: str
) -> None:
    outer = index(*[b"%d" % number for number in range(count)])
    await world.store.blobs.put("x/y", outer)
    locked = spec(world, origin, image(outer))
    if told:
        with pytest.raises(ContentError, match=told):
            await world.resolver.resolve(locked, USUAL)
    else:
        assert (await world.resolver.resolve(locked, USUAL)).parts


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
