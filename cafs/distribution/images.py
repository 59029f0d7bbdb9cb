"""Images of a registry as the store keeps them: manifests are content, fetched once by digest.

So an image that was resolved before is resolved again without a request, and a tag that did not
move costs one request without a body.
"""

from typing import Final

import msgspec

from cafs.distribution.manifests import (
    MANIFEST_LIMIT,
    ImageIndex,
    ImageManifest,
    parse_manifest,
)
from cafs.distribution.platforms import choose, own_platform
from cafs.distribution.registry import Document, Registry, Repository
from cafs.errors import MalformedError, OfflineError, UnsupportedError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest
from cafs.model.spec import Platform
from cafs.store.interfaces import BlobStore

_NESTED: Final = 4
"""Indexes inside indexes at most."""


class Image(msgspec.Struct, frozen=True):
    """An image for one platform: the digest of its manifest, and the manifest."""

    digest: Digest
    manifest: ImageManifest


class _Configuration(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Images:
    """Finds images, in the store first.

    Concurrency: any number of tasks.
    """

    def __init__(self, blobs: BlobStore, registry: Registry) -> None:
        self._blobs = blobs
        self._registry = registry

    async def tag(self, repository: Repository, tag: str, *, known: bool) -> Digest:
        """The digest of the document that a tag means now; the document is in the store then.

        Args:
            repository: where to ask.
            tag: which tag.
            known: the tag was resolved before, so the answer is likely to be in the store: ask for
                the digest alone first.

        Raises:
            CafsError: as the registry failed.

        Cancellation: no effect.
        """
        if known:
            digest = await self._registry.head(repository, tag)
            if digest is not None and self._blobs.stat(digest) is not None:
                return digest
        document = await self._registry.tagged(repository, tag)
        _parsed(document, repository)
        await self._keep(document)
        return document.descriptor.digest

    async def image(
        self,
        repository: Repository,
        digest: Digest,
        *,
        platform: Platform | None,
        offline: bool,
    ) -> Image:
        """The image with a digest, or that for a platform in the index with that digest.

        Args:
            repository: where to ask for what the store does not have.
            digest: of a manifest or of an index.
            platform: what it must run on; None is this machine's own in an index, and anything for
                an image that is alone.
            offline: nobody may be asked.

        Raises:
            NotFoundError: nothing with that digest, or nothing for that platform.
            UnsupportedError: no image that could be mounted.
            OfflineError: a document is not in the store.
            CafsError: as the registry failed.

        Cancellation: no effect.
        """
        chosen = False
        for _ in range(_NESTED):
            document = await self._document(repository, digest, offline=offline)
            parsed = _parsed(document, repository)
            if isinstance(parsed, ImageManifest):
                if platform is not None and not chosen:
                    await self._check(repository, parsed.config, platform, offline=offline)
                return Image(digest, parsed)
            digest, chosen = _choose(parsed, platform, repository.name), True
            if digest.weak:
                # Whatever pins the index would no more stand behind what it leads to.
                raise UnsupportedError(f"{repository.name}: its index names a manifest by {digest}")
        raise UnsupportedError(f"{repository.name}: indexes are nested more than {_NESTED} deep")

    async def _document(self, repository: Repository, digest: Digest, *, offline: bool) -> Document:
        document = await self._stored(digest)
        if document is None:
            if offline:
                raise OfflineError(
                    f"{repository.name}: the manifest {digest} is not in the store, "
                    "and no registry may be asked"
                )
            document = await self._registry.manifest(repository, digest)
            _parsed(document, repository)
            await self._keep(document)
        return document

    async def _check(
        self,
        repository: Repository,
        config: Descriptor,
        platform: Platform,
        *,
        offline: bool,
    ) -> None:
        """Refuse an image that is alone, and for another platform than the one asked for."""
        document = await self._stored(config.digest)
        if document is None:
            if offline:
                raise OfflineError(
                    f"{repository.name}: its configuration {config.digest} is not in the store"
                )
            document = await self._registry.configuration(repository, config)
            await self._keep(document)
        try:
            said = msgspec.json.decode(document.data, type=_Configuration)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError(
                f"{repository.name}: the configuration cannot be read: {error}"
            ) from error
        if said.architecture:
            offered = Platform(said.os, said.architecture, said.variant)
            choose([offered], platform, name=repository.name)

    async def _stored(self, digest: Digest) -> Document | None:
        found = self._blobs.stat(digest)
        if found is None:
            return None
        if found.size > MANIFEST_LIMIT:
            raise MalformedError(f"{digest}: too large for a manifest: {found.size} bytes")
        data = await self._blobs.get(found.digest)
        # Who brought these bytes first said of which type they are. That may have been another
        # project, or its registry, and binds nobody here (B-10): the document says it itself.
        return Document(Descriptor(OCTETS, found.digest, found.size), data)

    async def _keep(self, document: Document) -> None:
        descriptor = document.descriptor
        if self._blobs.stat(descriptor.digest) is None:
            await self._blobs.put(descriptor.media_type, document.data, descriptor.digest)


def _parsed(document: Document, repository: Repository) -> ImageIndex | ImageManifest:
    return parse_manifest(document.data, document.descriptor.media_type, name=repository.name)


def _choose(index: ImageIndex, platform: Platform | None, name: str) -> Digest:
    number = choose(
        [offer.platform for offer in index.offers], platform or own_platform(), name=name
    )
    return index.offers[number].descriptor.digest
