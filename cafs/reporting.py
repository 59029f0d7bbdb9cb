"""What ``.cafs/status.json`` and ``cafs status`` say: facts about refs, fetching and requests.

Everything is read from the store and from counters: a status costs no request to any source, and
the same functions serve a worker and a command that runs without one.
"""

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from cafs import __version__
from cafs.control.fetches import FetchStatus, fetch_status
from cafs.fetch.sources.rating import Rating
from cafs.metrics import Metrics
from cafs.model.address import shown
from cafs.model.identity import located_stream
from cafs.model.resolved import Part, Resolved
from cafs.model.spec import RefSpec
from cafs.settings.values import Settings
from cafs.store.store import Store, open_store

if TYPE_CHECKING:
    from cafs.distribution.resolver import Resolver
    from cafs.fetch.fetcher import Fetcher

_OPERATION: Final = "fuse."


class RefStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One named ref. ``size`` and ``present`` are bytes as the sources send them.

    ``state`` is ``unread`` (the mount has not asked what it means; without a mount, nobody has),
    ``resolved`` or ``failed``; ``error`` is the last failure. ``size`` is None while it is not
    known. ``sources`` are URLs without secrets.
    """

    name: str
    ref: str
    state: str
    digest: str | None
    size: int | None
    present: int
    sources: tuple[str, ...]
    error: str | None


class MirrorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One host that bytes were asked of, since the worker started.

    ``state`` is ``ok``, ``slow`` (another host of the same content is much faster), ``failing`` (it
    failed or refused when it was asked last) or ``wrong`` (its bytes were not what was promised);
    ``why`` says it of all but ``ok``, and is empty for that. ``bytes`` came from it, ``rate`` is
    bytes a second, ``latency`` seconds to the head of an answer; both are None until measured.
    """

    host: str
    state: str
    why: str
    bytes: int
    rate: float | None
    latency: float | None


class RoomStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How full the store is, in bytes; its disk has ``store_free`` left.

    ``blobs``, ``streams`` and ``quarantine`` (what was put aside, being wrong) add up to ``used``.
    ``quota`` is None where there is no bound.
    """

    used: int
    blobs: int
    streams: int
    quarantine: int = 0
    quota: int | None
    min_free: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. Counters are those of ``cafs.metrics``, since the worker started.

    ``fetched`` bytes came from sources, ``found`` ones from other stores on this machine.
    ``hit_rate`` is the part of reads that found their bytes in the store, None before the first.
    ``requests`` counts what the kernel asked the worker, by operation: what is answered from the
    kernel's caches is not among them. ``notes`` tell what of cafs.lock does not count.
    """

    version: str
    mount_point: str | None
    view: str
    pid: int | None
    started_ns: int | None
    store: str
    store_free: int
    room: RoomStatus
    fetched: int
    found: int
    hit_rate: float | None
    refs: tuple[RefStatus, ...]
    inflight: tuple[FetchStatus, ...]
    mirrors: tuple[MirrorStatus, ...]
    requests: dict[str, int]
    counters: dict[str, int]
    notes: tuple[str, ...] = ()


def present(store: Store, part: Part) -> int:
    """Bytes of a part that are local."""
    if part.digest is not None and store.blobs.stat(part.digest) is not None:
        return part.size if part.size is not None else 0
    stream = store.streams.find(located_stream(part))
    return stream.present().total if stream is not None else 0


def _last(store: Store, spec: RefSpec) -> Resolved | None:
    """What a ref means by its lock, or else meant when somebody last asked."""
    return spec.locked or store.references.latest(spec.source)


def _digest(store: Store, resolved: Resolved | None) -> str | None:
    """The digest of what a ref means: its pin, or what is known since it was read whole."""
    if resolved is None:
        return None
    if resolved.digest is not None:
        return str(resolved.digest)
    stream = store.streams.find(located_stream(resolved.parts[0]))
    known = stream.digest() if stream is not None else None
    return str(known) if known is not None else None


def ref_status(
    store: Store,
    spec: RefSpec,
    resolved: Resolved | None,
    error: str | None,
    *,
    last: Resolved | None = None,
) -> RefStatus:
    """What is known of a ref.

    Args:
        store: where its bytes are.
        spec: the ref.
        resolved: what it means for the mount; None when the mount has not asked yet.
        error: the last failure.
        last: what it meant when somebody last asked: told of while ``resolved`` is None.
    """
    state = "failed" if error else "unread" if resolved is None else "resolved"
    resolved = resolved or last
    parts = resolved.parts if resolved is not None else ()
    sizes = [part.size for part in parts]
    known = [size for size in sizes if size is not None]
    return RefStatus(
        name=spec.name,
        ref=spec.ref.shown,
        state=state,
        digest=_digest(store, resolved),
        size=sum(known) if parts and len(known) == len(sizes) else None,
        present=sum(present(store, part) for part in parts),
        sources=tuple(dict.fromkeys(shown(url) for part in parts for url in part.urls)),
        error=error,
    )


