"""What refs mean: their handlers, who resolves them, and what looks at them without reading."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.distribution.archive import ArchiveHandler, Archives
from cafs.distribution.blob import BlobHandler
from cafs.distribution.digest import Digests
from cafs.distribution.docker import DockerHandler
from cafs.distribution.files import Files
from cafs.distribution.images import Images
from cafs.distribution.indexing import Indexing
from cafs.distribution.interfaces import Handler
from cafs.distribution.lock_indexes import LockIndexes, Subject
from cafs.distribution.merging import Merger
from cafs.distribution.parts import UrlParts
from cafs.distribution.policy import HostPolicy
from cafs.distribution.promoting import Promoting
from cafs.distribution.registry import Registry
from cafs.distribution.resolver import Resolver
from cafs.distribution.trees import Trees
from cafs.fetch.fetcher import Fetcher
from cafs.metrics import Metrics
from cafs.model.limits import Limits
from cafs.model.mapping import Route, mapped
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef, Ref
from cafs.model.span import Span
from cafs.settings.lockfile import index_directory
from cafs.settings.values import Settings, index_url
from cafs.store.store import Store
from cafs.transport.interfaces import Transport
from cafs.transport.retrying import Retrying, RetryPolicy
from cafs.transport.revalidating import PROBE, Locator

if TYPE_CHECKING:
    from cafs.distribution.inspecting import Inspector

_EAGER: Final = Span(0, 64 << 10)
"""What is asked for of what will be read anyway: a small file costs one request then, not two."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """What refs mean, running. ``inspector`` makes what one verb looks with."""

    policy: HostPolicy
    indexes: LockIndexes
    resolver: Resolver
    digests: Digests
    inspector: "Callable[[], Inspector]"


def distribution(
    settings: Settings,
    store: Store,
    mount: int,
    *,
    fetcher: Fetcher,
    transport: Transport,
    metrics: Metrics,
    retries: RetryPolicy,
    eager: bool,
) -> Distribution:
    """Put together what turns refs into content.

    Args:
        settings: what the user wants.
        store: where everything is kept.
        mount: the mount's number there.
        fetcher: brings content.
        transport: what every request goes through.
        metrics: counts.
        retries: how often questions are asked again, and how soon.
        eager: whether what is looked up will be read, so that small content comes with the answer.
    """
    route = partial(mapped, rules=settings.mapping)
    indexes = _indexes(settings, store, fetcher, transport, route)
    policy = HostPolicy(settings.allowed_hosts, settings.dynamic)
    promoting = Promoting(store, fetcher, Limits())
    trees = Trees(store, fetcher, promoting)
    indexing = Indexing(store, fetcher, Limits(), indexes)
    archives = Archives(store, fetcher, trees, Limits(), indexing)
    asking = Retrying(transport, retries, metrics)
    handlers = _handlers(
        asking,
        transport,
        metrics,
        policy,
        route=route,
        probe=_EAGER if eager else PROBE,
        fetcher=fetcher,
        store=store,
        trees=trees,
        archives=archives,
        indexing=indexing,
        files=Files(store, fetcher, indexing, promoting),
    )
    resolver = Resolver(handlers=handlers, store=store, mount=mount, offline=settings.offline)
    digests = Digests(
        store=store,
        resolver=resolver,
        specs=lambda: settings.refs,
        fetcher=fetcher,
        archives=archives,
        trees=trees,
    )

    def inspector() -> "Inspector":
        from cafs.distribution.inspecting import Inspector  # noqa: PLC0415 - one verb's

        return Inspector(
            store=store,
            resolver=resolver,
            fetcher=fetcher,
            archives=archives,
            indexing=indexing,
            asking=asking,
            route=route,
            place=indexes.place,
            offline=settings.offline,
        )

    return Distribution(
        policy=policy, indexes=indexes, resolver=resolver, digests=digests, inspector=inspector
    )


def _handlers(
    asking: Transport,
    transport: Transport,
    metrics: Metrics,
    policy: HostPolicy,
    *,
    route: Route,
    probe: Span,
    fetcher: Fetcher,
    store: Store,
    trees: Trees,
    archives: Archives,
    indexing: Indexing,
    files: Files,
) -> dict[type[Ref], Handler]:
    """What turns refs into content, by their type.

    Questions go to ``asking``, which retries; content comes by ``transport``; both go to the URLs
    that ``route`` says.
    """
    parts = UrlParts(
        store=store,
        fetcher=fetcher,
        sources=transport,
        asking=asking,
        locator=Locator(asking, store.documents, metrics, route=route, probe=probe),
        route=route,
        probe=probe,
    )
    blobs = BlobHandler(parts, files)
    images = DockerHandler(
        images=Images(store.blobs, Registry(asking, route)),
        merger=Merger(store, fetcher, trees, Limits(), indexing),
        trees=trees,
        fetcher=fetcher,
        transport=transport,
        policy=policy,
        route=route,
    )
    return {
        BlobRef: blobs,
        DigestRef: blobs,
        ArchiveRef: ArchiveHandler(parts, archives, trees, files),
        DockerRef: images,
    }


def _indexes(
    settings: Settings, store: Store, fetcher: Fetcher, transport: Transport, route: Route
) -> LockIndexes:
    """Where the indexes are that the lock names."""
    subjects = {
        part.index: Subject(spec.name, part.index_size)
        for spec in settings.refs
        for part in (() if spec.locked is None else spec.locked.parts)
        if part.index is not None
    }
    return LockIndexes(
        index_directory(settings.lock_file) if settings.lock_file is not None else None,
        lambda digest: [index_url(text, digest) for text in settings.index_urls],
        subjects,
        store=store,
        fetcher=fetcher,
        transport=transport,
        route=route,
    )
