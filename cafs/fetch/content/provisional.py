"""Content with a pin of which any range is read as it arrives; the whole is checked behind it.

It shares its lane and its stream with the ``GatedContent`` of the same digest, which hands out
nothing before the gate: each ref gets what it asked for, and nothing is fetched twice. Here is what
makes the difference good again: what is handed out is noted first (``exposing``), the rest follows
at the priority of prefetching, and what turns out to be wrong is not read any more.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio
from typing_extensions import override

from cafs.errors import CafsError, DigestMismatchError
from cafs.fetch.content.exposing import Exposures
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.flights.lane import Lane
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Feed, Feeder, Patience, Priority, Ranges
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.blobs.intake import LARGEST
from cafs.store.store import Store
from cafs.store.streams.stream import Stream
from cafs.store.streams.witness import Seen
from cafs.store.tables.records import Incarnation

_PIECE: Final = 1 << 20
_LOG: Final = logging.getLogger("cafs.fetch")


def suits(lane: Lane) -> bool:
    """Whether reading before the whole is checked brings anything: there are ranges, and many."""
    return lane.terms.pinned and not lane.downloader.single and lane.end > LARGEST


class ProvisionalContent(Feed):
    """Fetches the ranges that are read, and behind them all the rest, to be checked.

    Args:
        store: where everything goes.
        lane: of the content.
        gated: what hands it out once it has passed its gate, and sees to that.
        works: where it is followed up.
        exposures: what the mount handed out before it was checked.
        means: says whether all of it has room.

    Concurrency: as ``Content``.
    """

    def __init__(
        self,
        store: Store,
        lane: Lane,
        gated: GatedContent,
        *,
        works: Works[None],
        exposures: Exposures,
        means: Means,
    ) -> None:
        self.gated = gated
        self._store = store
        self._lane = lane
        self._works = works
        self._exposures = exposures
        self._means = means
        self._scopes: set[trio.CancelScope] = set()
        self._looked = False
        self._unchecked_by = ""
        gated.refused = self._refused

    @property
    @override
    def name(self) -> str:
        return self.gated.name

    @property
    @override
    def size(self) -> int:
        return self.gated.size

    @property
    @override
    def key(self) -> StreamKey:
        return self.gated.key

    @override
    def present(self) -> int:
        return self.gated.present()

    @override
    def digest(self) -> Digest | None:
        return self.gated.digest()

    @override
    def checked(self) -> bool:
        return self.digest() is not None

    async def settled(self) -> Incarnation | None:
        """What is being handed out without having been checked; None where nothing is.

        What is read from then on, as long as this is its incarnation, is of it: as
        ``Stream.settled``.

        Raises:
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        stream = None if self._careful() else self._lane.downloader.deposit.stream
        return None if stream is None else await stream.settled()

    def check(self) -> None:
        """Refuse what was found to be wrong after it was handed out.

        Raises:
            DisownedError: it was.
        """
        exposure = self._exposures.find(self.key)
        if exposure is not None:
            exposure.check()

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        """As ``Content.ensure``; who wants all of it, or fetches ahead, wants it checked too."""
        self.check()
        whole = span.clamp(self.size) == Span(0, self.size)
        if whole or patience.urgency() is Priority.PREFETCH or self._careful():
            await self.gated.ensure(span, patience)
            await self._settle()
        else:
            with self.heeding():
                await self._lane.ensure(span.clamp(self.size), patience)
        self.check()

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        data: bytes | None = None
        while data is None:
            self.check()
            with self.heeding():
                if not self._careful():
                    data = await self._unchecked(offset, length, patience)
                if data is None:
                    data = await self.gated.read(offset, length, patience)
                    await self._settle()
        self.check()
        return data

    def _careful(self) -> bool:
        """Whether nothing is read before it is checked: it has been, or there is a reason."""
        exposure, lane = self._exposures.find(self.key), self._lane
        pardoned = exposure is not None and exposure.pardoned
        return (
            pardoned
            or not suits(lane)
            or lane.short
            or not self._means.fits(self.size)
            or self.digest() is not None
        )

    async def _unchecked(self, offset: int, length: int, patience: Patience) -> bytes | None:
        """Read what has come, fetching what has not; None where only a whole can be read."""
        span, lane = Span(offset, offset + length).clamp(self.size), self._lane
        # What was wrong as a whole a moment ago is not handed out in parts.
        self._works.check(("gate", self.key), patience)
        if not self._looked:
            await self.gated.look_around(patience)
            self._looked = True
        data = await self._stored(span)
        self._means.metrics.add("fetch.misses" if data is None else "fetch.hits")
        lane.passed(span)
        if data is not None:
            return data
        async with lane.downloader.hold(span):  # until it is read
            while data is None and not self._careful():
                await lane.ensure(span, patience)
                # Without ranges after all it comes in one response, which may break and begin anew.
                data = None if lane.downloader.single else await self._stored(span)
        return data

    async def _stored(self, span: Span) -> bytes | None:
        """What the stream has of a span, noted as handed out; None where it lacks any of it."""
        stream = self._lane.downloader.deposit.stream
        if stream is None:
            return None
        known = self._exposures.find(self.key) is not None
        of = stream.incarnation() if known else await stream.settled()
        if of is None:
            return None
        data = await stream.read(span.start, span.length)
        if data is None or stream.behind() is not None:
            return data
        exposure = await self._exposures.expose(self.key, self.name, of)
        if exposure.of != stream.incarnation():
            await self._lose()
            self.check()
        self.follow()
        return data

    def follow(self) -> None:
        """See to it that all of it comes, and is checked; nobody waits for that."""
        if self._exposures.find(self.key) is not None:
            self._works.start(("behind", self.key), self._behind)

    async def _behind(self, work: Work[None]) -> None:
        patience = work.patience().at(Priority.PREFETCH)
        try:
            await self.gated.ensure(Span(0, self.size), patience)
        except DigestMismatchError:
            return  # that has been said, and to everybody
        except CafsError as error:
            # The next read tries again. It is said once: there may be thousands of them.
            if error.line != self._unchecked_by:
                self._unchecked_by = error.line
                _LOG.warning("fetch.provisional.unchecked: %s", error.line)
            return
        await self._settle()

    async def _settle(self) -> None:
        """Now that it has passed its gate: was what had been handed out the same?"""
        exposure, digest = self._exposures.find(self.key), self.digest()
        if exposure is None or exposure.wrong or digest is None:
            return
        stream = self._store.streams.find(self.key)
        now = None if stream is None else stream.incarnation()
        same = stream is not None and stream.digest() == digest and now == exposure.of.admitted
        if not same and stream is not None and now == exposure.of and stream.digest() is None:
            # The blob came by another way: from another store, or by another name.
            same = await self._agrees(stream, digest)
        if same:
            await self._exposures.clear(self.key)
        elif self._exposures.find(self.key) is exposure:
            await self._lose()

    async def _agrees(self, stream: Stream, digest: Digest) -> bool:
        """Whether all that has come is what the blob has there."""
        for span in stream.present():
            for start in range(span.start, span.stop, _PIECE):
                length = min(_PIECE, span.stop - start)
                ours = await stream.read(start, length)
                if ours != await self._store.blobs.read(digest, start, length):
                    return False
        return True

    async def _lose(self) -> None:
        """What was handed out has left the store, so nobody can tell whether it was right."""
        await self._disown(
            f"{self.name}: its bytes were read before they were checked, and have left the store",
            sure=False,
        )

    async def _refused(self, error: DigestMismatchError) -> None:
        """All of it came, and is not what the pin says."""
        await self._disown(error.what, sure=True)

    async def _disown(self, why: str, *, sure: bool) -> None:
        await self._exposures.disown(self.key, why, sure=sure)
        if self._exposures.find(self.key) is not None:
            for scope in self._scopes:
                scope.cancel()

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Have who waits told at once when it is disowned: the kernel waits for his pages."""
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.remove(scope)

    @override
    def ranges(self) -> Ranges | None:
        return self.gated.ranges()

    @override
    def lazy(self) -> bool:
        return suits(self._lane) or self.gated.lazy()

    @override
    def algorithms(self) -> tuple[str, ...]:
        return self.gated.algorithms()

    @override
    def feed(self) -> Feeder:
        return self.gated.feed()

    @override
    async def seal(self, seen: Seen | None, patience: Patience) -> Digest | None:
        return await self.gated.seal(seen, patience)

    @override
    async def look_around(self, patience: Patience) -> None:
        await self.gated.look_around(patience)

    @override
    def hopeful(self) -> bool:
        return self.gated.hopeful()
