"""Images of a registry as the store keeps them: manifests are content, fetched once by digest.

So an image that was resolved before is resolved again without a request, and a tag that did not
move costs one request without a body.
"""

from dataclasses import dataclass
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
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.model.spec import Platform
from cafs.store.store import Store

_NESTED: Final = 4
"""Indexes inside indexes at most."""


@dataclass(frozen=True, slots=True)
class Image:
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

    def __init__(self, store: Store, registry: Registry) -> None:
        self._store = store
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
            if digest is not None and self._store.blobs.stat(digest) is not None:
                return digest
        document = await self._registry.tagged(repository, tag)
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
            parsed = parse_manifest(
                document.data, document.descriptor.media_type, name=repository.name
            )
            if isinstance(parsed, ImageManifest):
                if platform is not None and not chosen:
                    await self._check(repository, parsed.config, platform, offline=offline)
                return Image(digest, parsed)
            digest, chosen = _choose(parsed, platform, repository.name), True
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
        descriptor = self._store.blobs.stat(digest)
        if descriptor is None:
            return None
        if descriptor.size > MANIFEST_LIMIT:
            raise MalformedError(f"{digest}: too large for a manifest: {descriptor.size} bytes")
        data = await self._store.blobs.read(descriptor.digest, 0, descriptor.size)
        return Document(descriptor, data)

    async def _keep(self, document: Document) -> None:
        descriptor = document.descriptor
        if self._store.blobs.stat(descriptor.digest) is not None:
            return
        writer = await self._store.blobs.create(descriptor.media_type)
        try:
            await writer.write(document.data)
            await writer.commit(descriptor.digest, descriptor.size)
        finally:
            await writer.cancel()


def _choose(index: ImageIndex, platform: Platform | None, name: str) -> Digest:
    number = choose(
        [offer.platform for offer in index.offers], platform or own_platform(), name=name
    )
    return index.offers[number].descriptor.digest
