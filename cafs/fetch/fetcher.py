"""The fetcher: gives out content, makes trees of archives, prefetches, and tells what is under way.

It owns the nursery in which everything is fetched. Readers come and go; what they share goes on
here for as long as anybody wants it.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from pathlib import Path
from typing import Final

import trio

from cafs.fetch.content.exposing import Exposures
from cafs.fetch.content.member import MemberContent, Reopen
from cafs.fetch.content.vouching import Voucher
from cafs.fetch.contents import Contents, Unread
from cafs.fetch.flights.finding import Finding
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.overflow import Overflow
from cafs.fetch.flights.sealing import Learned
from cafs.fetch.flights.shortage import Shortage
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.giving import Giving
from cafs.fetch.interfaces import Content, Inflight, Patience, Priority, Ranges, Source
from cafs.fetch.passes.making import ARCHIVE, Making
from cafs.fetch.passes.planting import Planting, ranges_of
from cafs.fetch.prefetching import Haul
from cafs.fetch.progress import Progress
from cafs.fetch.sources.budget import Budget
from cafs.fetch.sources.failures import Failures
from cafs.fetch.sources.rating import Rating
from cafs.fetch.sources.slots import Slots
from cafs.metrics import Metrics
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.limits import Limits
from cafs.model.pacing import Pacing
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.model.spec import Verify
from cafs.store.store import Store
from cafs.transport.interfaces import Response
from cafs.transport.retrying import RetryPolicy

USUAL: Final = Patience(60.0)
"""The patience of those who name none."""
_POLICY: Final = RetryPolicy()
_LIMITS: Final = Limits()
_LOG = logging.getLogger(__name__)


class Fetcher:
    """Makes content present.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        metrics: Metrics,
        budget: Budget,
        policy: RetryPolicy,
        *,
        pacing: Pacing,
        look_in: Sequence[Path] = (),
        exposures: Exposures | None = None,
    ) -> None:
        self._store = store
        self._metrics = metrics
        slots = Slots(
            pacing.connections,
            pacing.per_host,
            pacing.prefetch_connections,
            rate=pacing.prefetch_rate,
            hurry=store.precedence,
        )
        self._means = Means(
            streams=store.streams,
            slots=slots,
            budget=budget,
            policy=policy,
            metrics=metrics,
            overflow=Overflow(),
            shortage=Shortage(nursery, store.evictor.make_room, store.free_bytes),
            settled=store.evictor.settled,
            bounds=lambda: store.room.bounds,
        )
        failures = Failures()
        self._works = Works[None](nursery, failures, metrics)
        passes = Works[TreeRecord](nursery, failures, metrics)
        self._planting = Planting(store, self._means, self._works, passes)
        self._finding = Finding(store, look_in, self._works, metrics)
        self.exposures = exposures or Exposures()
        """What was handed out before it was checked."""
        self._contents = Contents(
            nursery,
            store,
            self._means,
            failures,
            self._works,
            finding=self._finding,
            exposures=self.exposures,
        )
        self._giving = Giving(store, self._contents)

    async def content(
        self,
        part: Part,
        sources: Sequence[Source],
        *,
        name: str,
        learned: Learned | None = None,
        patience: Patience = USUAL,
        verify: Verify = "block",
    ) -> Content:
        """The content of a part. One part has one content, whoever asks for it.

        It is as ``Giving.content``; ``patience`` is for content of unknown size, which is fetched
        before this returns.

        Raises:
            CafsError: as there.

        Cancellation: as there.
        """
        return await self._giving.content(
            part, sources, name=name, learned=learned, patience=patience, verify=verify
        )

    async def lend(
        self,
        part: Part,
        sources: Sequence[Source],
        first: Response,
        *,
        name: str,
        learned: Learned | None = None,
        unread: Unread | None = None,
    ) -> bool:
        """Let the content of a part use a response that is open already; as ``Giving.lend``.

        Raises:
            SizeMismatchError: as there.

        Cancellation: as there.
        """
        return await self._giving.lend(
            part, sources, first, name=name, learned=learned, unread=unread
        )

    async def find(self, digest: Digest, patience: Patience = USUAL) -> Descriptor | None:
        """Content by its digest, from the store or from another one on this machine; fetches none.

        Raises:
            CafsError: as ``Finding.find``.

        Cancellation: a copy that was begun goes on for a while.
        """
        return await self._finding.find(digest, patience)

    def member(self, digest: Digest, reopen: Reopen) -> MemberContent | None:
        """Content that is a member of an archive which the store has; None when none has it.

        ``reopen`` opens what a member lies in, where that has left the store.
        """
        places = self._store.members.find(digest)
        if not places:
            return None
        return MemberContent(self._store, digest, places[0], reopen, self._metrics)

    def ranges(self, raw: Content) -> Ranges | None:
        """The bytes of raw content by range, which have passed no gate; None where it has none."""
        return ranges_of(raw)

    def decoded(
        self,
        record: TreeRecord,
        stream: int,
        raw: Content,
        making: Making = ARCHIVE,
        voucher: Voucher | None = None,
    ) -> Content:
        """The content of one stream of a tree; as ``Planting.decoded``."""
        return self._planting.decoded(record, stream, raw, making, voucher)

    async def plant(
        self,
        raw: Content,
        *,
        name: str,
        media_type: str,
        patience: Patience,
        limits: Limits = _LIMITS,
        making: Making = ARCHIVE,
        key: StreamKey | None = None,
    ) -> TreeRecord:
        """Make the tree of an archive, or take it from the store; as ``Planting.plant``.

        Raises:
            CafsError: as there.
            TypeError: ``raw`` is not from ``content``.

        Cancellation: as there.
        """
        return await self._planting.plant(
            raw,
            name=name,
            media_type=media_type,
            patience=patience,
            limits=limits,
            making=making,
            key=key or raw.key,
        )

    async def prefetch(
        self,
        contents: Sequence[Content],
        progress: Progress,
        patience: Patience = Patience(60.0, Priority.PREFETCH),  # noqa: B008 - a frozen value
    ) -> None:
        """Bring all of several contents, and say how far it is.

        One that fails does not stop the others. Readers go first. What it brings may go again once
        this has ended; see ``haul``.

        Raises:
            StorageFullError: there is no room for them.
            CafsError: that of the first that failed, in their order, after all were tried.

        Cancellation: what has come stays.
        """
        async with self.haul() as haul:
            await haul.bring(contents, progress, patience)

    def haul(self) -> Haul:
        """A prefetch of several things, which is to end with all of them here."""
        return Haul(self._store)

    def behind(self, key: Hashable, run: Callable[[Work[None]], Awaitable[None]]) -> None:
        """Do something in the background that nobody waits for, unless it is under way."""
        self._works.start(key, run)

    def inflight(self) -> list[Inflight]:
        """Every fetch that is under way, oldest first."""
        flights = [each for lane in self._contents.lanes() for each in lane.inflight()]
        return sorted(flights, key=lambda flight: flight.since)

    def mirrors(self) -> list[Rating]:
        """What is known of every host that was asked."""
        return self._means.ratings.all()

    def cancel(self, id_: str | None = None) -> list[str]:
        """End what is under way for everybody who waits for it: they get CancelledError.

        Args:
            id_: whose fetches, by ``Inflight.id``; None for all.

        Returns:
            the names of what was cancelled; none when nothing of that is under way.
        """
        chosen = [lane for lane in self._contents.lanes() if id_ in {None, lane.id}]
        return [lane.terms.name for lane in chosen if lane.cancel()]
