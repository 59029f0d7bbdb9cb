"""Content of an archive's decoded stream, decoded member by member when it is read."""

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio
from typing_extensions import override

from cafs.codec import zip as zip_codec
from cafs.errors import MalformedError, NotFoundError, StorageError, StorageFullError
from cafs.fetch.bridging import PIECE
from cafs.fetch.composing import read_both
from cafs.fetch.interfaces import Content, Patience, Priority
from cafs.fetch.overflow import Overflow
from cafs.fetch.reading import read_or_make
from cafs.fetch.shortage import Shortage
from cafs.fetch.work import Work, Works
from cafs.metrics import Metrics
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.model.span import Span, SpanSet
from cafs.model.trust import ANYTHING, VERIFIED
from cafs.store.store import Store
from cafs.store.streams import Stream

IN_MEMORY: Final = 8 << 20
"""Segments up to this are decoded once, in memory. Longer ones are decoded twice: once to check
them, once to keep them. That costs no space, and no byte is ever readable before its check."""
_SLACK: Final = 1 << 10
"""Bytes that a local header's name and extra fields are taken to have: more is asked for when they
are longer, and nobody notices these few when they are shorter."""


_TRIES: Final = 3
"""How often raw content is asked for that leaves the store before it is decoded."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One segment to decode, and where in the raw content its input lies.

    ``blob`` is the verified blob that the input is read from, None where it is only what has come.
    """

    segment: Segment
    source: Span
    blob: Digest | None
    work: Work[None]


