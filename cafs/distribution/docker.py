"""Container images of a registry: tag or digest, index, manifest, layers, one tree."""

import time
from dataclasses import replace

from typing_extensions import override

from cafs.distribution.images import Image, Images
from cafs.distribution.interfaces import Handler, Note, OpenTree
from cafs.distribution.manifests import Layer
from cafs.distribution.merging import Merger
from cafs.distribution.naming import title
from cafs.distribution.policy import HostPolicy
from cafs.distribution.recording import LAYER
from cafs.distribution.registry import Repository
from cafs.distribution.stronger import pin_of
from cafs.distribution.trees import Trees
from cafs.distribution.trying import first_answer
from cafs.errors import OfflineError, UnsupportedError
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Source
from cafs.model.digest import Digest
from cafs.model.mapping import Route, straight
from cafs.model.ref import DockerRef
from cafs.model.resolved import Part, Resolved, Shape
from cafs.model.spec import RefSpec
from cafs.transport.interfaces import Transport


class DockerHandler(Handler):
    """Refs to images. Mirrors are the base URLs of registries that have the same repositories.

    Args:
        images: finds manifests.
        merger: builds trees.
        trees: opens trees.
        fetcher: opens layers.
        transport: what layers are fetched by; it authenticates.
        policy: says which hosts outside the registry a layer may be fetched from.
        route: says which URLs to ask instead of a layer's. Parts keep their own.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        *,
        images: Images,
        merger: Merger,
        trees: Trees,
        fetcher: Fetcher,
        transport: Transport,
        policy: HostPolicy,
        route: Route = straight,
    ) -> None:
        self._images = images
        self._merger = merger
        self._trees = trees
        self._fetcher = fetcher
        self._transport = transport
        self._policy = policy
        self._route = route

    @override
    async def resolve(self, spec: RefSpec, previous: Resolved | None, note: Note) -> Resolved:
        ref = _docker(spec)
        offline = spec.pull == "never"
        pin = pin_of(spec)
        if pin is None and offline:
            if previous is None:
                raise OfflineError(f"{title(spec)}: the tag {ref.tag} was never asked for here")
            return previous

        async def ask(repository: Repository, attempts: int | None) -> tuple[Digest, Image]:
            repository = replace(repository, attempts=attempts)
            digest = pin
            if digest is None:
                digest = await self._images.tag(
                    repository, ref.reference, known=previous is not None
                )
            return digest, await self._images.image(
                repository, digest, platform=spec.platform, offline=offline
            )

        repositories = _repositories(spec, ref, note)
        named, image = await first_answer(repositories, ask)
        return Resolved(
            ref=ref.canonical,
            shape=Shape.TREE,
            digest=image.digest,
            parts=tuple(self._part(layer, repositories) for layer in image.manifest.layers),
            resolved_ns=time.time_ns(),
            named=named,
        )

    @override
    async def open_tree(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> OpenTree:
        layers = [
            await self.open_file(spec, resolved, patience, part=number)
            for number in range(len(resolved.parts))
        ]
        record = await self._merger.merge(resolved.parts, layers, patience, name=title(spec))

        async def content(number: int) -> Content:
            return layers[number]

        return await self._trees.open(spec, record, content, LAYER, parts=resolved.parts)

    @override
    async def open_file(
        self, spec: RefSpec, resolved: Resolved, patience: Patience, *, part: int = 0
    ) -> Content:
        if not part < len(resolved.parts):
            raise UnsupportedError(f"{title(spec)}: the image has no layer {part + 1}")
        layer = resolved.parts[part]
        return await self._fetcher.content(
            layer,
            [Source(self._transport, to) for url in layer.urls for to in self._route(url)],
            name=f"{title(spec)}: layer {part + 1} of {len(resolved.parts)}",
            patience=patience,
        )

    def _part(self, layer: Layer, repositories: list[Repository]) -> Part:
        descriptor = layer.descriptor
        elsewhere = tuple(url for url in layer.urls if self._policy.allows_url(url))
        return Part(
            media_type=descriptor.media_type,
            size=descriptor.size,
            digest=descriptor.digest,
            urls=(*(each.blob_url(descriptor.digest) for each in repositories), *elsewhere),
            contents=layer.contents,
        )


def _docker(spec: RefSpec) -> DockerRef:
    if not isinstance(spec.ref, DockerRef):
        raise TypeError(f"{spec.ref.canonical} is no image")
    return spec.ref


def _repositories(spec: RefSpec, ref: DockerRef, note: Note) -> list[Repository]:
    """Where to ask: the registry itself, then its mirrors."""
    bases = (ref.base_url, *(mirror.rstrip("/") for mirror in spec.mirrors))
    return [Repository(base, ref.repository, title(spec), note) for base in bases]
