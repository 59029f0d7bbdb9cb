"""What a lock says of an image, held against the manifests that the store has. Asks nobody.

A lock names an image's manifest, and its layers beside that, so that nobody is asked what the image
is. Who has the manifest for another reason need not believe it: the digest that the lock names is
that of the manifest, and this says which layers there are.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import trio

from cafs.distribution.manifests import (
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    OCI_MANIFEST,
    ImageIndex,
    ImageManifest,
    Layer,
    parse_manifest,
)
from cafs.errors import ContentError, MalformedError, NotFoundError, UnsupportedError
from cafs.model.descriptor import OCTETS
from cafs.model.digest import Digest
from cafs.model.resolved import Part, Resolved
from cafs.store.interfaces import BlobStore

_NESTED: Final = 4
"""Indexes inside indexes at most."""
_LOOKS: Final = 16
"""Documents that are read for one lock at most, its manifest left out."""
_OFFERS: Final = 1000
"""Offers that are looked up for one lock at most; real indexes have some ten."""
_TOLD: Final = 8
"""Manifests that an error names at most."""
_LARGE: Final = 32 << 10
"""Bytes of a document from which on parsing it takes more than some tenths of a millisecond."""
_MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)


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
        others = await _others(blobs, locked.named, locked.digest, title)
        if others is not None:
            raise ContentError(
                f"{title}: cafs.lock names the manifest {locked.digest}, "
                f"and the index {locked.named} has {_told(others)}",
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


def _told(digests: set[Digest]) -> str:
    told = sorted(map(str, digests))
    more = [f"{len(told) - _TOLD} more"] if len(told) > _TOLD else []
    return ", ".join(told[:_TOLD] + more) or "none"


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
    if len(data) < _LARGE:
        return parse_manifest(data, OCTETS, name=title)
    return await trio.to_thread.run_sync(partial(parse_manifest, data, OCTETS, name=title))


async def _others(
    blobs: BlobStore, index: Digest, locked: Digest, title: str
) -> set[Digest] | None:
    """The manifests that an index has, and those in it, where what is locked is none of them.

    What the store has is what it says itself, whatever the index calls it (B-10). None where what
    is locked is among them, where that is not known here, and where it takes too long to see.
    """
    root = await _document(blobs, index, title)
    if root is None:
        return None
    if isinstance(root, ImageManifest):
        return {index}
    manifests: set[Digest] = set()
    seen, looks, level = {index}, 1, [root]
    for _ in range(_NESTED):
        offers = _offers(blobs, level)
        if offers is None or locked in offers or len(offers) + len(seen) > _OFFERS:
            return None
        level = []
        for digest in offers.keys() - seen:
            looks += blobs.stat(digest) is not None
            if looks > _LOOKS:
                return None
            try:
                document = await _document(blobs, digest, title)
            except (MalformedError, UnsupportedError):
                continue  # who chose that would get no image
            if isinstance(document, ImageIndex):
                level.append(document)
            elif document is not None or offers[digest]:
                manifests.add(digest)
            else:
                return None
        seen |= offers.keys()
    return None if level else manifests


def _offers(blobs: BlobStore, indexes: Iterable[ImageIndex]) -> dict[Digest, bool] | None:
    """What indexes offer, and whether one calls it a manifest.

    None where that is too much, or a lock would name it by a digest that is not known here.
    """
    called: dict[Digest, bool] = {}
    for index in indexes:
        for offer in index.offers:
            kind = offer.descriptor.media_type.partition(";")[0].strip().lower()
            digest = offer.descriptor.digest
            called[digest] = called.get(digest, False) or kind in _MANIFESTS
    if len(called) > _OFFERS:
        return None
    offers: dict[Digest, bool] = {}
    for digest, is_manifest in called.items():
        known = _canonical(blobs, digest)
        if known is None:
            return None
        offers[known] = offers.get(known, False) or is_manifest
    return offers


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