class DecodedContent(Content):
    """Decodes the segments that are read, each alone, each checked before anybody sees it.

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
        metrics: Metrics,
        overflow: Overflow,
        shortage: Shortage,
    ) -> None:
        self._store = store
        self._record = record
        self._number = number
        self._what: TreeStream = record.streams[number]
        self._raw = raw
        self._works = works
        self._need = VERIFIED if raw.checked() else ANYTHING
        self._metrics = metrics
        self._overflow = overflow
        self._shortage = shortage

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
        """None: only members have checksums, not all of them together."""
        return None

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        """As ``Content.ensure``.

        Raises:
            UnsupportedError: a member that is encrypted, or compressed by an unknown method.
            CafsError: as ``Content.ensure``.
        """
        wanted = span.clamp(self.size)
        await self._gather(wanted, patience)
        while missing := self._present(wanted).missing(wanted):
            start = next(iter(missing)).start
            segment = self._store.trees.segment_at(self._record.number, self._number, start)
            if segment is None:
                raise StorageError(
                    f"{self.name}: nothing in the store says what byte {start} is decoded from",
                    hint="with nothing mounted, remove the store; what is read is fetched again",
                )

            async def decode(
                work: Work[None], segment: Segment = segment, start: int = start
            ) -> None:
                span = Span(segment.start, segment.start + segment.length)
                async with self._store.streams.hold(self.key, span):
                    await self._decode(segment, start, work)

            key = ("segment", self.key, segment.start)
            await self._works.join(key, self.name, decode, patience)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        return await read_or_make(
            self,
            self._local,
            offset,
            length,
            patience,
            streams=self._store.streams,
            metrics=self._metrics,
        )

    async def _local(self, span: Span) -> bytes | None:
        stream = self._store.streams.find(self.key)
        return await read_both(stream, self._overflow, self.key, span, self._need)

    async def _stream(self, blob: Digest | None) -> Stream | None:
        """Where is written what is decoded from a blob; None where it cannot be kept.

        There may be no room even for its name, or nothing that stands behind what must be checked.
        """
        if blob is None and self._need is VERIFIED:
            return None
        try:
            return await self._store.streams.open(self.key, self.size, blob)
        except StorageFullError:
            self._shortage.found()
            return None

    def _present(self, span: Span) -> SpanSet:
        """What is there with what must stand behind it, in the store or in memory."""
        kept = self._overflow.spans(self.key, span)
        stream = self._store.streams.find(self.key)
        if stream is None or not self._need.met(stream.behind()):
            return kept
        return kept.union(stream.present(span))

    async def _gather(self, span: Span, patience: Patience) -> None:
        """Fetch the input of many segments together, where it lies together."""
        if span.length <= PIECE or self._present(span).covers(span):
            return
        segments = self._store.trees.segments(self._record.number, self._number, span)
        start = min(one.input_start for one in segments)
        stop = max(one.input_start + one.input_length for one in segments)
        if 2 * sum(one.input_length for one in segments) >= stop - start:
            await self._raw.ensure(Span(start, min(self._raw.size, stop + _SLACK)), patience)

    async def _decode(self, segment: Segment, start: int, work: Work[None]) -> None:
        """Decode a segment, of which the byte at ``start`` is wanted."""
        zip_codec.inflate(segment.codec, name=self._label(segment))  # before anything is fetched
        for _ in range(_TRIES):
            job = _Job(segment, await self._input(segment, work), self._raw.digest(), work)
            try:
                await self._finish(job, start)
            except NotFoundError:
                if job.blob is None:
                    raise
                # It has left the store since, and is fetched again.
            else:
                return
        await self._finish(_Job(segment, await self._input(segment, work), None, work), start)

    async def _finish(self, job: _Job, start: int) -> None:
        segment, work = job.segment, job.work
        stream = await self._stream(job.blob)
        if stream is None or not await self._stored(job, stream):
            if work.priority() is not Priority.DEMAND:
                raise self._shortage.stopped(self._label(segment), segment.length)
            window = Span(max(segment.start, start), segment.start + segment.length)
            window = Span(window.start, min(window.stop, window.start + IN_MEMORY))
            data = await trio.to_thread.run_sync(self._decoded, job, window)
            if not self._overflow.put(self.key, window.start, data):
                raise self._shortage.error(self._label(segment), len(data))
        self._metrics.add("fetch.verified", segment.length)

    async def _input(self, segment: Segment, work: Work[None]) -> Span:
        """Where the segment's input lies in the raw content; it is local when this returns."""
        raw, patience = self._raw, work.patience()
        start = segment.input_start
        guess = Span(start, start + zip_codec.LOCAL + _SLACK + segment.input_length)
        await raw.ensure(guess.clamp(raw.size), patience)
        header = await raw.read(start, zip_codec.LOCAL, patience)
        start += zip_codec.content_start(header, name=self._label(segment))
        source = Span(start, start + segment.input_length)
        if source.stop > raw.size:
            raise MalformedError(
                f"{self._label(segment)}: its data reach beyond the end of the archive"
            )
        # What has no room, all of it at once, is fetched again as it is decoded.
        with suppress(StorageFullError):
            await raw.ensure(source, patience)
        return source

    async def _stored(self, job: _Job, stream: Stream) -> bool:
        """Decode a segment into its stream; False when the disk is full."""
        if not self._shortage.lasting():
            if await self._written(job, stream):
                return True
            self._shortage.found()
        if job.work.priority() is not Priority.DEMAND:
            return False
        if not await self._shortage.relieve(job.segment.length):
            return False
        if await self._written(job, stream):
            return True
        self._shortage.fruitless()
        return False

    async def _written(self, job: _Job, stream: Stream) -> bool:
        try:
            digest = await trio.to_thread.run_sync(self._keep, job, stream)
            if job.blob is not None and job.blob == self._record.digest:
                self._store.members.learn(self._record.number, self._number, job.segment, digest)
        except StorageFullError:
            return False
        return True

    def _decoded(self, job: _Job, window: Span) -> bytes:
        """Some of a segment's bytes, after all of it was checked. Runs in a worker thread."""
        segment = job.segment
        crc, position = 0, segment.start
        kept: list[bytes] = []
        for piece in self._pieces(job):
            crc = zlib.crc32(piece, crc)
            first, last = max(0, window.start - position), max(0, window.stop - position)
            kept.append(piece[first:last])
            position += len(piece)
        self._check(segment, crc)
        return b"".join(kept)

    def _keep(self, job: _Job, stream: Stream) -> bytes:
        """Decode, check, write; the raw sha256 of it. Runs in a worker thread.

        Raises:
            NotFoundError: the blob that it is decoded from is not there any more.
        """
        segment = job.segment
        crc = 0
        digest = hashlib.sha256()
        kept: list[bytes] = []
        for piece in self._pieces(job):
            crc = zlib.crc32(piece, crc)
            digest.update(piece)
            if segment.length <= IN_MEMORY:
                kept.append(piece)
        self._check(segment, crc)
        position = segment.start
        batch = bytearray()
        for piece in kept or self._pieces(job):
            batch += piece
            if len(batch) >= PIECE:
                stream.write_sync(position, bytes(batch))
                position += len(batch)
                batch.clear()
        stream.write_sync(position, bytes(batch))
        return digest.digest()

    def _check(self, segment: Segment, crc: int) -> None:
        if segment.crc32 is not None and crc != segment.crc32:
            raise MalformedError(
                f"{self._label(segment)}: its CRC-32 is {crc:08x}, not {segment.crc32:08x}",
                hint="the archive is damaged at its source",
            )

    def _pieces(self, job: _Job) -> Iterator[bytes]:
        """The decoded bytes; as many as announced, or an error."""
        segment, source = job.segment, job.source

        async def pull(offset: int, length: int) -> bytes:
            job.work.beat()
            if job.blob is not None:
                return await self._store.blobs.read(job.blob, offset, length, self._raw.key)
            return await self._raw.read(offset, length, job.work.patience())

        inflater = zip_codec.inflate(
            segment.codec, name=self._label(segment), length=segment.length
        )
        for offset in range(source.start, source.stop, PIECE):
            length = min(PIECE, source.stop - offset)
            yield from inflater.pieces(trio.from_thread.run(pull, offset, length))
        inflater.finish()

    def _label(self, segment: Segment) -> str:
        return f"{self.name}: the member at byte {segment.input_start}"
