"""The composition root: settings become running objects. The one file that names every class.

Read it top to bottom: transports, store, fetcher, distribution, file system. What a verb does with
them stands with the verb: ``cafs.cli.mounts.serving`` puts the file system before a kernel.

What a worker does without until somebody asks for it is imported where it is made: a worker that
takes the place of another is waited for by everyone who reads.
"""

import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from cafs import __version__
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
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.limits import Limits
from cafs.model.mapping import Route, mapped
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef, Ref
from cafs.model.span import Span
from cafs.reporting import Reports
from cafs.settings.lockfile import index_directory
from cafs.settings.values import Settings, index_url
from cafs.store.store import Store, open_store
from cafs.store.tenancy import Tenancy, passing
from cafs.transport.choosing import Choosing
from cafs.transport.file import FileTransport
from cafs.transport.interfaces import Transport
from cafs.transport.later import Later
from cafs.transport.metering import Metering
from cafs.transport.proxies import Proxies
from cafs.transport.retrying import Retrying, RetryPolicy
from cafs.transport.revalidating import PROBE, Locator
from cafs.transport.s3 import S3Transport
from cafs.vfs.attributes import Appearance
from cafs.vfs.filesystem import FileSystem

if TYPE_CHECKING:
    from cafs.distribution.inspecting import Inspector
    from cafs.transport.authenticating import Tried
    from cafs.transport.credentials.keeping import Credentials
    from cafs.transport.plugins.transport import PluginTransport

_LOG: Final = logging.getLogger("cafs")
_EAGER: Final = Span(0, 64 << 10)
"""What is asked for of what will be read anyway: a small file costs one request then, not two."""
_COLLECT_AFTER: Final = 10_000
"""Objects more than there were, after which the collector looks for cycles; 700 is usual."""


