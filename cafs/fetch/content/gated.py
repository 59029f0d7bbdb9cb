"""Content of which no byte is handed out before all of it has passed the gate.

Two kinds: a blob with a pin, which must have the pin's digest; and content that nothing can put
together from several responses (no strong validator, no ranges, no size), which must come from one
response, whole.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio
from typing_extensions import override

from cafs.errors import DigestMismatchError, NotFoundError, StorageFullError
from cafs.fetch.content.feeding import Forward, Reading, hashed
from cafs.fetch.content.raw_ranges import LaneRanges
from cafs.fetch.content.unstored import Unstored
from cafs.fetch.flights.finding import Finding
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
from cafs.store.blobs.intake import LARGEST
from cafs.store.streams.witness import Seen


class GatedContent(Feed):
    """Fetches all on the first read of anything, checks it, and reads the blob from then on.

    A wrong digest hands out nothing, and is remembered for 30 s. Where there are several sources it
    is found out whose bytes were wrong, and the others bring the right ones.

    Concurrency: as ``Content``.
    """

    def __init__(
        self,
        blobs: Blobs,
        lane: Lane,
        works: Works[None],
        seal: Seal,
        metrics: Metrics,
        *,
        finding: Finding,
    ) -> None:
        self._blobs = blobs
        self._lane = lane
        self._works = works
        self._seal = seal
        self._metrics = metrics
        self._finding = finding
        self._blame = lane.downloader.blame
        self._deposit = deposit = lane.downloader.deposit
        self._unstored = Unstored(deposit, seal, lane.terms.key, lane.terms.name)
        self.refused: Callable[[DigestMismatchError], Awaitable[None]] | None = None
        """Told when the whole is not what the pin says."""
        self._verified: Digest | None = None
        self._feeding: Forward | None = None
        """The pass that reads all of it, and will see to the gate itself."""

    @property
    @override
    def name(self) -> str:
        return self._lane.terms.name

    @property
    @override
    def size(self) -> int:
        """Bytes; the caller has seen to it that they are known."""
        return self._lane.end

    @property
    @override
    def key(self) -> StreamKey:
        return self._lane.terms.key

    @override
    def present(self) -> int:
        return self._deposit.stored().total if self.digest() is None else self.size

    @override
    def digest(self) -> Digest | None:
        return self._seal.digest()

    @override
    def checked(self) -> bool:
        return True

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        if not self._readable() or patience.urgency() is Priority.PREFETCH:
            await self._works.join(("gate", self.key), self.name, self._admit, patience)
        unstored = self.digest() is None and self._unstored.digest() is not None
        if unstored and patience.urgency() is Priority.PREFETCH:
            raise self._deposit.shortage.stopped(self.name, self.size)

    def _readable(self) -> bool:
        return self.digest() is not None or self._unstored.digest() is not None

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        digest = self._verified or self.digest()
        local = digest is not None or self._unstored.digest() is not None
        self._metrics.add("fetch.hits" if local else "fetch.misses")
        if digest is not None:
            try:
                data = await self._blobs.read(digest, offset, length, self.key)
            except NotFoundError:
                self._verified = None  # deleted since: it is fetched again
            else:
                self._verified = digest
                return data
        # Held until it is read, as a stream or as the blob that this becomes.
        async with self._lane.downloader.hold():
            return await self._fetched(offset, length, patience)

    async def _fetched(self, offset: int, length: int, patience: Patience) -> bytes:
        """Read what need not be here, and whose stream is held."""
        while True:
            kept = self._unstored.read(offset, length)
            if kept is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                return kept
            await self.ensure(Span(offset, offset + length), patience)
            digest = self.digest()
            if digest is None:
                continue
            try:
                data = await self._blobs.read(digest, offset, length, self.key)
            except NotFoundError:
                continue
            self._verified = digest
            return data

    @override
    def ranges(self) -> Ranges | None:
        """Its bytes by range; None where they come all at once, or are small and come so anyway."""
        lane = self._lane
        if not lane.terms.pinned or lane.downloader.single or lane.end <= LARGEST:
            return None
        # From now on a whole may come together that nobody waits for.
        lane.landed = self._landed
        return LaneRanges(self, lane, self._blobs)

    @override
    def lazy(self) -> bool:
        return self._readable()

    @override
    def algorithms(self) -> tuple[str, ...]:
        return self._seal.algorithms

    def _landed(self) -> None:
        """Close the gate in the background, once the last range has come."""
        passing = self._feeding is not None and not self._feeding.released
        if not passing and self._lane.is_stored() and self.digest() is None:
            self._works.start(("gate", self.key), self._close_behind)

    async def _close_behind(self, work: Work[None]) -> None:
        """Let what came by ranges pass the gate; wrong, it is put aside, and fetched when read."""
        async with self._lane.downloader.hold():
            if self._lane.is_stored() and self.digest() is None:
                with suppress(NotWholeError):  # then it is closed when the rest has come again
                    seen = await hashed(self._lane, self._seal.algorithms, work)
                    with work.busy(CHECKING):
                        await self._close(seen)

    @override
    def feed(self) -> Feeder:
        # Bytes that must come from one response cannot be given away while it can still break.
        early = self._lane.terms.pinned and not self._readable()
        if not early:
            return Reading(self)
        forward = Forward(self._lane)
        self._feeding = forward
        return forward

    @override
    async def seal(self, seen: Seen | None, patience: Patience) -> Digest | None:
        digest = await self._sealed(seen, patience)
        if seen is not None:
            # What the pass saw need not be what is there now.
            self._seal.compare(seen.hasher)
        return digest

    async def _sealed(self, seen: Seen | None, patience: Patience) -> Digest:
        """Have what is there pass the gate, fetching again what was taken out of it."""
        while True:
            if self.digest() is None and not self._lane.is_stored():
                # What a pass saw was found to be damaged at its end, and was thrown away; or the
                # disk is full.
                await self.ensure(Span(0, self.size), patience)
            kept = self._unstored.digest()
            if self.digest() is None and kept is not None:
                return kept
            with suppress(NotWholeError):
                return await self._close(seen)

    @override
    def hopeful(self) -> bool:
        return self._blame.hopeful or self.digest() is not None

    @override
    async def look_around(self, patience: Patience) -> None:
        if self.digest() is None and self._seal.claims:
            terms = self._lane.terms
            await self._finding.find(
                self._seal.claims[0], patience, size=terms.size, media_type=self._seal.media_type
            )

    async def _admit(self, work: Work[None]) -> None:
        await self.look_around(work.patience())
        if work.priority() is Priority.PREFETCH:
            self._unstored.drop()  # it shall be stored, not only read
        async with self._lane.downloader.hold():
            while not self._readable():
                try:
                    await self._once(work)
                except DigestMismatchError:
                    if not self._blame.hopeful:
                        raise

    async def _once(self, work: Work[None]) -> None:
        lane = self._lane
        seen: Seen | None = None
        await self._take_over()
        if lane.terms.pinned and not lane.downloader.single and lane.end > LARGEST:
            seen = await hashed(lane, self._seal.algorithms, work)
        else:
            await lane.ensure(Span(0, lane.end), work.patience())
        if self.digest() is not None:
            return  # it was small, or another process was faster
        if lane.missing(Span(0, lane.end)):
            return  # another process has removed it, or a pass has found it wrong
        try:
            if lane.is_stored():
                with work.busy(CHECKING):
                    await self._close(seen)
                return
        except NotWholeError:
            return  # something was found to be wrong just now: it is fetched again
        except StorageFullError:
            ahead = work.priority() is Priority.PREFETCH
            if ahead and await self._deposit.shortage.relieve(0, Priority.PREFETCH):
                return  # it is tried again, as long as something makes way
            if work.priority() is Priority.PREFETCH:  # and no reader has come meanwhile
                raise
        await self._pass_in_memory(work)

    async def _pass_in_memory(self, work: Work[None]) -> None:
        try:
            await self._unstored.admit(self.size, work)
        except DigestMismatchError as error:
            await self._note_wrong(error)
            raise

    async def _note_wrong(self, error: DigestMismatchError) -> None:
        self._blame.wrong(error, self.size)
        if not self.size and self._lane.downloader.unsure:
            # A source has said so, and of nothing nothing is missing: nobody else would be asked.
            self._deposit.unlearn()
        if self.refused is not None:
            await self.refused(error)

    async def _take_over(self) -> None:
        """Keep, of a whole that was wrong, what the source sent that is asked alone now."""
        spared = self._blame.take_spared()
        if spared:
            with suppress(StorageFullError):  # then it is fetched again
                spans = await self._blobs.take_back(self.key, spared, self._lane.downloader.size)
                self._blame.spare(spans)

    async def _close(self, seen: Seen | None) -> Digest:
        """Pass the gate, or note that what came was wrong."""
        try:
            digest = await self._seal.close(seen, self.size)
        except DigestMismatchError as error:
            await self._note_wrong(error)
            raise
        if self._blame.unsettled:
            self._works.start(("blame", self.key), self._settle)
        else:
            self._blame.forget()
        return digest

    async def _settle(self, work: Work[None]) -> None:
        """Name those whose bytes were wrong; nobody waits for that."""
        patience = work.patience()
        await self._blame.settle(lambda offset, length: self.read(offset, length, patience))
