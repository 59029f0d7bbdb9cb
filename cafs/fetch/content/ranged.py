"""Content without a pin that one strong validator holds together: any range, at any time."""

from typing_extensions import override

from cafs.errors import StorageFullError
from cafs.fetch.content.feeding import Forward
from cafs.fetch.content.raw_ranges import LaneRanges
from cafs.fetch.flights.lane import Lane
from cafs.fetch.flights.sealing import CHECKING, Seal
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Feed, Feeder, Patience, Priority, Ranges
from cafs.metrics import Metrics
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.blobs.admission import NotWholeError
from cafs.store.blobs.blobs import Blobs
from cafs.store.streams.witness import Seen


class RangedContent(Feed):
    """Fetches the ranges that are read, all of one version.

    When it has become whole, it is hashed and kept as a blob.

    Concurrency: as ``Content``.
    """

    def __init__(
        self, blobs: Blobs, lane: Lane, works: Works[None], seal: Seal, metrics: Metrics
    ) -> None:
        self._lane = lane
        self._ranges = LaneRanges(self, lane, blobs)
        self._works = works
        self._seal = seal
        self._metrics = metrics
        self._deposit = lane.downloader.deposit
        lane.landed = self._landed

    @property
    @override
    def name(self) -> str:
        return self._lane.terms.name

    @property
    @override
    def size(self) -> int:
        return self._lane.end

    @property
    @override
    def key(self) -> StreamKey:
        return self._lane.terms.key

    @override
    def present(self) -> int:
        return self._deposit.stored().total

    @override
    def digest(self) -> Digest | None:
        return self._seal.digest()

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        """As ``Content.ensure``; all of it means that it is a blob then, but on a full disk."""
        wanted = span.clamp(self.size)
        await self._lane.ensure(wanted, patience)
        if wanted != Span(0, self.size) or self.digest() is not None:
            return
        try:
            if self._lane.is_stored():
                await self._works.join(("gate", self.key), self.name, self._admit, patience)
            elif patience.urgency() is Priority.PREFETCH and self._deposit.overflow.spans(self.key):
                raise self._deposit.shortage.stopped(self.name, self.size - self.present())
        except StorageFullError:
            # It can be read all the same, and who reads wants no more; he may have come meanwhile.
            if patience.urgency() is Priority.PREFETCH:
                raise

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        span = Span(offset, offset + length).clamp(self.size)
        data = await self._lane.read(span)
        self._metrics.add("fetch.misses" if data is None else "fetch.hits")
        self._lane.passed(span)
        if data is not None:
            return data
        async with self._lane.downloader.hold(span):  # until it is read
            while data is None:
                await self._lane.ensure(span, patience)
                data = await self._lane.read(span)
        return data

    @override
    def ranges(self) -> Ranges:
        return self._ranges

    @override
    def lazy(self) -> bool:
        return True

    @override
    def algorithms(self) -> tuple[str, ...]:
        return self._seal.algorithms

    @override
    def feed(self) -> Feeder:
        return Forward(self._lane)

    @override
    async def seal(self, seen: Seen | None, patience: Patience) -> Digest | None:
        if not self._lane.is_stored():
            return None
        try:
            return await self._seal.close(seen, self.size)
        except NotWholeError:
            return None

    @override
    def hopeful(self) -> bool:
        return self.digest() is not None

    def _landed(self) -> None:
        """Hash it in the background, once the last range has come."""
        if self._lane.is_stored() and self.digest() is None:
            self._works.start(("gate", self.key), self._admit)

    async def _admit(self, work: Work[None]) -> None:
        shortage = self._deposit.shortage
        async with self._lane.downloader.hold():
            while self._lane.is_stored() and self.digest() is None:
                try:  # room may have been made in between
                    with work.busy(CHECKING):
                        await self._seal.close(None, self.size)
                except NotWholeError:
                    break  # it is fetched again when somebody reads it
                except StorageFullError:
                    ahead = work.waiters and work.priority() is Priority.PREFETCH
                    if not ahead or not await shortage.relieve(0, Priority.PREFETCH):
                        raise
        work.beat()
