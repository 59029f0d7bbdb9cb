"""Manifests: each kind that is read, each that is refused, and by which words."""

import json

import pytest

from cafs.distribution.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageIndex,
    ImageManifest,
    parse_manifest,
)
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.descriptor import Descriptor
from cafs.model.digest import digest_of
from cafs.model.spec import Platform

CONFIG = {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": str(digest_of(b"config")),
    "size": 6,
}
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def layer(media_type: str = GZIP, **more: object) -> dict[str, object]:
    digest = str(digest_of(media_type.encode()))
    return {"mediaType": media_type, "digest": digest, "size": 10, **more}


def image(media_type: str | None = OCI_MANIFEST, **more: object) -> bytes:
    document: dict[str, object] = {"schemaVersion": 2, "config": CONFIG, "layers": [layer()]}
    if media_type is not None:
        document["mediaType"] = media_type
    return json.dumps({**document, **more}).encode()


def index(*entries: dict[str, object], media_type: str = OCI_INDEX) -> bytes:
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}
    return json.dumps(document).encode()


def offer(word: str, **more: object) -> dict[str, object]:
    digest = str(digest_of(word.encode()))
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 3, **more}


@pytest.mark.parametrize(
    ("said", "inside"),
    [
        (OCI_MANIFEST, OCI_MANIFEST),
        (OCI_MANIFEST, None),
        (DOCKER_MANIFEST, DOCKER_MANIFEST),
        ("text/plain", OCI_MANIFEST),
        ("application/octet-stream", None),
        (f"{OCI_MANIFEST}; charset=utf-8", None),
        ("", None),
    ],
)
def test_an_image_is_read_whatever_its_type_is_called(said: str, inside: str | None) -> None:
    parsed = parse_manifest(image(inside), said, name="app")
    assert isinstance(parsed, ImageManifest)
    assert parsed.config.digest == digest_of(b"config")
    assert [each.descriptor.size for each in parsed.layers] == [10]


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_an_index_is_read_with_its_platforms(kind: str) -> None:
    data = index(
        offer("a", platform={"os": "linux", "architecture": "arm", "variant": "v7"}),
        offer("b", platform={"os": "linux", "architecture": "amd64", "os.version": "1"}),
        offer("c"),
        media_type=kind,
    )
    parsed = parse_manifest(data, kind, name="app")
    assert isinstance(parsed, ImageIndex)
    assert [each.platform for each in parsed.offers] == [
        Platform("linux", "arm", "v7"),
        Platform("linux", "amd64"),
        None,
    ]
    assert parsed.offers[1].descriptor.digest == digest_of(b"b")


def test_attestations_are_no_images() -> None:
    data = index(
        offer("a", annotations={"vnd.docker.reference.type": "attestation-manifest"}), offer("b")
    )
    parsed = parse_manifest(data, OCI_INDEX, name="app")
    assert isinstance(parsed, ImageIndex)
    assert [each.descriptor.digest for each in parsed.offers] == [digest_of(b"b")]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_layers_of_every_usual_type_are_read(media_type: str) -> None:
    data = image(layers=[layer(media_type, urls=["https://elsewhere.example.com/x"])])
    parsed = parse_manifest(data, OCI_MANIFEST, name="app")
    assert isinstance(parsed, ImageManifest)
    assert parsed.layers[0].urls == ("https://elsewhere.example.com/x",)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.wasm.content.layer.v1+wasm",
        "application/vnd.in-toto+json",
    ],
)
def test_other_layers_are_refused_by_name(media_type: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        parse_manifest(image(layers=[layer(media_type)]), OCI_MANIFEST, name="registry/app")
    assert media_type in caught.value.line
    assert "registry/app" in caught.value.line


@pytest.mark.parametrize(
    "said",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
    ],
)
def test_schema_1_is_refused_and_called_so(said: str) -> None:
    data = json.dumps({"schemaVersion": 1, "name": "app", "fsLayers": []}).encode()
    with pytest.raises(UnsupportedError, match="schema 1"):
        parse_manifest(data, said, name="app")


def test_a_document_that_is_an_index_and_an_image_is_refused() -> None:
    data = image(manifests=[offer("a")])
    with pytest.raises(MalformedError, match="at once"):
        parse_manifest(data, OCI_MANIFEST, name="app")


def test_a_document_that_contradicts_its_media_type_is_refused() -> None:
    with pytest.raises(MalformedError, match="the manifest says"):
        parse_manifest(image(OCI_MANIFEST), OCI_INDEX, name="app")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"schemaVersion": 2, "layers": 3}',
        image(config=None),
        image(config={**CONFIG, "size": -1}),
        image(config={**CONFIG, "digest": "sha256:short"}),
        image(config={**CONFIG, "digest": "md4:" + "0" * 32}),
        image(layers=[{"mediaType": GZIP}]),
        image(layers=[layer(size=1 << 63)]),
        image(layers=[layer(size=10**4000)]),
        image(layers=[layer(size=None, length=1 << 63)]),
        image(layers=[layer()] * 5000),
        b'{"config":' + b"[" * 100_000,
    ],
)
def test_broken_documents_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError, match="app"):
        parse_manifest(data, OCI_MANIFEST, name="app")


def test_b1_a_size_may_be_called_length_as_it_was_before_oci() -> None:
    said = {"mediaType": GZIP, "digest": str(digest_of(b"layer")), "length": 10}
    for layers in ([said], [{**said, "size": 10}]):
        parsed = parse_manifest(image(layers=layers), OCI_MANIFEST, name="app")
        assert isinstance(parsed, ImageManifest)
        assert parsed.layers[0].descriptor == Descriptor(GZIP, digest_of(b"layer"), 10)


@pytest.mark.parametrize("sizes", [{}, {"size": 10, "length": 11}, {"length": -1}])
def test_b1_no_size_and_two_sizes_are_malformed(sizes: dict[str, int]) -> None:
    said = {"mediaType": GZIP, "digest": str(digest_of(b"layer")), **sizes}
    with pytest.raises(MalformedError, match="app"):
        parse_manifest(image(layers=[said]), OCI_MANIFEST, name="app")


def test_a_document_of_another_kind_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="text/html is no image manifest"):
        parse_manifest(b"{}", "text/html", name="app")


def test_an_image_without_layers_is_an_image() -> None:
    parsed = parse_manifest(image(layers=[]), OCI_MANIFEST, name="scratch")
    assert isinstance(parsed, ImageManifest)
    assert parsed.layers == ()


ODD = "a\x1b]0;title\x07\n" + "x" * 100_000


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (image(layers=[layer(ODD)]), OCI_MANIFEST),
        (image(layers=[layer(f"x{GZIP}", digest=ODD)]), OCI_MANIFEST),
        (image(layers=[{"mediaType": GZIP, "digest": ODD}]), OCI_MANIFEST),
        (image(layers=[layer(digest=ODD)]), OCI_MANIFEST),
        (b"{}", ODD),
    ],
)
def test_what_a_registry_says_is_told_on_one_short_line(data: bytes, kind: str) -> None:
    with pytest.raises((MalformedError, UnsupportedError)) as caught:
        parse_manifest(data, kind, name="app")
    assert caught.value.line.isprintable()
    assert len(caught.value.line) < 1000
