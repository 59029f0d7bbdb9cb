"""Content of a decoded stream, made segment by segment when it is read.

What lies where, and what checks it, is for those who know the kind: ``zipped`` for members of a
zip, ``segmented`` for streams with restart points. What they share is here: what is missing of a
read, and which segments that is, each decoded once, and checked before anybody sees a byte of it.
Where it goes is for ``placing``.
"""

from abc import abstractmethod
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, count
from typing import Final

import trio
from typing_extensions import override

from cafs.errors import CafsError, StorageError
from cafs.fetch.content.placing import Decoder, Placing
from cafs.fetch.content.reading import read_or_make
from cafs.fetch.content.segment_jobs import Job
from cafs.fetch.content.together import batched, stretch
from cafs.fetch.flights.composing import read_both
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Content, Patience
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.record import Segment, TreeRecord
from cafs.model.span import Span, SpanSet
from cafs.store.store import Store

AT_ONCE: Final = 4
"""Segments of one read that are decoded at once; of those that come together, the first."""
WINDOW: Final = 32 << 20
"""Decoded bytes of a long read that are made before the next are looked at."""


class DecodedContent(Content, Decoder):
    """Decodes the segments that are read, each alone, each checked before anybody sees it.

    Args:
        store: where everything goes.
        record: the tree that says what the stream is.
        number: that of the stream in it.
        raw: what it is decoded from.
        works: where it is decoded.
        means: what all who decode share.

    Concurrency: as ``Content``; one work a segment.
    """

    def __init__(
        self,
        store: Store,
        record: TreeRecord,
        number: int,
        raw: Content,
        *,
        works: Works[None],
        means: Means,
    ) -> None:
        self._store = store
        self._record = record
        self._number = number
        self._what = record.streams[number]
        self._raw = raw
        self._works = works
        self._means = means
        self._placing = Placing(self, store, means)

    @property
    @override
    def name(self) -> str:
        return self._raw.name

    @property
    @override
    def size(self) -> int:
        return self._what.size

    @property
    @override
    def key(self) -> StreamKey:
        return self._what.key

    @override
    def present(self) -> int:
        stream = self._store.streams.find(self.key)
        return 0 if stream is None else stream.present().total

    @override
    def digest(self) -> Digest | None:
        """None: only segments have checksums, not all of them together."""
        return None

    @abstractmethod
    def segments(self, span: Span) -> Sequence[Segment]:
        """The segments that share a byte with a span, ascending; some of the first will do.

        Raises:
            StorageError: the store does not know them any more.
        """

    @abstractmethod
    async def job(self, segment: Segment, work: Work[None], attempt: int) -> Job:
        """What decoding a segment takes; its input is here when this returns.

        Raises:
            CafsError: as ``Content.ensure``.
        """

    @abstractmethod
    async def again(self, job: Job, error: CafsError, attempt: int) -> bool:
        """Whether to try once more, after so many tries, now that decoding failed."""

    @asynccontextmanager
    async def gathering(
        self, segments: Sequence[Segment], patience: Patience
    ) -> AsyncIterator[None]:
        """Have the input of several segments brought together, where it lies together."""
        del segments, patience  # each brings its own
        yield

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        """As ``Content.ensure``.

        Raises:
            UnsupportedError: it is encrypted, or compressed by an unknown method.
            CafsError: as ``Content.ensure``.
        """
        wanted = span.clamp(self.size)
        while missing := self._present(wanted).missing(wanted):
            first = next(iter(missing))
            segments = self.segments(Span(first.start, min(first.stop, first.start + WINDOW)))
            if not segments or segments[0].start > first.start:
                what = f"nothing in the store says what byte {first.start} is decoded from"
                raise StorageError(
                    f"{self.name}: {what}",
                    hint="with nothing mounted, remove the store; what is read is fetched again",
                )
            # On a full disk what is ahead has no place; it would only push out what is wanted now.
            chosen = segments[:1] if self._means.shortage.lasting() else segments
            async with self.gathering(chosen, patience):
                await self._make_all(chosen, first.start, patience)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        return await read_or_make(
            self,
            self._local,
            offset,
            length,
            patience,
            streams=self._store.streams,
            metrics=self._means.metrics,
        )

    async def _local(self, span: Span) -> bytes | None:
        stream = self._store.streams.find(self.key)
        return await read_both(stream, self._means.overflow, self.key, span, self.need)

    def _present(self, span: Span) -> SpanSet:
        """What is there with what must stand behind it, in the store or in memory."""
        kept = self._means.overflow.spans(self.key, span)
        stream = self._store.streams.find(self.key)
        if stream is None or not self.need.met(stream.behind()):
            return kept
        return kept.union(stream.present(span))

    async def _make_all(self, segments: Sequence[Segment], start: int, patience: Patience) -> None:
        """Make segments, several at once; of the first, the byte at ``start`` is wanted.

        Raises:
            CafsError: that of the first, in their order, that failed.
        """
        if len(segments) == 1:
            await self._make(segments[0], start, patience)
            return
        failures: dict[int, CafsError] = {}
        batches = batched(segments)
        todo = iter(batches)

        async def some() -> None:
            for segment in chain.from_iterable(todo):
                try:
                    await self._make(segment, max(start, segment.start), patience)
                except CafsError as error:
                    failures[segment.start] = error
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(batches))):
                nursery.start_soon(some)
        if failures:
            raise failures[min(failures)]

    async def _make(self, segment: Segment, start: int, patience: Patience) -> None:
        if not self._made(segment):
            decode = partial(self._decode, segment, start)
            await self._works.join(self._key(segment), self.name, decode, patience)

    def begin(self, segment: Segment) -> None:
        """Decode a segment that nobody waits for yet; whoever comes to, joins."""
        if not self._made(segment):
            self._works.start(self._key(segment), partial(self._decode, segment, segment.start))

    def _made(self, segment: Segment) -> bool:
        span = Span(segment.start, segment.start + segment.length)
        return self._present(span).covers(span)

    def _key(self, segment: Segment) -> Hashable:
        return ("segment", self.key, segment.start)

    async def _decode(self, segment: Segment, start: int, work: Work[None]) -> None:
        """Decode a segment, of which the byte at ``start`` is wanted."""
        span = Span(segment.start, segment.start + segment.length)
        async with self._store.streams.hold(self.key, span):
            for attempt in count():
                job = await self.job(segment, work, attempt)
                try:
                    if job.group:
                        await self._finish_shared(job, start, segment.input_start)
                    elif job.run:
                        await self._finish_shared(job, start, stretch(segment))
                    else:
                        await self._placing.place(job, start)
                except CafsError as error:
                    if not await self.again(job, error, attempt):
                        raise
                else:
                    return

    async def _finish_shared(self, job: Job, start: int, turn: Hashable) -> None:
        """Place it, once nobody decodes the same input; unless the segment was on his way."""
        async with self._means.turns.hold((self.key, turn), job.work):
            if not self._made(job.segment):
                await self._placing.place(job, start)
