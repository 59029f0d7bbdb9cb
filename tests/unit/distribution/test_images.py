"""Images: from Debian's docker-registry, and from an origin that lies or asks for tokens."""

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from cafs.distribution.images import Images
from cafs.distribution.manifests import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from cafs.distribution.platforms import own_platform
from cafs.distribution.registry import Registry as Client, Repository
from cafs.errors import (
    CafsError,
    CredentialsError,
    DigestMismatchError,
    MalformedError,
    NotFoundError,
    OfflineError,
    RefusedError,
    SizeMismatchError,
    UnsupportedError,
)
from cafs.model.descriptor import OCTETS
from cafs.model.digest import digest_of
from cafs.model.mapping import MapRule
from cafs.model.ref import DockerRef
from cafs.model.span import Span
from cafs.model.spec import Pull
from cafs.store.blobs.memory import MemoryBlobs
from cafs.testing import archives
from cafs.testing.answers import Answer, Ask
from cafs.testing.archives import Compression
from cafs.testing.bodies import Literal
from cafs.testing.daemons import Logged, Registry
from cafs.testing.faults import RequireBearer, Status
from cafs.testing.images import Image, Layer, write_layout
from cafs.testing.oddities import NoHead
from cafs.testing.origin import Origin, running_origin
from cafs.transport.http import HttpLimits, HttpTransport
from tests.unit.distribution.conftest import USUAL, OpenWorld, World

BASE = Layer(
    (
        archives.directory("usr"),
        archives.directory("usr/lib"),
        archives.symlink("lib", "usr/lib"),
        archives.file("usr/lib/libc.so", "libc 1"),
        archives.file("usr/lib/libold.so", "old"),
        archives.directory("var"),
        archives.file("var/cache/a", "cached"),
        archives.file("bin/tool", "tool"),
    )
)
MIDDLE = Layer(
    (
        archives.file("lib/libc.so", "libc 2"),
        archives.whiteout("usr/lib/libold.so"),
        archives.hard_link("bin/alias", "bin/tool"),
        archives.opaque("var/cache"),
        archives.file("var/cache/b", "fresh"),
    ),
    Compression.ZSTD,
)
TOP = Layer((archives.whiteout("var"), archives.file("etc/os-release", "ID=x")), Compression.NONE)
MERGED = {
    "bin": "/",
    "bin/alias": "tool",
    "bin/tool": "tool",
    "etc": "/",
    "etc/os-release": "ID=x",
    "lib": "-> usr/lib",
    "usr": "/",
    "usr/lib": "/",
    "usr/lib/libc.so": "libc 2",
}

Push = Callable[..., str]


