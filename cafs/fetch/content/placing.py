"""Placing: decodes a segment, and puts it where it is read: into its stream, or into memory.

On a full disk it is decoded once for all that comes by on its way and has room in memory; of a long
segment no more than what is about to be read.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Protocol

from cafs.errors import StorageFullError
from cafs.fetch.content.segment_jobs import IN_MEMORY, Check, Checks, Job, keep, read_window
from cafs.fetch.content.shared_input import fitting, keep_shared, read_shared
from cafs.fetch.content.together import keep_together
from cafs.fetch.flights.means import Means
from cafs.fetch.interfaces import Priority
from cafs.labour import Threads
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.record import Segment
from cafs.model.span import Span
from cafs.model.trust import Need
from cafs.store.store import Store
from cafs.store.streams.stream import Stream


class Decoder(Protocol):
    """What knows how the segments of one stream are decoded and checked."""

    @property
    @abstractmethod
    def key(self) -> StreamKey:
        """The stream that holds the bytes."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of all of it."""

    @property
    @abstractmethod
    def need(self) -> Need:
        """What must stand behind what the store has of it."""

    @abstractmethod
    def label(self, segment: Segment) -> str:
        """What errors call a segment."""

    @abstractmethod
    def pieces(self, job: Job) -> Iterator[bytes]:
        """What a segment, or a job's group, decodes to: all of it, or an error. In a thread."""

    @abstractmethod
    def check(self, job: Job, found: Checks) -> None:
        """Hold what a segment decoded to against what it must be. In a thread.

        Raises:
            ContentError: it is something else.
        """

    def kept(self, job: Job, sha256: bytes) -> None:
        """A segment was decoded, found right, and stored."""
        del job, sha256  # nobody asks for it by its digest


class Placing:
    """Places the segments of one stream.

    Args:
        decoder: how they are decoded.
        store: where they go.
        means: what all who decode share.

    Concurrency: any number of tasks, of which no two place the same segment.
    """

    def __init__(self, decoder: Decoder, store: Store, means: Means) -> None:
        self._decoder = decoder
        self._store = store
        self._means = means

    async def place(self, job: Job, start: int) -> None:
        """Decode a segment, check it, and put it where it is read; the byte at ``start`` is wanted.

        Raises:
            StorageFullError: there is no room for it.
            CafsError: it cannot be decoded, or is not what it must be.

        Cancellation: all or nothing; once begun it is carried through.
        """
        segment, work, shortage = job.segment, job.work, self._means.shortage
        stream = await self._stream(job.blob)
        if stream is None or not await self._stored(job, stream):
            if work.priority() is not Priority.DEMAND:
                raise shortage.stopped(self._decoder.label(segment), segment.length)
            await self._pass_by(job, start)

    async def _pass_by(self, job: Job, start: int) -> None:
        """Decode a segment into memory, for who waits; with it, what there is room for on its way.

        Raises:
            StorageFullError: there is no room in memory either.
            CafsError: as ``pieces`` and ``check``.
        """
        segment, overflow = job.segment, self._means.overflow
        window = Span(max(segment.start, start), segment.start + segment.length)
        window = Span(window.start, min(window.stop, window.start + IN_MEMORY))
        checked: list[int] = []
        with overflow.claim(sum(one.length for one in job.group if one is not segment)) as room:
            run = partial(self._read, job, window, room, self._counting(checked))
            found = await self._threads(job).run(run)
        for number, (at, data) in enumerate(found):
            if not overflow.put(self._decoder.key, at, data, awaited=not number) and not number:
                raise self._means.shortage.error(self._decoder.label(segment), len(data))
        self._means.metrics.add("fetch.verified", sum(checked))

    def _read(self, job: Job, window: Span, room: int, check: Check) -> list[tuple[int, bytes]]:
        """What is decoded for a window, and what comes by and fits into so many bytes. A thread."""
        decoder = self._decoder
        shared = fitting(job, room) if job.group else job
        if len(shared.group) > 1:
            name = decoder.label(job.segment)
            return read_shared(shared, window, decoder.pieces, check, name=name)
        alone = replace(job, group=())
        return [(window.start, read_window(alone, window, decoder.pieces, check))]

    def _counting(self, checked: list[int]) -> Check:
        """The decoder's check, which notes how long what it has found right is."""

        def check(one: Job, found: Checks) -> None:
            self._decoder.check(one, found)
            checked.append(one.segment.length)

        return check

    def _threads(self, job: Job) -> Threads:
        return self._means.decoders if job.whole else self._means.waiters

    async def _stream(self, blob: Digest | None) -> Stream | None:
        """Where is written what is decoded from a blob; None where it cannot be kept.

        There may be no room even for its name, or nothing that stands behind what must be checked.
        """
        if not self._decoder.need.met(blob):
            return None
        try:
            return await self._store.streams.open(self._decoder.key, self._decoder.size, blob)
        except StorageFullError:
            self._means.shortage.found()
            return None

    async def _stored(self, job: Job, stream: Stream) -> bool:
        """Decode a segment into its stream; False when the disk is full."""
        shortage = self._means.shortage
        if not shortage.lasting():
            if await self._written(job, stream):
                return True
            shortage.found()
        if not await shortage.relieve(job.segment.length, job.work.priority()):
            return False
        if await self._written(job, stream):
            return True
        shortage.fruitless()
        return False

    async def _written(self, job: Job, stream: Stream) -> bool:
        decoder, name = self._decoder, self._decoder.label(job.segment)
        checked: list[int] = []
        try:
            way = keep_shared if job.group else keep_together if job.run else keep
            run = partial(way, job, stream, decoder.pieces, self._counting(checked), name=name)
            digest = await self._threads(job).run(run)
        except StorageFullError:
            return False
        self._means.metrics.add("fetch.verified", sum(checked))
        decoder.kept(job, digest)
        return True