def mirror_status(ratings: Iterable[Rating]) -> tuple[MirrorStatus, ...]:
    """The hosts that were asked."""
    return tuple(
        MirrorStatus(
            host=each.host,
            state=each.state,
            why=each.why,
            bytes=each.received,
            rate=None if each.rate is None else round(each.rate),
            latency=None if each.latency_s is None else round(each.latency_s, 6),
        )
        for each in ratings
    )


def status(
    store: Store,
    metrics: Metrics,
    refs: Iterable[RefStatus],
    *,
    inflight: tuple[FetchStatus, ...] = (),
    mirrors: tuple[MirrorStatus, ...] = (),
    mount_point: str | None = None,
    view: str = "/",
    pid: int | None = None,
    started_ns: int | None = None,
    notes: tuple[str, ...] = (),
) -> Status:
    """Put the facts together."""
    counters = metrics.snapshot()
    usage = store.room.usage()
    reads = counters["fetch.hits"] + counters["fetch.misses"]
    return Status(
        version=__version__,
        mount_point=mount_point,
        view=view,
        pid=pid,
        started_ns=started_ns,
        store=str(store.path),
        store_free=usage.free,
        room=RoomStatus(
            used=usage.total,
            blobs=usage.blobs,
            streams=usage.streams,
            quarantine=usage.quarantine,
            quota=usage.quota,
            min_free=usage.min_free,
        ),
        fetched=counters["fetch.bytes"],
        found=counters["fetch.found"],
        hit_rate=round(counters["fetch.hits"] / reads, 4) if reads else None,
        refs=tuple(refs),
        inflight=inflight,
        mirrors=mirrors,
        requests={
            name.removeprefix(_OPERATION): count
            for name, count in counters.items()
            if name.startswith(_OPERATION)
        },
        counters=counters,
        notes=notes,
    )


def uptime_s(of: Status) -> float | None:
    """Seconds since the worker started; None without a worker."""
    return None if of.started_ns is None else (time.time_ns() - of.started_ns) / 1e9


class Reports:
    """What a running worker says of itself; ``description`` is its mount point.

    ``notes`` gives lines about indexes that are not as they should be.

    Concurrency: any task of the worker's run; nothing here awaits.
    """

    def __init__(
        self,
        settings: Settings,
        description: str,
        *,
        store: Store,
        metrics: Metrics,
        fetcher: "Fetcher",
        resolver: "Resolver",
        notes: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._settings = settings
        self._description = description
        self._store = store
        self._metrics = metrics
        self._fetcher = fetcher
        self._resolver = resolver
        self._notes = notes
        self._started_ns = time.time_ns()

    def inflight(self) -> tuple[FetchStatus, ...]:
        """The fetches under way."""
        return fetch_status([*self._resolver.inflight(), *self._fetcher.inflight()], time.time())

    def status(self) -> Status:
        """The whole."""
        return status(
            self._store,
            self._metrics,
            (self._ref(spec) for spec in self._settings.refs),
            inflight=self.inflight(),
            mirrors=mirror_status(self._fetcher.mirrors()),
            mount_point=self._description,
            view=self._settings.view,
            pid=os.getpid(),
            started_ns=self._started_ns,
            notes=(*self._settings.notes, *self._notes()),
        )

    def _ref(self, spec: RefSpec) -> RefStatus:
        resolved, error = self._resolver.peek(spec), self._resolver.error(spec)
        if resolved is not None:
            error = self._fetcher.exposures.error(resolved.parts, spec.verify) or error
        last = _last(self._store, spec) if resolved is None else None
        return ref_status(self._store, spec, resolved, error, last=last)


def status_without_mount(settings: Settings) -> Status:
    """What the store knows of the named refs, when nothing is mounted; asks nobody."""
    return trio.run(_status_without_mount, settings)


async def _status_without_mount(settings: Settings) -> Status:
    async with open_store(settings.store, bounds=settings.bounds) as store:
        refs = (ref_status(store, spec, _last(store, spec), None) for spec in settings.refs)
        return status(store, Metrics(), refs, notes=settings.notes)
