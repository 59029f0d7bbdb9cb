"""Segments that share their input: decoded once, from its beginning, and all kept.

In a layer with a table of contents many small chunks may lie in one gzip member, each so many bytes
into it. To decode each alone would decode the beginning as often as there are chunks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Final

from msgspec import structs

from cafs.errors import CafsError, ContentError, MalformedError, StorageFullError
from cafs.fetch.content.bridging import PIECE
from cafs.fetch.content.segment_jobs import (
    IN_MEMORY,
    Check,
    Checks,
    Job,
    Pieces,
    keep,
    read_window,
)
from cafs.model.record import Segment
from cafs.model.span import Span, SpanSet
from cafs.store.streams.stream import Stream

_ON: Final = 32 << 20
"""Decoded bytes for which it goes on behind the segment that is wanted."""

_MOST: Final = 8 << 10
"""Segments that are looked at on either side: a table may say that each is of one byte."""

Find = Callable[[Span, int], Sequence[Segment]]
"""The segments that share a byte with a span of the stream, ascending: the first so many."""


def nearest(find: Find, span: Span, most: int) -> Sequence[Segment]:
    """The segments of a span; where there are more than ``most``, some that lie at its end."""
    found = find(span, most)
    if len(found) < most:
        return found
    return find(Span(max(span.start, span.stop - most + 1), span.stop), most)


def sharing(
    segment: Segment, find: Find, present: Callable[[Span], SpanSet]
) -> tuple[Segment, ...]:
    """A segment among those that come by when its input is decoded, and are not there yet.

    They ascend and do not overlap, in the input as in the stream. None, where it has its input for
    itself.
    """
    stop = segment.start + segment.length
    # What lies before it in the input are no more bytes in the stream, for some are left out there.
    before = nearest(find, Span(max(0, segment.start - segment.skip), segment.start), _MOST)
    after = find(Span(stop, stop + 1), 1)
    if after and _same(after[0], segment):
        after = find(Span(stop, stop + _ON), _MOST)
    found = [one for one in before if _same(one, segment)]
    found.append(segment)
    found += [one for one in after if _same(one, segment)]
    if len(found) == 1:
        return ()
    there = present(Span(found[0].start, found[-1].start + found[-1].length))
    group: list[Segment] = []
    at = 0
    for one in found:
        ahead = one.start >= segment.start or one.skip + one.length <= segment.skip
        wanted = one is segment or not there.covers(Span(one.start, one.start + one.length))
        if wanted and ahead and at <= one.skip <= segment.skip + segment.length + _ON:
            group.append(one)
            at = one.skip + one.length
    return tuple(group) if len(group) > 1 else ()


def _same(one: Segment, other: Segment) -> bool:
    """Whether two segments have one input; what is decoded from a window is never skipped into."""
    return (one.codec, one.input_start, one.input_length, one.state) == (
        other.codec,
        other.input_start,
        other.input_length,
        other.state,
    )


def spanning(group: Sequence[Segment]) -> Segment:
    """One segment of what all of a group decode to, with what lies between them."""
    first, last = group[0], group[-1]
    length = last.skip + last.length - first.skip
    return structs.replace(first, length=length, sha256=b"", crc32=None)


def keep_shared(job: Job, stream: Stream, pieces: Pieces, check: Check, *, name: str) -> bytes:
    """Decode all of a job's group, check each, and write what is right; as ``keep``.

    Only what is wrong with the segment of the job is an error. Runs in a worker thread.

    Raises:
        CafsError: as ``keep``.
    """
    decoded = _Forward(pieces(job), job.group[0].skip, name)
    batch = _Batch(stream)
    digest = b""

    def kept(one: Job) -> bytes:
        segment = one.segment
        if segment.length > IN_MEMORY:
            # What is removed while it is written is decoded again, alone.
            ways = chain((decoded.take(segment),), repeat(None))
            return keep(one, stream, lambda job: next(ways) or pieces(job), check, name=name)
        checks, data = Checks(segment), bytearray()
        for piece in decoded.take(segment):
            checks.add(piece)
            data += piece
        check(one, checks)
        batch.add(segment.start, data)
        return checks.sha256

    for segment in job.group:
        wanted = segment is job.segment
        try:
            found = kept(replace(job, segment=segment, group=()))
        except (ContentError, StorageFullError):
            batch.write()
            if wanted or (decoded.broken and not digest):
                raise
            if decoded.broken:
                break  # who wants what lies behind is told so
        else:
            digest = found if wanted else digest
    batch.write()
    return digest


def fitting(job: Job, room: int) -> Job:
    """The same job, with no more of its group beside its segment than so many bytes.

    What lies behind the segment goes first: who reads goes forward.
    """
    number = job.group.index(job.segment)
    chosen = [job.segment]
    for others in (job.group[number + 1 :], job.group[:number][::-1]):
        for one in others:
            room -= one.length
            if room < 0:
                break
            chosen.append(one)
    chosen.sort(key=lambda one: one.start)
    return replace(job, group=tuple(chosen))


def read_shared(
    job: Job, window: Span, pieces: Pieces, check: Check, *, name: str
) -> list[tuple[int, bytes]]:
    """Decode all of a job's group, check each, and return what is right: where it lies, and it.

    The first is ``window``, some of the job's segment; the others are whole. Only what is wrong
    with the segment of the job is an error. Runs in a worker thread.

    Raises:
        CafsError: as ``keep``.
    """
    decoded = _Forward(pieces(job), job.group[0].skip, name)
    found: list[tuple[int, bytes]] = []
    first: list[tuple[int, bytes]] = []
    for segment in job.group:
        wanted = segment is job.segment
        span = window if wanted else Span(segment.start, segment.start + segment.length)
        one = replace(job, segment=segment, group=())
        try:
            data = read_window(one, span, lambda one: decoded.take(one.segment), check)
        except ContentError:
            if wanted or (decoded.broken and not first):
                raise
            if decoded.broken:
                break
        else:
            (first if wanted else found).append((span.start, data))
    return first + found


class _Forward:
    """What comes of decoding, forward.

    Concurrency: one worker thread.
    """

    def __init__(self, pieces: Iterator[bytes], at: int, name: str) -> None:
        self._pieces = pieces
        self._at = at
        self._name = name
        self._piece = b""
        self._used = 0
        self.broken = False

    def take(self, segment: Segment) -> Iterator[bytes]:
        """A segment's bytes, which lie behind those that were taken last."""
        for _ in self._next(segment.skip - self._at):
            pass
        yield from self._next(segment.length)

    def _next(self, count: int) -> Iterator[bytes]:
        while count:
            if self._used == len(self._piece):
                self._piece, self._used = self._more(), 0
            part = self._piece[self._used : self._used + count]
            count -= len(part)
            self._used += len(part)
            self._at += len(part)
            yield part

    def _more(self) -> bytes:
        try:
            return next(self._pieces)
        except CafsError:
            self.broken = True
            raise
        except StopIteration:
            self.broken = True
            raise MalformedError(f"{self._name}: it ends too early") from None


class _Batch:
    """Bytes that were checked and lie together, written by large pieces.

    Concurrency: one worker thread.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._start = 0
        self._data = bytearray()

    def add(self, start: int, data: bytearray) -> None:
        """Write these bytes, sooner or later."""
        if start != self._start + len(self._data):
            self.write()
        if not self._data:
            self._start = start
        self._data += data
        if len(self._data) >= PIECE:
            self.write()

    def write(self) -> None:
        """Write what waits.

        Raises:
            StorageFullError: there is no room for it.
        """
        data, self._data = self._data, bytearray()
        if data:
            self._stream.write_sync(self._start, data)
