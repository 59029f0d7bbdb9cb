"""One mount's worth of distribution over real parts: store, fetcher, transports, resolver."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from cafs.distribution.archive import ArchiveHandler, Archives
from cafs.distribution.blob import BlobHandler
from cafs.distribution.digest import Digests
from cafs.distribution.docker import DockerHandler
from cafs.distribution.files import Files
from cafs.distribution.images import Images
from cafs.distribution.index_source import IndexSource
from cafs.distribution.indexing import Indexing
from cafs.distribution.interfaces import Handler, OpenTree
from cafs.distribution.merging import Merger
from cafs.distribution.parts import UrlParts
from cafs.distribution.policy import HostPolicy
from cafs.distribution.promoting import Promoting
from cafs.distribution.registry import Registry
from cafs.distribution.resolver import Resolver
from cafs.distribution.trees import Trees
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.bounds import Bounds
from cafs.model.digest import Digest
from cafs.model.limits import Limits
from cafs.model.mapping import MapRule, Route, mapped
from cafs.model.member import Kind
from cafs.model.ref import ArchiveRef, BlobRef, DigestRef, DockerRef, Ref, parse_ref
from cafs.model.spec import Platform, Pull, RefSpec
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key
from cafs.transport.authenticating import Authenticating
from cafs.transport.choosing import Choosing
from cafs.transport.file import FileTransport
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.metering import Metering
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from cafs.transport.retrying import Retrying, RetryPolicy
from cafs.transport.revalidating import Locator

QUICK = RetryPolicy(retries=2, initial_s=0.01, cap_s=0.05, jitter=False)
USUAL = Patience(60.0)


@dataclass
class World:
    """One mount: everything that resolving and opening needs, and what it counted."""

    store: Store
    fetcher: Fetcher
    metrics: Metrics
    resolver: Resolver
    digests: Digests
    specs: list[RefSpec] = field(default_factory=list)

    def spec(
        self,
        text: str,
        *,
        name: str = "",
        integrity: str | None = None,
        strip: int = 0,
        subdir: str = "",
        mirrors: tuple[str, ...] = (),
        platform: str = "",
        pull: Pull = "lock",
    ) -> RefSpec:
        """A ref of this mount, as its settings would give it."""
        system, _, machine = platform.partition("/")
        spec = RefSpec(
            name=name,
            ref=parse_ref(text),
            integrity=Digest.parse_integrity(integrity) if integrity else None,
            strip=strip,
            subdir=subdir,
            mirrors=mirrors,
            platform=Platform(system, machine) if platform else None,
            pull=pull,
        )
        self.specs.append(spec)
        return spec

    async def paths(self, opened: OpenTree) -> dict[str, str]:
        """Every path below the root, and what it is: a directory's ``/``, a target, the content."""
        found: dict[str, str] = {}
        trees, tree = self.store.trees, opened.record.number
        pending = [(opened.root, "")]
        while pending:
            parent, path = pending.pop()
            for number, each in trees.children(tree, parent, None, 1000):
                below = path + each.name.decode()
                entry = trees.entry(tree, each.link) if each.kind is Kind.HARD_LINK else each
                if entry.kind is Kind.DIRECTORY:
                    found[below] = "/"
                    pending.append((number, f"{below}/"))
                elif entry.kind is Kind.SYMLINK:
                    found[below] = f"-> {(entry.target or b'').decode()}"
                else:
                    content = opened.contents[entry.stream]
                    data = await content.read(entry.offset, entry.size, USUAL)
                    found[below] = data.decode()
        return dict(sorted(found.items()))

    async def tree(self, spec: RefSpec) -> dict[str, str]:
        """Open a ref and read all of it."""
        return await self.paths(await self.resolver.tree(spec, USUAL))

    async def read(self, content: Content) -> bytes:
        """All of the content."""
        return await content.read(0, content.size, USUAL)

    async def file(self, spec: RefSpec) -> bytes:
        """Open a ref as a file and read all of it."""
        return await self.read(await self.resolver.file(spec, USUAL))


