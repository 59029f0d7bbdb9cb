"""The fetcher: gives out content, makes trees of archives, prefetches, and tells what is under way.

It owns the nursery in which everything is fetched. Readers come and go; what they share goes on
here for as long as anybody wants it.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

import trio
from cachetools import LRUCache

from cafs.errors import CafsError, SizeMismatchError
from cafs.fetch.blob import BlobContent
from cafs.fetch.budget import Account, Budget
from cafs.fetch.decoded import DecodedContent
from cafs.fetch.downloading import Downloader
from cafs.fetch.failures import Failures
from cafs.fetch.first_pass import LINGER_S, PASSES, FirstPass, complete_tree
from cafs.fetch.gated import GatedContent
from cafs.fetch.interfaces import Content, Feed, Inflight, Patience, Priority, Source
from cafs.fetch.judging import Terms
from cafs.fetch.lane import Lane
from cafs.fetch.making import ARCHIVE, Making
from cafs.fetch.means import Means
from cafs.fetch.planted import PlantedContent
from cafs.fetch.prefetching import bring_all
from cafs.fetch.progress import Progress
from cafs.fetch.ranged import RangedContent
from cafs.fetch.rating import Rating
from cafs.fetch.sealing import Learned, Seal
from cafs.fetch.slots import Slots
from cafs.fetch.work import Works
from cafs.metrics import Metrics
from cafs.model.identity import StreamKey, located_stream
from cafs.model.limits import Limits
from cafs.model.pacing import USUAL as PACING, Pacing
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.store.store import Store
from cafs.transport.interfaces import Head, Response
from cafs.transport.retrying import RetryPolicy

UNSIZED_LIMIT: Final = 1 << 30
"""Bytes that are fetched at most to find out a size that no source tells."""
USUAL: Final = Patience(60.0)
"""The patience of those who name none."""
_FIRST_S: Final = 5.0
"""How long a response that is open already waits for its first reader."""
_KEPT: Final = 256
"""Contents that are kept though nobody holds them: the next read of them is soon."""
_WHOLE: Final = 200
_PARTIAL: Final = 206
_TOLD: Final = 1
"""Bytes that are asked for to be told a size; they are not worth a request's place."""
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
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._metrics = metrics
        self._budget = budget
        self._slots = Slots(
            pacing.connections,
            pacing.per_host,
            pacing.prefetch_connections,
            rate=pacing.prefetch_rate,
            hurry=store.precedence,
        )
        self._threads = trio.CapacityLimiter(PASSES)
        self._means = Means(
            streams=store.streams, slots=self._slots, budget=budget, policy=policy, metrics=metrics
        )
        self._failures = Failures()
        self._works = Works[None](nursery, self._failures, metrics)
        self._passes = Works[TreeRecord](nursery, self._failures, metrics)
        self._lanes: WeakValueDictionary[StreamKey, Lane] = WeakValueDictionary()
        self._contents: WeakValueDictionary[StreamKey, Feed] = WeakValueDictionary()
        self._kept: LRUCache[StreamKey, Feed] = LRUCache(_KEPT)

    async def content(
        self,
        part: Part,
        sources: Sequence[Source],
        *,
        name: str,
        first: Response | None = None,
        learned: Learned | None = None,
        patience: Patience = USUAL,
    ) -> Content:
        """The content of a part. One part has one content, whoever asks for it.

        Args:
            part: what is promised.
            sources: where it can be had, best first; content without a pin uses only the first.
            name: what people call it.
            first: a response with the whole body, open already; used if the content wants it, and
                closed in any case.
            learned: told which blob it is, once content without a pin has been seen whole.
            patience: for content of unknown size, which is fetched before this returns.

        Raises:
            SizeMismatchError: the store has the digest, and it is not of the promised size.
            CafsError: as ``Content.ensure``, when the size had to be found out.

        Cancellation: no effect, but ``first`` is closed.
        """
        if first is not None:
            await self.lend(part, sources, first, name=name, learned=learned)
        content, lane = self._known(part, sources, name, learned)
        if lane is not None and lane.downloader.unsure:
            # With a pin, the size that a source told at last may be that of an error page.
            await content.ensure(Span(0, lane.end), patience)
        if part.digest is None and learned is not None:
            await self._remind(content, learned)
        return content

    async def lend(
        self,
        part: Part,
        sources: Sequence[Source],
        first: Response,
        *,
        name: str,
        learned: Learned | None = None,
    ) -> None:
        """Let the content of a part, which will be read soon, use a response that is open already.

        It is of use when its body is whole, or has the first bytes of what ranges can be had of.

        The arguments are those of ``content``. The response is closed when the content has no use
        for it, or nobody reads for a few seconds.

        Raises:
            SizeMismatchError: the store has the digest, and it is not of the promised size.

        Cancellation: the response is closed.
        """
        lent = False
        try:
            content, lane = self._known(part, sources, name, learned)
            if lane is not None and content.digest() is None:
                lent = self._lend(lane, first, sources[0].url)
        finally:
            if not lent:
                with trio.CancelScope(shield=True):
                    await first.aclose()

    def decoded(
        self, record: TreeRecord, stream: int, raw: Content, making: Making = ARCHIVE
    ) -> Content:
        """The content of one stream of a tree; ``raw`` is that of the part that it comes from.

        ``making`` is what the pass made that wrote the stream.
        """
        what = record.streams[stream]
        if not what.rules:
            return raw
        if what.rules != "tar":
            return DecodedContent(
                self._store, record, stream, raw, works=self._works, metrics=self._metrics
            )
        plant = partial(self._replant, raw, making)
        return PlantedContent(self._store.streams, what, raw.name, plant, self._metrics)

    async def plant(
        self,
        raw: Content,
        *,
        name: str,
        media_type: str,
        patience: Patience,
        limits: Limits = _LIMITS,
        making: Making = ARCHIVE,
    ) -> TreeRecord:
        """Make the tree of an archive, or take it from the store. All who ask share one pass.

        Args:
            raw: the archive, as ``content`` gave it.
            name: what errors call it; its suffix must not contradict the bytes.
            media_type: what the source calls it, for errors.
            patience: bounds the time in which no byte comes.
            limits: on what it may hold.
            making: what the pass makes of the members.

        Raises:
            MalformedError: damaged, hostile, or something else than its name says.
            UnsupportedError: no archive.
            TypeError: ``raw`` is not from ``content``.
            CafsError: as ``Content.ensure``.

        Cancellation: the pass goes on for five minutes, or for others.
        """
        if not isinstance(raw, BlobContent | GatedContent | RangedContent):
            raise TypeError(f"{name}: a pass needs raw content, not {type(raw).__name__}")
        identity = making.identity(raw.key)
        found = complete_tree(self._store, identity)
        if found is not None:
            return found
        one = FirstPass(
            raw,
            self._store,
            making=making,
            name=name,
            media_type=media_type,
            limits=limits,
            threads=self._threads,
        )
        return await self._passes.join(
            ("pass", identity), name, one.run, patience, linger_s=LINGER_S
        )

    async def prefetch(
        self,
        contents: Sequence[Content],
        progress: Progress,
        patience: Patience = Patience(60.0, Priority.PREFETCH),  # noqa: B008 - a frozen value
    ) -> None:
        """Bring all of several contents, and say how far it is.

        One that fails does not stop the others. Readers go first.

        Raises:
            CafsError: that of the first that failed, in their order, after all were tried.

        Cancellation: what has come stays.
        """
        await bring_all(contents, progress, patience)

    def inflight(self) -> list[Inflight]:
        """Every fetch that is under way, oldest first."""
        flights = [each for lane in self._lanes.values() for each in lane.inflight()]
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
        chosen = [lane for lane in self._lanes.values() if id_ in {None, lane.id}]
        return [lane.terms.name for lane in chosen if lane.cancel()]

    def _known(
        self, part: Part, sources: Sequence[Source], name: str, learned: Learned | None
    ) -> tuple[Feed, Lane | None]:
        """The content and its lane, made where they are not there yet."""
        key = located_stream(part)
        content, lane = self._contents.get(key), self._lanes.get(key)
        if content is None or (lane is None and sources):
            content, lane = self._make(key, part, sources, name, learned)
            self._contents[key] = content
            if lane is not None:
                self._lanes[key] = lane
        elif lane is not None and part.digest is not None:
            lane.downloader.sources.add(sources)
        self._kept[key] = content
        return content, lane

    def _make(
        self,
        key: StreamKey,
        part: Part,
        sources: Sequence[Source],
        name: str,
        learned: Learned | None,
    ) -> tuple[Feed, Lane | None]:
        blobs, pin = self._store.blobs, part.digest
        known = None if pin is None else blobs.stat(pin)
        if known is not None and part.size not in {None, known.size}:
            raise SizeMismatchError(name, expected=part.size or 0, actual=known.size)
        if known is not None and not sources:
            return BlobContent(blobs, known, key, name, self._metrics), None
        stream = self._store.streams.find(key)
        found = None if stream is None else stream.size
        terms = Terms(
            name=name,
            key=key,
            size=part.size if known is None else known.size,
            validator=part.validator,
            pinned=pin is not None,
            ranges=part.ranges and (pin is not None or part.validator.strong),
            limit=UNSIZED_LIMIT,
        )
        lane = self._lane(terms, sources if terms.pinned else sources[:1])
        if terms.size is None:
            lane.downloader.size = found
        seal = Seal(
            blobs,
            self._store.streams,
            key,
            name=name,
            media_type=part.media_type,
            claims=() if pin is None else (pin,),
            metrics=self._metrics,
            learned=learned,
        )
        if terms.pinned or lane.downloader.single:
            return GatedContent(blobs, lane, self._works, seal, self._metrics), lane
        return RangedContent(lane, self._works, seal, self._metrics), lane

    def _lane(self, terms: Terms, sources: Sequence[Source]) -> Lane:
        return Lane(
            self._nursery,
            Downloader(terms, self._means, list(sources)),
            failures=self._failures,
            budget=self._budget,
            slots=self._slots,
            metrics=self._metrics,
        )

    def _lend(self, lane: Lane, first: Response, url: str) -> bool:
        """Keep an open response for the lane's first flight, for a while; whether it is of use."""
        if lane.downloader.first is not None or not _fits(first.head, lane.downloader.single):
            return False
        lane.downloader.first, lane.downloader.first_url = first, url
        self._nursery.start_soon(self._expire, lane, first)
        return True

    async def _expire(self, lane: Lane, first: Response) -> None:
        try:
            await trio.sleep(_FIRST_S)
        finally:
            if lane.downloader.first is first:
                lane.downloader.first = None
                with trio.CancelScope(shield=True):
                    await first.aclose()

    async def _remind(self, content: Feed, learned: Learned) -> None:
        """Tell what content is that was whole before; whoever told it then may have failed."""
        digest = content.digest()
        known = None if digest is None else self._store.blobs.stat(digest)
        if known is None:
            return
        try:
            await learned(known)
        except CafsError as error:
            _LOG.info("fetch.learned.failed: %s", error.line)

    async def _replant(self, raw: Content, making: Making, patience: Patience) -> None:
        await self.plant(raw, name=raw.name, media_type="", patience=patience, making=making)


