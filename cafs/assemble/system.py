"""Everything that a verb needs, put together. Read it top to bottom."""

import gc
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from cafs import __version__
from cafs.assemble.distribution import Distribution, distribution
from cafs.assemble.transports import open_transport
from cafs.distribution.resolver import Resolver
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.reporting import Reports
from cafs.settings.values import Settings
from cafs.store.store import Store, open_store
from cafs.store.tenancy import Tenancy, passing
from cafs.transport.retrying import RetryPolicy
from cafs.vfs.attributes import Appearance
from cafs.vfs.filesystem import FileSystem

if TYPE_CHECKING:
    from cafs.distribution.inspecting import Inspector

_LOG: Final = logging.getLogger("cafs")
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
        meanings = distribution(
            settings,
            store,
            mount,
            fetcher=fetcher,
            transport=transport,
            metrics=metrics,
            retries=retries,
            eager=eager,
        )
        reports = Reports(
            settings,
            description,
            store=store,
            metrics=metrics,
            fetcher=fetcher,
            resolver=meanings.resolver,
            notes=meanings.indexes.notes,
        )
        filesystem = _filesystem(
            settings,
            store,
            mount,
            fetcher=fetcher,
            meanings=meanings,
            reports=reports,
            owner=owner or (os.getuid(), os.getgid()),
        )
        yield System(
            settings=settings,
            store=store,
            metrics=metrics,
            fetcher=fetcher,
            resolver=meanings.resolver,
            inspector=meanings.inspector,
            filesystem=filesystem,
            mount=mount,
        )


def _filesystem(
    settings: Settings,
    store: Store,
    mount: int,
    *,
    fetcher: Fetcher,
    meanings: Distribution,
    reports: Reports,
    owner: tuple[int, int],
) -> FileSystem:
    """What shows all of it as files."""
    return FileSystem(
        store=store,
        mount=mount,
        refs=meanings.resolver,
        digests=meanings.digests,
        policy=meanings.policy,
        specs=settings.refs,
        ad_hoc=settings.ad_hoc,
        appearance=_appearance(settings, owner),
        version=__version__,
        status=lambda: msgspec.json.encode(reports.status()),
        inflight=lambda: msgspec.json.encode(reports.inflight()),
        view=settings.view,
        deadline_s=settings.deadline_s,
        exposures=fetcher.exposures,
        told=meanings.indexes.told,
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
