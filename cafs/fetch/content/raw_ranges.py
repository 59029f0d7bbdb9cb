"""Raw bytes by range, for those who check what they make of them.

Of content with a pin no byte is handed out before all of it has passed the gate; but a segment that
has a digest of its own can be checked alone, and needs no more than its own input. So what has come
may be read here, and nowhere else. Where all of it has passed the gate meanwhile, it is read as the
blob that it has become.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from typing_extensions import override

from cafs.errors import CafsError, NotFoundError
from cafs.fetch.flights.lane import Lane
from cafs.fetch.flights.planning import EXACT, FINE, joined
from cafs.fetch.interfaces import Content, Patience, Priority, Ranges
from cafs.model.span import Span, SpanSet
from cafs.store.blobs.blobs import Blobs

_AHEAD: Final = 32 << 20
"""Bytes that come ahead of one reader at most."""


class CheckedRanges(Ranges):
    """Content that hands out nothing but what is right, as far as anybody can tell.

    Concurrency: as ``Content``.
    """

    def __init__(self, content: Content) -> None:
        self._content = content

    @property
    @override
    def size(self) -> int:
        return self._content.size

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        await self._content.ensure(span, patience)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        return await self._content.read(offset, length, patience)

    @override
    def missing(self, span: Span) -> SpanSet:
        return SpanSet() if self._content.digest() is not None else SpanSet([span])

    @override
    async def reject(self, span: Span) -> bool:
        return False  # it is what was promised: what says otherwise is wrong


class LaneRanges(Ranges):
    """What a lane has brought of one content, whether or not it has passed the gate.

    Args:
        content: what hands it out when it has passed the gate.
        lane: of the content.
        blobs: where it is then.

    Concurrency: as ``Content``.
    """

    def __init__(self, content: Content, lane: Lane, blobs: Blobs) -> None:
        self._content = content
        self._lane = lane
        self._blobs = blobs
        self._rejected: set[int] = set()

    @property
    @override
    def size(self) -> int:
        return self._lane.end

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        lane = self._lane
        if self._content.digest() is not None:
            return
        if lane.downloader.single:
            await self._come_whole(patience)
            return
        with lane.downloader.deposit.by_range():
            await lane.ensure(span.clamp(self.size), patience, partial(self._go_on, patience), FINE)

    async def _go_on(self, patience: Patience) -> None:
        """What has no ranges comes whole, or not at all: so it need not begin anew later."""
        if self._lane.downloader.single:
            await self._come_whole(patience)

    async def _come_whole(self, patience: Patience) -> None:
        await self._content.ensure(Span(0, self.size), patience)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        span = Span(offset, offset + length).clamp(self.size)
        data = await self._local(span)
        if data is not None:
            return data
        async with self._lane.downloader.hold(span):  # until it is read
            while data is None:
                await self.ensure(span, patience)
                data = await self._local(span)
        return data

    async def _local(self, span: Span) -> bytes | None:
        digest = self._content.digest()
        if digest is None or not span.length:
            return await self._lane.read(span)
        try:
            return await self._blobs.read(digest, span.start, span.length, self._lane.terms.key)
        except NotFoundError:
            return None  # deleted since: it is fetched again

    @override
    def follow(self, spans: Sequence[Span], *, exact: bool = False) -> None:
        if self._content.digest() is None:
            for span in self._joined(spans):
                self._lane.follow(span.clamp(self.size), EXACT if exact else FINE)

    @override
    @contextmanager
    def ahead(
        self, spans: Sequence[Span], patience: Patience, *, exact: bool = False
    ) -> Iterator[None]:
        lane, granule = self._lane, EXACT if exact else FINE
        with lane.hold(patience, granule) as hold, lane.downloader.deposit.by_range():
            left = _AHEAD
            for span in () if self._content.digest() is not None else self._joined(spans):
                wanted = Span(span.start, min(span.stop, span.start + left)).clamp(lane.end)
                if not wanted.length or not self._may_come(wanted, patience):
                    break
                hold.want(wanted)
                left -= wanted.length
                if exact and patience.urgency() is Priority.DEMAND:
                    # What came beside it would be cut off with who waits, and its connection.
                    lane.follow(wanted, granule)
            yield

    def _joined(self, spans: Sequence[Span]) -> list[Span]:
        """The spans, as one where the gap between them costs less than another request."""
        return joined(spans, self._lane.gap())

    def _may_come(self, span: Span, patience: Patience) -> bool:
        lane = self._lane
        if lane.downloader.single or lane.short:
            return False
        try:
            lane.check(span, patience)
        except CafsError:
            return False  # who reads it is told so
        return True

    @override
    def missing(self, span: Span) -> SpanSet:
        return SpanSet() if self._content.digest() is not None else self._lane.missing(span)

    @override
    async def reject(self, span: Span) -> bool:
        downloader = self._lane.downloader
        if self._content.digest() is not None or not await downloader.deposit.reject(span):
            return False
        others = downloader.blame.doubt(span)
        # It may have been damaged on the way, or by a cache that was passed through: once.
        first = span.start not in self._rejected
        self._rejected.add(span.start)
        return others or first
