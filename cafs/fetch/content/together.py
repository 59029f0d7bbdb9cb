"""Small segments that lie together: what has come beside a segment is decoded with it, and kept.

In a layer with a table of contents most files are one small chunk. To decode such a chunk takes far
less than all that is around it: who asks, the thread, the record that it is there. And requests
bring what lies between two ranges where that costs less than another request. So of the chunks
around the one that is wanted those are decoded whose raw bytes are here; nothing is fetched for it.

Which those can be is a matter of where they lie: the stream has stretches, and two who want chunks
of one take turns, so that none is decoded twice.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise, takewhile
from typing import Final

import trio

from cafs.errors import ContentError, StorageFullError
from cafs.fetch.content.segment_jobs import Check, Checks, Job, Pieces
from cafs.fetch.content.shared_input import Find, nearest
from cafs.model.record import Segment
from cafs.model.span import Span, SpanSet
from cafs.store.streams.stream import Stream

STRETCH: Final = 512 << 10
"""Bytes of the stream of which what is here may be decoded at once: a millisecond or two."""
_SMALL: Final = 64 << 10
"""Bytes of a segment beyond which it is decoded alone: there it is the decoding that takes time."""
_CODECS: Final = frozenset({"gzip", "zstd", "store"})
"""Those whose segments need nothing but their input."""
_APART: Final = 64 << 10
"""Raw bytes between two segments, at most: headers lie there, and what is no file's content."""
_MOST: Final = 2 << 10
"""Segments on either side of the one that is wanted: a table may say that each is of one byte."""
_INPUT: Final = 2 << 20
"""Raw bytes from it to the end of the furthest, on either side: they are read at once."""


def stretch(segment: Segment) -> Span:
    """The part of the stream that a segment begins in."""
    start = segment.start // STRETCH * STRETCH
    return Span(start, start + STRETCH)


def together(
    segment: Segment,
    find: Find,
    present: Callable[[Span], SpanSet],
    here: Callable[[Span], bool],
) -> tuple[Segment, ...]:
    """A segment among those around it that can be decoded at once with it.

    They follow each other without a gap, in the stream as in their input, and none is there yet.
    Empty, where it is to be decoded alone.

    Args:
        segment: what is wanted, whose input is here.
        find: the segments of the stream.
        present: what of the stream is there.
        here: whether raw bytes are here.
    """
    if not _fits(segment):
        return ()
    part = stretch(segment)
    there = present(part)
    after = find(Span(segment.start, part.stop), _MOST + 1)
    if not after or after[0].start != segment.start:
        return ()
    ahead = nearest(find, Span(part.start, segment.start), _MOST)
    ahead = [segment, *(one for one in reversed(ahead) if one.start >= part.start)]

    def wanted(pair: tuple[Segment, Segment]) -> bool:
        """Whether the second goes with the first, which lies nearer to what is wanted."""
        one = pair[1]
        span = Span(one.start, one.start + one.length)
        near = _input((segment, one)).length <= _INPUT
        return near and _fits(one) and _adjoin(*pair) and not there.intersection(span)

    behind = [one for _, one in takewhile(wanted, pairwise(after))]
    before = [one for _, one in takewhile(wanted, pairwise(ahead))]
    run = (*_come(before, here)[::-1], segment, *_come(behind, here))
    return run if len(run) > 1 else ()


def batched(segments: Sequence[Segment]) -> Sequence[Sequence[Segment]]:
    """Segments by who makes them: with the first of a batch the others mostly come too."""
    batches: list[list[Segment]] = []
    for segment in segments:
        if batches and _made_with(batches[-1][-1], segment):
            batches[-1].append(segment)
        else:
            batches.append([segment])
    return batches


def _made_with(one: Segment, other: Segment) -> bool:
    small = _fits(one) and _fits(other) and stretch(one) == stretch(other)
    return small or one.input_start == other.input_start


def _fits(segment: Segment) -> bool:
    small = segment.length <= _SMALL and segment.input_length <= _SMALL
    return small and bool(segment.sha256) and not segment.skip and segment.codec in _CODECS


def _adjoin(one: Segment, other: Segment) -> bool:
    """Whether one of them follows the other, each with an input of its own."""
    first, second = (one, other) if one.start < other.start else (other, one)
    gap = second.input_start - first.input_start - first.input_length
    return first.start + first.length == second.start and 0 <= gap <= _APART


def _come(segments: Sequence[Segment], here: Callable[[Span], bool]) -> Sequence[Segment]:
    """The first of them, nearest first, whose input is here; it is looked up a few times only."""
    if not segments or not here(_input(segments[:1])):
        return ()
    count = len(segments)
    while count > 1 and not here(_input(segments[:count])):
        count //= 2
    return segments[:count]


def _input(run: Sequence[Segment]) -> Span:
    """Where the input of all of them lies, with what lies between."""
    starts = [one.input_start for one in run]
    return Span(min(starts), max(one.input_start + one.input_length for one in run))


def keep_together(job: Job, stream: Stream, pieces: Pieces, check: Check, *, name: str) -> bytes:
    """Decode a job's run, check each, and write what is right; as ``keep``.

    Only what is wrong with the segment of the job is an error. Runs in a worker thread.

    Raises:
        CafsError: as ``keep``.
    """
    del name  # errors are of one segment, and say of which
    span = _input(job.run)
    held = span.start, trio.from_thread.run(job.pull, span.start, span.length)

    def made(segment: Segment) -> tuple[bytes, bytes]:
        source = _input((segment,))
        one = replace(job, segment=segment, source=source, run=(), held=held)
        checks = Checks(segment)
        data = b"".join(pieces(one))
        checks.add(data)
        check(one, checks)
        return data, checks.sha256

    data, digest = made(job.segment)
    at = job.run.index(job.segment)
    behind: list[bytes] = [data]
    before: list[bytes] = []
    with suppress(ContentError):  # who wants it is told so
        behind += (made(one)[0] for one in job.run[at + 1 :])
    with suppress(ContentError):
        before += (made(one)[0] for one in job.run[:at][::-1])
    start = job.run[at - len(before)].start
    try:
        stream.write_sync(start, b"".join((*before[::-1], *behind)))
    except StorageFullError:
        stream.write_sync(job.segment.start, data)
    return digest