class OpenWorld(Protocol):
    """Begins a mount over the test's store; several may follow each other."""

    def __call__(
        self,
        *,
        offline: bool = False,
        allowed: tuple[str, ...] = (),
        rules: tuple[MapRule, ...] = (),
        look_in: tuple[Path, ...] = (),
        indexes: IndexSource | None = None,
        quota: int | None = None,
    ) -> AbstractAsyncContextManager[World]:
        """``offline``: nobody may be asked. ``allowed``: hosts that settings name.

        ``rules``: where URLs are asked for. ``look_in``: where content is looked for first.
        ``indexes``: has those that a lock names. ``quota``: of the store.
        """


@pytest.fixture
def mounted(tmp_path: Path) -> OpenWorld:
    """Begins a mount over the test's one store."""

    @asynccontextmanager
    async def open_world(
        *,
        offline: bool = False,
        allowed: tuple[str, ...] = (),
        rules: tuple[MapRule, ...] = (),
        look_in: tuple[Path, ...] = (),
        indexes: IndexSource | None = None,
        quota: int | None = None,
    ) -> AsyncIterator[World]:
        metrics = Metrics()
        limits = HttpLimits(connect_s=2.0, head_s=5.0, stall_s=5.0)
        redirects = RedirectPolicy()
        web = Authenticating(
            Redirecting(Metering(HttpTransport(limits=limits), metrics), redirects), redirects
        )
        transport = Choosing({"http": web, "file": Metering(FileTransport(), metrics)})
        try:
            async with (
                open_store(tmp_path / "store", bounds=Bounds(quota, 0)) as store,
                open_fetcher(
                    store, metrics, offline=offline, policy=QUICK, look_in=look_in
                ) as fetcher,
            ):
                yield await _world(
                    store,
                    fetcher,
                    metrics,
                    transport,
                    offline=offline,
                    allowed=allowed,
                    route=partial(mapped, rules=rules),
                    indexes=indexes,
                )
        finally:
            await transport.aclose()

    return open_world


async def _world(
    store: Store,
    fetcher: Fetcher,
    metrics: Metrics,
    transport: Choosing,
    *,
    offline: bool,
    allowed: tuple[str, ...],
    route: Route,
    indexes: IndexSource | None,
) -> World:
    asking = Retrying(transport, QUICK, metrics)
    promoting = Promoting(store, fetcher, Limits())
    trees = Trees(store, fetcher, promoting)
    indexing = Indexing(store, fetcher, Limits(), indexes)
    archives = Archives(store, fetcher, trees, Limits(), indexing)
    parts = UrlParts(
        store=store,
        fetcher=fetcher,
        sources=transport,
        asking=asking,
        locator=Locator(asking, store.documents, metrics, route=route),
        route=route,
    )
    files = Files(store, fetcher, indexing, promoting)
    blobs = BlobHandler(parts, files)
    handlers: dict[type[Ref], Handler] = {
        BlobRef: blobs,
        DigestRef: blobs,
        ArchiveRef: ArchiveHandler(parts, archives, trees, files),
        DockerRef: DockerHandler(
            images=Images(store.blobs, Registry(asking, route)),
            merger=Merger(store, fetcher, trees, Limits(), indexing),
            trees=trees,
            fetcher=fetcher,
            transport=transport,
            policy=HostPolicy(frozenset(allowed)),
            route=route,
        ),
    }
    mount = await store.mounts.open(new_key(), "test")
    resolver = Resolver(handlers=handlers, store=store, mount=mount, offline=offline)
    specs: list[RefSpec] = []

    digests = Digests(
        store=store,
        resolver=resolver,
        specs=lambda: specs,
        fetcher=fetcher,
        archives=archives,
        trees=trees,
    )
    return World(store, fetcher, metrics, resolver, digests, specs)


@pytest.fixture
async def world(mounted: OpenWorld) -> AsyncIterator[World]:
    """One mount."""
    async with mounted() as one:
        yield one
