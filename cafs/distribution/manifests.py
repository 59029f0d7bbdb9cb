"""Manifests: what a registry says an image is, parsed into values. No I/O.

Read are OCI image indexes and manifests, Docker manifest lists and schema 2 manifests.

Source: OCI image-spec (image-index.md, manifest.md, layer.md); distribution-spec's legacy types.
"""

from typing import Annotated, Final

import msgspec

from cafs.codec.naming import told
from cafs.distribution.announcing import announced
from cafs.errors import InvalidReferenceError, MalformedError, UnsupportedError
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.model.resolved import Contents
from cafs.model.spec import Platform

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPTED: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
"""The media types that are asked for."""

MANIFEST_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a manifest at most; registries refuse larger ones, so a larger one is an attack."""

_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_LAYERS: Final = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_COMPRESSIONS: Final = frozenset({"", "+gzip", "+zstd", ".gzip", ".zstd"})
_ATTESTATION: Final = "vnd.docker.reference.type"
"""The annotation of an index entry that describes another entry, and is no image."""
_LAYER_COUNT: Final = 4096
"""Layers of an image at most; engines stop at a few hundred."""


class Offer(msgspec.Struct, frozen=True):
    """One entry of an image index: a manifest, and what it runs on (None: it does not say)."""

    descriptor: Descriptor
    platform: Platform | None


class ImageIndex(msgspec.Struct, frozen=True):
    """The images of one name, in the order of the index, attestations left away."""

    offers: tuple[Offer, ...]


class Layer(msgspec.Struct, frozen=True):
    """A layer, and the URLs outside the registry where it may be had (usually none).

    ``contents`` is its table of contents, where the manifest names one.
    """

    descriptor: Descriptor
    urls: tuple[str, ...]
    contents: Contents | None = None


class ImageManifest(msgspec.Struct, frozen=True):
    """The configuration of one image, and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Layer, ...]


_Bytes = Annotated[int, msgspec.Meta(le=(1 << 63) - 1)]
"""A size that can be written down: what is beyond it no content has."""


class _PlatformJson(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class _DescriptorJson(msgspec.Struct, rename="camel"):
    media_type: str
    digest: str
    size: _Bytes | None = None
    length: _Bytes | None = None  # what size was called before there was OCI (B-1)
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: _PlatformJson | None = None


class _DocumentJson(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    manifests: list[_DescriptorJson] | None = None
    config: _DescriptorJson | None = None
    layers: list[_DescriptorJson] | None = None


def parse_manifest(data: bytes, media_type: str, *, name: str) -> ImageIndex | ImageManifest:
    """Parse an index or a manifest whose digest has been checked.

    Args:
        data: JSON, at most ``MANIFEST_LIMIT`` bytes.
        media_type: as the registry or the index said; one that says nothing (``text/plain``,
            ``application/json``, empty) is made up for by the document itself.
        name: what is being resolved, for messages.

    Raises:
        UnsupportedError: schema 1, or no image of file system layers.
        MalformedError: not such a document, or one that could be read as either.
    """
    try:
        document = msgspec.json.decode(data, type=_DocumentJson)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"{name}: the manifest cannot be read: {error}") from error
    kind = _kind_of(document, media_type.partition(";")[0].strip().lower(), name)
    # A document with both could be an index to one reader and an image to another, under one
    # digest; nobody makes such a thing by accident.
    if document.manifests is not None and document.layers is not None:
        raise MalformedError(f"{name}: the manifest is an index and an image at once")
    if kind in _INDEXES:
        return _index(document, name)
    return _image(document, name)


def _kind_of(document: _DocumentJson, media_type: str, name: str) -> str:
    said = {each for each in (media_type, document.media_type) if each in _INDEXES | _MANIFESTS}
    if media_type.startswith(_SCHEMA_1) or document.schema_version == 1:
        raise UnsupportedError(
            f"{name}: a Docker schema 1 manifest", hint="push the image again with a newer tool"
        )
    if len(said) > 1:
        raise MalformedError(
            f"{name}: sent as {media_type}, but the manifest says {document.media_type}"
        )
    if said:
        return said.pop()
    if document.manifests is not None:
        return OCI_INDEX
    if document.layers is not None:
        return OCI_MANIFEST
    kind = told(media_type) or "an unknown type"
    raise UnsupportedError(f"{name}: {kind} is no image manifest")


def _index(document: _DocumentJson, name: str) -> ImageIndex:
    if document.manifests is None:
        raise MalformedError(f"{name}: the index lists no manifests")
    return ImageIndex(
        tuple(
            Offer(_descriptor(each, name), _platform(each.platform))
            for each in document.manifests
            if _ATTESTATION not in (each.annotations or {})
        )
    )


def _platform(said: _PlatformJson | None) -> Platform | None:
    if said is None or not said.architecture:
        return None
    return Platform(said.os, said.architecture, said.variant)


def _image(document: _DocumentJson, name: str) -> ImageManifest:
    if document.config is None or document.layers is None:
        raise MalformedError(f"{name}: the manifest has no config or no layers")
    if len(document.layers) > _LAYER_COUNT:
        raise MalformedError(f"{name}: {len(document.layers)} layers, at most {_LAYER_COUNT}")
    return ImageManifest(
        _descriptor(document.config, name),
        tuple(_layer(each, name) for each in document.layers),
    )


def _layer(said: _DescriptorJson, name: str) -> Layer:
    kind = said.media_type.lower()
    base = next((each for each in _LAYERS if kind.startswith(each)), None)
    if base is None or kind.removeprefix(base) not in _COMPRESSIONS:
        raise UnsupportedError(
            f"{name}: the layer {told(said.digest)} is {told(said.media_type)}, not a tar of files",
            hint="only images of file system layers can be mounted",
        )
    contents = announced(said.annotations or {}, f"{name}: the layer {told(said.digest)}")
    return Layer(_descriptor(said, name), tuple(said.urls or ()), contents)


def _descriptor(said: _DescriptorJson, name: str) -> Descriptor:
    size = said.length if said.size is None else said.size
    if size is None or said.length not in {None, size}:
        raise MalformedError(f"{name}: the size of {told(said.digest)} is missing, or is two")
    try:
        return Descriptor(said.media_type, Digest.parse(said.digest), size)
    except InvalidReferenceError as error:
        raise MalformedError(f"{name}: a descriptor of the manifest is wrong") from error
