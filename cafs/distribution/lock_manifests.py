"""What a lock says of an image, held against the manifests that the store has. Asks nobody.

A lock names an image's manifest, and its layers beside that, so that nobody is asked what the image
is. Who has the manifest for another reason need not believe it: the digest that the lock names is
that of the manifest, and this says which layers there are.
"""

from collections.abc import Sequence
from typing import Final

from cafs.distribution.manifests import (
    DOCKER_LIST,
    MANIFEST_LIMIT,
    OCI_INDEX,
    ImageIndex,
    ImageManifest,
    Layer,
    parse_manifest,
)
from cafs.errors import ContentError, MalformedError, NotFoundError
from cafs.model.descriptor import OCTETS
from cafs.model.digest import Digest
from cafs.model.resolved import Part, Resolved
from cafs.store.interfaces import BlobStore

_NESTED: Final = 4
"""Indexes inside indexes at most."""
_INDEXES: Final = (OCI_INDEX, DOCKER_LIST)


async def refuse_other_layers(blobs: BlobStore, locked: Resolved, *, name: str, title: str) -> None:
    """Refuse what a lock says where the store has what its digests name, and that says otherwise.

    Args:
        blobs: where manifests are.
        locked: what the lock says of an image.
        name: the ref's in the settings, for what to do.
        title: what errors call the ref.

    Raises:
        ContentError: the manifest is none that the image's index has, or its layers are others.
        StorageError: the disk failed.

    Cancellation: no effect.
    """
    if locked.named is None or locked.digest is None:
        raise ContentError(f"{title}: cafs.lock names no manifest", hint=_hint(name))
    if locked.named != locked.digest:
        offered = await _offered(blobs, locked.named, title)
        if offered is not None and locked.digest not in offered:
            those = ", ".join(map(str, sorted(offered, key=str))) or "none"
            raise ContentError(
                f"{title}: cafs.lock names the manifest {locked.digest}, "
                f"and the index {locked.named} has {those}",
                hint=_hint(name),
            )
    manifest = await _document(blobs, locked.digest, title)
    if isinstance(manifest, ImageIndex):
        what = f"{title}: what cafs.lock names as manifest, {locked.digest}, is an index"
        raise ContentError(what, hint=_hint(name))
    if manifest is not None:
        what = _difference(blobs, locked.parts, manifest.layers)
        if what:
            of = f"{title}: cafs.lock is not of the manifest {locked.digest}"
            raise ContentError(f"{of}: {what}", hint=_hint(name))


def _hint(name: str) -> str:
    return f"restore cafs.lock, or make it anew: cafs lock --upgrade {name}".rstrip()


async def _document(
    blobs: BlobStore, digest: Digest, title: str
) -> ImageIndex | ImageManifest | None:
    """A manifest or an index, if the store has it."""
    found = blobs.stat(digest)
    if found is None:
        return None
    if found.size > MANIFEST_LIMIT:
        raise MalformedError(f"{title}: {digest}: too large for a manifest: {found.size} bytes")
    try:
        data = await blobs.get(found.digest)
    except NotFoundError:
        return None  # it has just been evicted
    return parse_manifest(data, OCTETS, name=title)


async def _offered(blobs: BlobStore, index: Digest, title: str) -> set[Digest] | None:
    """The manifests that an index has, and those in it; None where that is not known here."""
    offered: set[Digest] = set()
    level = [index]
    for _ in range(_NESTED):
        below: list[Digest] = []
        for digest in level:
            document = await _document(blobs, digest, title)
            if document is None:
                return None
            if isinstance(document, ImageManifest):
                offered.add(digest)
                continue
            for offer in document.offers:
                known = _canonical(blobs, offer.descriptor.digest)
                if known is None:
                    return None
                is_index = offer.descriptor.media_type in _INDEXES
                (below.append if is_index else offered.add)(known)
        level = below
    return offered


def _canonical(blobs: BlobStore, digest: Digest) -> Digest | None:
    """What a lock calls content, which a manifest may name by another algorithm."""
    if digest.canonical:
        return digest
    known = blobs.stat(digest)
    return None if known is None else known.digest


def _difference(blobs: BlobStore, parts: Sequence[Part], layers: Sequence[Layer]) -> str:
    """How what a lock names differs from a manifest's layers; empty where it does not."""
    if len(parts) != len(layers):
        return f"it names {len(parts)} layers, and that has {len(layers)}"
    for number, (part, layer) in enumerate(zip(parts, layers, strict=True), 1):
        there = layer.descriptor
        digest = _canonical(blobs, there.digest)
        if digest not in {None, part.digest}:
            return f"layer {number} is {part.digest} in it, and {digest} in that"
        if part.size != there.size:
            return f"layer {number} has {part.size} bytes in it, and {there.size} in that"
        if part.contents not in {None, layer.contents}:
            return f"the table of contents of layer {number} is another in it than in that"
    return ""
