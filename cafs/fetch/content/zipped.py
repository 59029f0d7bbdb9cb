"""Content of the members of a zip, each decoded when it is read.

What the zip itself says of a member, a CRC-32, finds damage, and nothing else: so those of a zip
with a pin are read when all of it has passed its gate. Where an index says the sha256 of each, they
are read from what has come of the zip.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import ClassVar, Final

import trio
from typing_extensions import override

from cafs.codec import zip_content
from cafs.errors import CafsError, MalformedError, NotFoundError, StorageFullError
from cafs.fetch.content.bridging import PIECE
from cafs.fetch.content.decoded import DecodedContent
from cafs.fetch.content.segment_jobs import Checks, Job
from cafs.fetch.content.segmented import HEALS, SegmentedContent
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Patience
from cafs.model.digest import Digest
from cafs.model.record import Segment
from cafs.model.span import Span
from cafs.model.trust import ANYTHING, VERIFIED, Need

_SLACK: Final = 1 << 10
"""Bytes that a local header's name and extra fields are taken to have: more is asked for when they
are longer, and nobody notices these few when they are shorter."""
_TRIES: Final = 3
"""How often raw content is asked for that leaves the store before it is decoded."""


class ZipContent(DecodedContent):
    """Decodes the members that are read.

    Concurrency: as ``Content``.
    """

    @property
    @override
    def need(self) -> Need:
        return VERIFIED if self._raw.checked() else ANYTHING

    @override
    def label(self, segment: Segment) -> str:
        return f"{self.name}: the member at byte {segment.input_start}"

    @override
    def segments(self, span: Span) -> Sequence[Segment]:
        return self._store.trees.segments(self._record.number, self._number, span)

    @override
    @asynccontextmanager
    async def gathering(
        self, segments: Sequence[Segment], patience: Patience
    ) -> AsyncIterator[None]:
        total = sum(one.input_length for one in segments)
        start = min(one.input_start for one in segments)
        stop = max(one.input_start + one.input_length for one in segments)
        if len(segments) > 1 and 2 * total >= stop - start:
            await self._raw.ensure(Span(start, min(self._raw.size, stop + _SLACK)), patience)
        yield

    @override
    async def job(self, segment: Segment, work: Work[None], attempt: int) -> Job:
        zip_content.inflate(segment.codec, name=self.label(segment))  # before anything is fetched
        source, whole = await self._input(segment, work)
        # What leaves the store again and again is read as it comes.
        blob = self._raw.digest() if attempt < _TRIES else None
        return Job(segment, source, partial(self._pull, work, blob), blob, work, whole=whole)

    async def _input(self, segment: Segment, work: Work[None]) -> tuple[Span, bool]:
        """Where the segment's input lies in the raw content, and whether it is local by then."""
        raw, patience = self._raw, work.patience()
        start = segment.input_start
        await raw.ensure(input_of(segment).clamp(raw.size), patience)
        header = await raw.read(start, zip_content.LOCAL, patience)
        start += zip_content.content_start(header, name=self.label(segment))
        source = Span(start, start + segment.input_length)
        if source.stop > raw.size:
            raise MalformedError(
                f"{self.label(segment)}: its data reach beyond the end of the archive"
            )
        # What has no room, all of it at once, is fetched again as it is decoded.
        with suppress(StorageFullError):
            await raw.ensure(source, patience)
            return source, True
        return source, False

    async def _pull(self, work: Work[None], blob: Digest | None, offset: int, length: int) -> bytes:
        work.beat()
        if blob is not None:
            return await self._store.blobs.read(blob, offset, length, self._raw.key)
        return await self._raw.read(offset, length, work.patience())

    @override
    def pieces(self, job: Job) -> Iterator[bytes]:
        yield from _inflated(job, self.label(job.segment))

    @override
    def check(self, job: Job, found: Checks) -> None:
        segment = job.segment
        if segment.crc32 is not None and found.crc32 != segment.crc32:
            raise MalformedError(
                f"{self.label(segment)}: its CRC-32 is {found.crc32:08x}, not {segment.crc32:08x}",
                hint="the archive is damaged at its source",
            )

    @override
    async def again(self, job: Job, error: CafsError, attempt: int) -> bool:
        # It has left the store since, and is fetched again.
        return isinstance(error, NotFoundError) and job.blob is not None

    @override
    def kept(self, job: Job, sha256: bytes) -> None:
        if job.blob is not None and job.blob == self._record.digest:
            tree = self._record.number
            self._store.members.learn(tree, self._number, job.segment, sha256)


class VouchedZipContent(SegmentedContent):
    """Decodes the members that are read, each checked by the digest that an index says of it.

    Concurrency: as ``Content``.
    """

    precise: ClassVar[bool] = False

    @override
    def input(self, segment: Segment) -> Span:
        return input_of(segment)

    @override
    async def locate(self, segment: Segment, work: Work[None]) -> Span:
        ranges, name = self._ranges, self.label(segment)
        zip_content.inflate(segment.codec, name=name)  # before anything is fetched
        start = segment.input_start
        header = Span(start, start + zip_content.LOCAL)
        attempt = 0
        while True:
            await ranges.ensure(self.input(segment).clamp(ranges.size), work.patience())
            data = await ranges.read(start, header.length, work.patience())
            try:
                return self._source(segment, zip_content.content_start(data, name=name))
            except MalformedError:
                hopeful = await self.rejected(segment, header, work, attempt)
                if not hopeful or attempt >= HEALS:
                    raise
                attempt += 1

    def _source(self, segment: Segment, header: int) -> Span:
        """Where the input lies behind so many bytes of a local header."""
        start = segment.input_start + header
        source = Span(start, start + segment.input_length)
        if source.stop > self._ranges.size:
            raise MalformedError(
                f"{self.label(segment)}: its data reach beyond the end of the archive"
            )
        return source

    @override
    def pieces(self, job: Job) -> Iterator[bytes]:
        with self.naming(job.segment):
            yield from _inflated(job, self.label(job.segment))


def input_of(segment: Segment) -> Span:
    """Where a member lies in the raw content, its local header included: hardly less than this."""
    start = segment.input_start
    return Span(start, start + zip_content.LOCAL + _SLACK + segment.input_length)


def _inflated(job: Job, name: str) -> Iterator[bytes]:
    segment, source = job.segment, job.source
    inflater = zip_content.inflate(segment.codec, name=name, length=segment.length)
    for offset in range(source.start, source.stop, PIECE):
        length = min(PIECE, source.stop - offset)
        yield from inflater.pieces(trio.from_thread.run(job.pull, offset, length))
    inflater.finish()