class System(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a verb needs, running.

    ``mount`` is the mount's number in the store; ``inspector`` makes what one verb looks with.
    """

    settings: Settings
    store: Store
    metrics: Metrics
    fetcher: Fetcher
    resolver: Resolver
    inspector: "Callable[[], Inspector]"
    filesystem: FileSystem
    mount: int


def credentials_of(settings: Settings) -> "Credentials":
    """What is known of who we are; nothing is read before somebody asks."""
    from cafs.transport.credentials.opening import open_credentials  # noqa: PLC0415 - as below

    return open_credentials(settings.logins, settings.helpers, os.environ)


@asynccontextmanager
async def open_transport(
    settings: Settings,
    metrics: Metrics,
    *,
    credentials: "Credentials | None" = None,
    witness: "Callable[[Tried], None] | None" = None,
) -> AsyncIterator[Transport]:
    """What every request goes through, from the outside in: credentials, redirects, counting.

    ``credentials`` are what is known of who we are, None for what the settings amount to;
    ``witness`` is told of each request that may show it.

    Content is fetched by it as it is, since a flight knows where a broken body stopped; questions
    are asked with retries around it.
    """
    proxies = Proxies.from_environment(os.environ)  # what is wrong with them is said at once

    def load_web() -> Callable[[], Transport]:
        from cafs.transport.web import web_transport  # noqa: PLC0415 - with the first request

        return partial(
            web_transport,
            metrics,
            pacing=settings.pacing,
            proxies=proxies,
            ca_bundle=settings.ca_bundle,
            logins=settings.logins,
            credentials=credentials or credentials_of(settings),
            witness=witness,
        )

    web = Later(load_web)
    files = Metering(FileTransport(settings.pacing), metrics)
    objects = Metering(S3Transport(os.environ, settings.pacing), metrics)
    async with _plugins(settings) as plugins:
        others = {scheme: Metering(plugin, metrics) for scheme, plugin in plugins.items()}
        # A plugin for s3 stands before what is built in: the user has enabled it.
        chosen = Choosing({"http": web, "https": web, "file": files, "s3": objects, **others})
        try:
            yield chosen
        finally:
            with trio.CancelScope(shield=True):
                await chosen.aclose()


@asynccontextmanager
async def _plugins(settings: Settings) -> "AsyncIterator[Mapping[str, PluginTransport]]":
    """The transports of plugins, by scheme, of those who use any."""
    if not settings.plugins:
        yield {}
        return
    from cafs.transport.plugins.transport import open_plugins  # noqa: PLC0415 - few use any

    async with open_plugins(settings.plugins) as plugins:
        yield plugins


def _collect_less() -> None:
    """Look for cycles less often.

    A request makes some hundred objects that are gone with it, and hardly a cycle: to look after
    every 700 of them takes a tenth of the time of fetching small files.
    """
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


@asynccontextmanager
async def open_system(
    settings: Settings,
    *,
    description: str,
    tenancy: Tenancy | None = None,
    eager: bool = False,
) -> AsyncIterator[System]:
    """Put everything together, and take it apart at the end of the block.

    Args:
        settings: what the user wants.
        description: the mount point, or what all this is for.
        tenancy: whose records of a mount are used; None makes some for this block.
        eager: whether what is looked up will be read, so that small content comes with the answer.

    Raises:
        CafsError: the store, or the view, cannot be opened.
    """
    tenancy = tenancy or partial(passing, description=description)
    async with (
        open_store(settings.store, bounds=settings.bounds) as store,
        tenancy(store) as mount,
        open_system_in(store, mount, settings, description=description, eager=eager) as system,
    ):
        yield system


@asynccontextmanager
async def open_system_in(
    store: Store,
    mount: int,
    settings: Settings,
    *,
    description: str,
    owner: tuple[int, int] | None = None,
    eager: bool = False,
) -> AsyncIterator[System]:
    """Put everything together round a store that is open, for one of its mounts.

    Args:
        store: where everything is kept.
        mount: the mount's number there.
        settings: what the user wants; which store, is settled already.
        description: the mount point, or what all this is for.
        owner: the user and the group, by number, whose the nodes are; None for this process's.
        eager: as in ``open_system``.

    Raises:
        CafsError: the view cannot be opened.
    """
    _collect_less()
    for note in settings.notes:
        _LOG.warning("%s", note)
    # A worker opens its store before it knows its settings.
    store.evictor.keep_within(settings.bounds)
    metrics = Metrics()
    retries = RetryPolicy(**msgspec.structs.asdict(settings.retry))
    async with (
        open_transport(settings, metrics) as transport,
        open_fetcher(
            store,
            metrics,
            budget=settings.budget,
            mount=mount,
            offline=settings.offline,
            policy=retries,
            pacing=settings.pacing,
            look_in=settings.look_in,
        ) as fetcher,
    ):
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
        reports = Reports(
            settings,
            description,
            store=store,
            metrics=metrics,
            fetcher=fetcher,
            resolver=resolver,
            notes=indexes.notes,
        )
        filesystem = FileSystem(
            store=store,
            mount=mount,
            refs=resolver,
            digests=digests,
            policy=policy,
            specs=settings.refs,
            ad_hoc=settings.ad_hoc,
            appearance=_appearance(settings, owner or (os.getuid(), os.getgid())),
            version=__version__,
            status=lambda: msgspec.json.encode(reports.status()),
            inflight=lambda: msgspec.json.encode(reports.inflight()),
            view=settings.view,
            deadline_s=settings.deadline_s,
            exposures=fetcher.exposures,
            told=indexes.told,
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

        yield System(
            settings=settings,
            store=store,
            metrics=metrics,
            fetcher=fetcher,
            resolver=resolver,
            inspector=inspector,
            filesystem=filesystem,
            mount=mount,
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


def _appearance(settings: Settings, owner: tuple[int, int]) -> Appearance:
    uid, gid = owner
    return Appearance(
        uid=uid,
        gid=gid,
        preserve_owner=settings.preserve_owner,
        suid=settings.suid,
        dev=settings.dev,
    )