@pytest.fixture
def push(registry: Registry, tmp_path: Path, request: pytest.FixtureRequest) -> Push:
    """Pushes an image, or an index of several, to a repository of the test's own; its name."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower()).strip("-")
    pushed: list[int] = []

    def push(*images: Image, tag: str = "latest") -> str:
        pushed.append(0)
        layout = write_layout(tmp_path / f"layout-{len(pushed)}", images)
        registry.push(layout, f"test/{name[:100].rstrip('-')}:{tag}")
        return f"docker://{registry.host}/test/{name[:100].rstrip('-')}"

    return push


def asked(registry: Registry, ref: str, before: Sequence[Logged]) -> list[str]:
    """What was asked of a repository since: the method, and the part of the path that differs."""
    repository = ref.partition(registry.host)[2]
    prefix = f"/v2{repository}/"
    return [
        f"{one.method} {one.path.removeprefix(prefix).split(':')[0]}"
        for one in registry.requests()[len(before) :]
        if one.path.startswith(prefix)
    ]


async def test_an_image_is_the_merge_of_its_layers(world: World, push: Push) -> None:
    assert await world.tree(world.spec(push(Image((BASE, MIDDLE, TOP))))) == MERGED


async def test_an_image_without_layers_is_an_empty_tree(world: World, push: Push) -> None:
    assert await world.tree(world.spec(push(Image(())))) == {}


async def test_a_layer_that_stands_twice_in_an_image_is_fetched_once(
    world: World, push: Push, registry: Registry
) -> None:
    ref = push(Image((BASE, TOP, BASE)))
    before = registry.requests()
    assert (await world.tree(world.spec(ref)))["var/cache/a"] == "cached"
    blobs = [one for one in asked(registry, ref, before) if "blobs" in one]
    assert blobs == ["GET blobs/sha256"] * 2


async def test_two_images_share_the_layers_that_are_the_same(
    world: World, push: Push, registry: Registry
) -> None:
    one = push(Image((BASE,)), tag="one")
    assert (await world.tree(world.spec(f"{one}:one")))["usr/lib/libc.so"] == "libc 1"
    push(Image((BASE, MIDDLE)), tag="two")
    before = registry.requests()
    assert (await world.tree(world.spec(f"{one}:two")))["usr/lib/libc.so"] == "libc 2"
    assert asked(registry, one, before) == ["GET manifests/two", "GET blobs/sha256"]


async def test_strip_and_subdir_work_on_images(world: World, push: Push) -> None:
    ref = push(Image((BASE, MIDDLE, TOP)))
    assert await world.tree(world.spec(ref, subdir="lib")) == {"libc.so": "libc 2"}
    assert await world.tree(world.spec(ref, strip=1)) == {
        "alias": "tool",
        "lib": "/",
        "lib/libc.so": "libc 2",
        "os-release": "ID=x",
        "tool": "tool",
    }


async def test_the_platform_is_chosen_from_an_index(world: World, push: Push) -> None:
    own = own_platform()
    ref = push(
        Image((Layer((archives.file("which", "arm"),)),), architecture="arm", variant="v6"),
        Image((Layer((archives.file("which", "own"),)),), architecture=own.architecture),
        Image((Layer((archives.file("which", "s390x"),)),), architecture="s390x"),
    )
    assert await world.tree(world.spec(ref)) == {"which": "own"}
    assert await world.tree(world.spec(ref, platform="linux/s390x")) == {"which": "s390x"}
    assert await world.tree(world.spec(ref, platform="linux/armv7l")) == {"which": "arm"}
    spec = world.spec(ref, platform="linux/ppc64le")
    with pytest.raises(NotFoundError) as caught:
        await world.tree(spec)
    assert f"linux/{own.architecture}" in caught.value.line
    assert "linux/s390x" in caught.value.line


async def test_a_lone_image_for_another_platform_is_refused_when_one_is_asked_for(
    world: World, push: Push
) -> None:
    ref = push(Image((BASE,), architecture="s390x"))
    assert "bin/tool" in await world.tree(world.spec(ref))
    assert "bin/tool" in await world.tree(world.spec(ref, platform="linux/s390x"))
    with pytest.raises(NotFoundError, match="no image for linux/arm64"):
        await world.tree(world.spec(ref, platform="linux/arm64"))


async def test_a_missing_tag_and_a_missing_repository_are_not_found(
    world: World, push: Push, registry: Registry
) -> None:
    ref = push(Image((BASE,)))
    for missing in (f"{ref}:nope", f"docker://{registry.host}/no/such"):
        with pytest.raises(NotFoundError, match="no such image"):
            await world.tree(world.spec(missing))


# --- what a remount asks


@pytest.mark.parametrize(
    ("pull", "requests"),
    [("lock", ["HEAD manifests/latest"]), ("update", ["HEAD manifests/latest"]), ("new", []),
     ("never", [])],
)  # fmt: skip
async def test_r24_an_unchanged_tag_costs_a_remount_at_most_one_head(
    mounted: OpenWorld, push: Push, registry: Registry, pull: Pull, requests: list[str]
) -> None:
    own = own_platform().architecture
    ref = push(Image((BASE, TOP), architecture=own), Image((BASE,), architecture="s390x"))
    before = registry.requests()
    async with mounted() as world:
        first = await world.tree(world.spec(ref))
    assert asked(registry, ref, before) == [
        "GET manifests/latest",
        "GET manifests/sha256",
        "GET blobs/sha256",
        "GET blobs/sha256",
    ]
    before = registry.requests()
    async with mounted() as world:
        assert await world.tree(world.spec(ref, pull=pull)) == first
    assert asked(registry, ref, before) == requests


async def test_r24_a_moved_tag_is_seen_by_the_next_mount_only(
    mounted: OpenWorld, push: Push, registry: Registry
) -> None:
    ref = push(Image((BASE,)))
    async with mounted() as world:
        spec = world.spec(ref)
        assert "etc" not in await world.tree(spec)
        push(Image((BASE, TOP)))
        before = registry.requests()
        assert "etc" not in await world.tree(spec)
        assert asked(registry, ref, before) == []
    async with mounted() as world:
        assert "etc" not in await world.tree(world.spec(ref, pull="new"))
    async with mounted() as world:
        before = registry.requests()
        assert "etc" in await world.tree(world.spec(ref))
        assert asked(registry, ref, before) == [
            "HEAD manifests/latest",
            "GET manifests/latest",
            "GET blobs/sha256",
        ]
        assert len(world.store.references.history(spec.source)) == 2


async def test_a_digest_is_asked_for_once_and_then_never(
    mounted: OpenWorld, push: Push, registry: Registry
) -> None:
    ref = push(Image((BASE, MIDDLE, TOP)))
    async with mounted() as world:
        resolved = await world.resolver.resolve(world.spec(ref), USUAL)
    pinned = f"{ref}@{resolved.digest}"
    async with mounted() as world:
        assert await world.tree(world.spec(pinned)) == MERGED
    before = registry.requests()
    async with mounted() as world:
        assert await world.tree(world.spec(pinned)) == MERGED
        assert await world.tree(world.spec(ref, integrity=str(resolved.digest))) == MERGED
    async with mounted(offline=True) as world:
        assert await world.tree(world.spec(pinned)) == MERGED
    assert asked(registry, ref, before) == []


async def test_an_image_that_was_mounted_opens_without_a_network(
    mounted: OpenWorld, push: Push, registry: Registry
) -> None:
    ref = push(Image((BASE, MIDDLE, TOP)))
    async with mounted() as world:
        assert await world.tree(world.spec(ref)) == MERGED
    before = registry.requests()
    async with mounted(offline=True) as world:
        assert await world.tree(world.spec(ref)) == MERGED
        with pytest.raises(OfflineError, match="never resolved here"):
            await world.tree(world.spec(f"{ref}:other"))
        unknown = f"{ref}@{digest_of(b'?')}"
        with pytest.raises(OfflineError, match="never resolved here"):
            await world.tree(world.spec(unknown))
    assert len(registry.requests()) == len(before)


# --- an origin as registry


class Served:
    """An image at an origin, as a registry serves it: what is sent can be changed."""

    def __init__(self, origin: Origin, tmp_path: Path, image: Image, *others: Image) -> None:
        self.origin = origin
        self.layout = write_layout(tmp_path / "served", [image, *others])
        self.spoilt: dict[str, bytes] = {}
        self.headers = True
        self.called = ""
        self.kind = ""
        for blob in (self.layout.path / "blobs" / "sha256").iterdir():
            for kind in ("manifests", "blobs"):
                self.origin.serve(f"/v2/app/{kind}/sha256:{blob.name}", self._answer)
        self.origin.serve("/v2/app/manifests/latest", self._answer)

    @property
    def ref(self) -> str:
        return f"docker://127.0.0.1:{self.origin.port}/app"

    def blob(self, digest: str) -> bytes:
        return (self.layout.path / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes()

    def manifest(self) -> dict[str, list[dict[str, str]]]:
        parsed: dict[str, list[dict[str, str]]] = json.loads(self.blob(self.layout.digest))
        return parsed

    def _answer(self, ask: Ask) -> Answer:
        word = ask.path.rpartition("/")[2]
        digest = self.layout.digest if word == "latest" else word
        data = self.spoilt.get(word, self.blob(digest))
        kind = "application/octet-stream"
        if "/manifests/" in ask.path:
            kind = json.loads(self.blob(digest)).get("mediaType", kind)
        kind = self.kind or kind
        said = (("Docker-Content-Digest", self.called or digest),) if self.headers else ()
        headers = (("Content-Type", kind), ("Content-Length", str(len(data))), *said)
        return Answer(200, headers, Literal(data), Span(0, len(data)))


Serve = Callable[..., Served]


@pytest.fixture
def serve(origin: Origin, tmp_path: Path) -> Serve:
    """Serves an image at the origin."""
    return lambda *images: Served(origin, tmp_path, *images)


async def test_an_anonymous_token_is_got_when_the_registry_wants_one(
    world: World, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE, TOP)))
    origin.fault("/v2/*", RequireBearer(scope="repository:app:pull"))
    assert "etc" in await world.tree(world.spec(served.ref))
    assert len(origin.requests_for("/token")) == 1


async def test_a_registry_that_wants_a_password_is_named(
    world: World, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    origin.fault("/v2/*", Status(401, (("WWW-Authenticate", 'Basic realm="x"'),)))
    with pytest.raises(CredentialsError, match=r"127\.0\.0\.1"):
        await world.tree(world.spec(served.ref))


async def test_a_registry_that_says_no_digest_is_asked_for_the_whole(
    mounted: OpenWorld, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    served.headers = False
    for _ in range(2):
        async with mounted() as world:
            assert "bin/tool" in await world.tree(world.spec(served.ref))
    methods = [one.method for one in origin.requests_for("/v2/app/manifests/latest")]
    assert methods == ["GET", "HEAD", "GET"]


async def test_a_registry_that_says_a_weak_digest_has_said_none(
    mounted: OpenWorld, serve: Serve
) -> None:
    served = serve(Image((BASE,)))
    served.called = str(digest_of(served.blob(served.layout.digest), "sha1"))
    for _ in range(2):
        async with mounted() as world:
            spec = world.spec(served.ref)
            assert "bin/tool" in await world.tree(spec)
            resolved = await world.resolver.resolve(spec, USUAL)
            assert str(resolved.named) == served.layout.digest


async def test_a_registry_that_knows_no_head_is_asked_for_the_whole(
    mounted: OpenWorld, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    origin.fault("/v2/*", NoHead())
    for _ in range(2):
        async with mounted() as world:
            assert "bin/tool" in await world.tree(world.spec(served.ref))
    methods = [one.method for one in origin.requests_for("/v2/app/manifests/latest")]
    assert methods == ["GET", "HEAD", "GET"]


@pytest.mark.parametrize("word", ["latest", "digest"])
async def test_a_manifest_with_another_digest_is_refused_and_not_kept(
    world: World, serve: Serve, word: str
) -> None:
    served = serve(Image((BASE,)))
    digest = served.layout.digest
    served.spoilt = {"latest": b"{}", digest: b"{}"}
    ref = served.ref if word == "latest" else f"{served.ref}@{digest}"
    with pytest.raises(DigestMismatchError, match=digest.partition(":")[2]):
        await world.tree(world.spec(ref))
    assert list(world.store.blobs.digests()) == []


async def test_a_layer_with_another_digest_is_refused(world: World, serve: Serve) -> None:
    served = serve(Image((BASE, TOP)))
    layer = served.manifest()["layers"][1]
    data = served.blob(layer["digest"])
    served.spoilt = {layer["digest"]: data[:-1] + bytes([data[-1] ^ 1])}
    spec = world.spec(served.ref, name="base")
    with pytest.raises(DigestMismatchError, match="base: layer 2 of 2"):
        await world.tree(spec)
    assert "layer 2 of 2" in (world.resolver.error(spec) or "")


async def test_a_configuration_of_another_size_is_refused(world: World, serve: Serve) -> None:
    served = serve(Image((BASE,)))
    config = json.loads(served.blob(served.layout.digest))["config"]["digest"]
    served.spoilt = {config: b"{}"}
    with pytest.raises(SizeMismatchError):
        await world.tree(world.spec(served.ref, platform="linux/amd64"))


@pytest.mark.parametrize(
    "said",
    [b'{"a":' + b"[" * 100_000, b'{"os":"\xff"}'],
    ids=["nested without end", "no UTF-8"],
)
async def test_a_configuration_that_cannot_be_read_is_said_so(
    world: World, serve: Serve, origin: Origin, said: bytes
) -> None:
    served = serve(Image((BASE,)))
    manifest = json.loads(served.blob(served.layout.digest))
    manifest["config"] |= {"digest": str(digest_of(said)), "size": len(said)}
    served.spoilt = {"latest": json.dumps(manifest).encode()}
    served.headers = False
    origin.put(f"/v2/app/blobs/{digest_of(said)}", said)
    with pytest.raises(MalformedError, match="the configuration cannot be read"):
        await world.tree(world.spec(served.ref, platform="linux/amd64"))


async def test_a_giant_manifest_is_not_read_to_its_end(
    world: World, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    served.spoilt = {"latest": b" " * (64 << 20)}
    with pytest.raises(MalformedError, match="larger than 4194304 bytes"):
        await world.tree(world.spec(served.ref))
    origin.settle()
    assert origin.bytes_sent() < 32 << 20


async def test_a_mirror_serves_what_the_registry_cannot(
    world: World, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    spec = world.spec("docker://127.0.0.1:1/app", mirrors=(f"http://127.0.0.1:{origin.port}/",))
    assert "bin/tool" in await world.tree(spec)
    assert isinstance(served.ref, str)
    assert world.metrics["fetch.retries"] <= 1  # the layer's own; questions are asked once


async def test_layers_outside_the_registry_need_a_host_that_settings_name(
    mounted: OpenWorld, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    layer = served.manifest()["layers"][0]["digest"]
    elsewhere = origin.put("/elsewhere/layer", served.blob(layer))
    foreign = served.manifest()
    foreign["layers"][0] |= {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": [elsewhere],  # type: ignore[dict-item]  # the only value that is a list
    }
    document = json.dumps(foreign).encode()
    served.headers = False
    served.spoilt = {"latest": document}
    origin.fault(f"/v2/app/blobs/{layer}", Status(404))
    async with mounted() as world:
        with pytest.raises(RefusedError, match="404"):
            await world.tree(world.spec(served.ref))
        assert origin.requests_for("/elsewhere/layer") == ()
    async with mounted(allowed=(f"127.0.0.1:{origin.port}",)) as world:
        assert "bin/tool" in await world.tree(world.spec(served.ref))


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST, "text/plain", OCTETS])
async def test_b10_what_another_project_calls_a_manifest_binds_nobody_here(
    world: World, serve: Serve, kind: str
) -> None:
    served = serve(Image((BASE,)))
    await world.store.blobs.put(kind, served.blob(served.layout.digest))
    assert "bin/tool" in await world.tree(world.spec(served.ref))


async def test_b10_a_registry_that_contradicts_its_manifest_is_refused_and_leaves_nothing(
    world: World, serve: Serve
) -> None:
    served = serve(Image((BASE,)))
    served.kind = OCI_INDEX
    for _ in range(2):
        with pytest.raises(MalformedError, match="sent as"):
            await world.tree(world.spec(served.ref))
    assert list(world.store.blobs.digests()) == []


async def test_images_are_found_in_any_store_of_blobs(serve: Serve, origin: Origin) -> None:
    served = serve(Image((BASE,)))
    blobs = MemoryBlobs()
    repository = Repository(f"http://127.0.0.1:{origin.port}", "app", "app")
    async with aclosing(HttpTransport(limits=HttpLimits())) as transport:
        images = Images(blobs, Client(transport))
        digest = await images.tag(repository, "latest", known=False)
        assert [str(each) for each in blobs.digests()] == [served.layout.digest]
        found = await images.image(repository, digest, platform=None, offline=True)
        assert len(found.manifest.layers) == 1
        with pytest.raises(OfflineError, match="configuration"):
            await images.image(repository, digest, platform=own_platform(), offline=True)


async def test_b6_a_digest_that_a_registry_has_not_is_not_found_and_a_layer_is_withheld(
    world: World, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    with pytest.raises(NotFoundError):
        await world.tree(world.spec(f"{served.ref}@{digest_of(b'?')}"))
    origin.fault(f"/v2/app/blobs/{served.manifest()['layers'][0]['digest']}", Status(404))
    with pytest.raises(RefusedError, match=r"layer 1 of 1: it is known to exist.*404") as caught:
        await world.tree(world.spec(served.ref))
    assert "for an image [map]" in caught.value.hint
    assert "push it again" in caught.value.hint


async def test_an_index_that_names_manifests_by_a_weak_digest_is_refused(
    world: World, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    weak = digest_of(served.blob(served.layout.digest), "md5")
    offer = {"mediaType": OCI_MANIFEST, "digest": str(weak), "size": 1}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [offer]}).encode()
    name = f"/v2/app/manifests/{digest_of(index)}"
    origin.put(name, index, content_type=OCI_INDEX)
    with pytest.raises(UnsupportedError, match=f"its index names a manifest by {weak}"):
        await world.tree(world.spec(f"{served.ref}@{digest_of(index)}"))
    assert len(origin.requests) == 1


async def test_schema_1_is_refused_by_its_name(world: World, serve: Serve) -> None:
    served = serve(Image((BASE,)))
    served.headers = False
    served.spoilt = {"latest": b'{"schemaVersion": 1, "fsLayers": []}'}
    with pytest.raises(UnsupportedError, match="schema 1"):
        await world.tree(world.spec(served.ref))


async def test_a_ref_and_an_integrity_that_differ_are_told_without_asking(
    world: World, origin: Origin
) -> None:
    ref = f"docker://127.0.0.1:{origin.port}/app@{digest_of(b'a')}"
    with pytest.raises(DigestMismatchError):
        await world.tree(world.spec(ref, integrity=str(digest_of(b"b"))))
    assert origin.requests == ()


@pytest.mark.parametrize("word", ["", "@digest"])
async def test_a_manifest_that_was_lost_is_asked_for_again_also_where_the_ref_names_its_index(
    world: World, serve: Serve, origin: Origin, word: str
) -> None:
    own = Image((BASE,), architecture=own_platform().architecture)
    served = serve(own, Image((TOP,), architecture="s390x"))
    spec = world.spec(served.ref + (word and f"@{served.layout.digest}"))
    resolved = await world.resolver.resolve(spec, USUAL)
    assert resolved.digest is not None
    assert str(resolved.named) == served.layout.digest != str(resolved.digest)
    await world.store.blobs.delete(resolved.digest)
    origin.forget()
    await world.resolver.ask_again(spec, resolved)
    assert world.store.blobs.stat(resolved.digest) is not None
    assert len(origin.requests) == 1


@pytest.mark.parametrize("word", [":1.2", "@digest"])
async def test_who_asks_for_a_lost_manifest_in_vain_is_told_the_ref_as_it_is_written(
    world: World, serve: Serve, origin: Origin, word: str
) -> None:
    served = serve(Image((BASE,)))
    manifest = served.blob(served.layout.digest)
    origin.put("/v2/app/manifests/1.2", manifest, content_type=OCI_MANIFEST)
    said = served.ref + word.replace("digest", served.layout.digest)
    spec = replace(world.spec(said), name="")
    resolved = await world.resolver.resolve(spec, USUAL)
    assert resolved.digest is not None
    await world.store.blobs.delete(resolved.digest)
    served.spoilt = {str(resolved.digest): b"spoilt"}
    with pytest.raises(CafsError) as failed:
        await world.resolver.ask_again(spec, resolved)
    assert said in failed.value.line


async def test_an_image_is_no_file_beyond_its_layers(world: World, serve: Serve) -> None:
    spec = world.spec(serve(Image((BASE,))).ref)
    assert isinstance(spec.ref, DockerRef)
    assert (await world.resolver.part(spec, 0, USUAL)).size > 0
    with pytest.raises(UnsupportedError, match="no layer 2"):
        await world.resolver.part(spec, 1, USUAL)


async def test_y23_a_registry_is_asked_where_it_is_mapped_to_and_an_image_stays_what_it_is(
    mounted: OpenWorld, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    rules = (MapRule("http://127.0.0.1:1/", (f"http://127.0.0.1:{origin.port}/",)),)
    async with mounted(rules=rules) as world:
        spec = world.spec("docker://127.0.0.1:1/app")
        assert "bin/tool" in await world.tree(spec)
        resolved = await world.resolver.resolve(spec, USUAL)
        assert str(resolved.digest) == served.layout.digest
        assert all(url.startswith("http://127.0.0.1:1/") for url in resolved.parts[0].urls)


async def test_a_mapped_registry_that_is_down_or_lies_is_passed_over(
    mounted: OpenWorld, serve: Serve, origin: Origin
) -> None:
    served = serve(Image((BASE,)))
    manifest = f"/v2/app/manifests/{served.layout.digest}"
    with running_origin() as liar:
        liar.put(manifest, b"{}", content_type="application/vnd.oci.image.manifest.v1+json")
        places = (f"http://127.0.0.1:{port}/" for port in (2, liar.port, origin.port))
        async with mounted(rules=(MapRule("http://127.0.0.1:1/", tuple(places)),)) as world:
            spec = world.spec(f"docker://127.0.0.1:1/app@{served.layout.digest}")
            assert "bin/tool" in await world.tree(spec)
        assert liar.requests_for(manifest)