def _fits(head: Head, single: bool) -> bool:
    """Whether a body is of use: all of it where that is needed, else its first bytes."""
    if single:
        return head.status == _WHOLE
    span = head.span if head.status == _PARTIAL else None
    return span is not None and not span.start and span.length > _TOLD


@asynccontextmanager
async def open_fetcher(
    store: Store,
    metrics: Metrics,
    *,
    budget: int | None = None,
    mount: int | None = None,
    offline: bool = False,
    policy: RetryPolicy = _POLICY,
    pacing: Pacing = PACING,
) -> AsyncIterator[Fetcher]:
    """Open a fetcher over a store.

    Args:
        store: where everything goes.
        metrics: counts.
        budget: bytes that may be fetched; None for any number.
        mount: for whose life that is meant, by its number; None for this fetcher's own.
        offline: whether nothing may be fetched.
        policy: how failed requests are made again. Its transports should not retry by themselves:
            here it is known who waits for how long, and which source comes next.
        pacing: how many requests are made at once, and how much prefetches receive.

    Cancellation: everything under way ends; what has come stays.
    """
    account = None if mount is None else Account(store.mounts, mount)
    allowance = Budget(budget, offline=offline, account=account)
    try:
        async with trio.open_nursery() as nursery:
            if account is not None:
                nursery.start_soon(allowance.keep)
            yield Fetcher(nursery, store, metrics, allowance, policy, pacing=pacing)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Nothing in the nursery raises but its body: what that raised goes out as it was.
        if len(group.exceptions) == 1:
            failure = group.exceptions[0]
            raise failure from failure.__cause__
        raise
