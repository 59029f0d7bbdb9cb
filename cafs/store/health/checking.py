"""Checking: what is looked for in blobs and streams, and what was found.

What is wrong is taken out at once, whoever uses it, so that nobody reads what was found to be
wrong: what can be fetched again is.
"""

import os
from collections.abc import Callable, Iterable, Iterator

import msgspec

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.disk.door import UNREADABLE
from cafs.store.health.leafing import Leafer
from cafs.store.tables.sums import Piece


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be.

    ``item`` is what it was found in. ``what`` says it, for people. ``lost`` is what was taken out.
    ``streams`` are the keys as which the bytes may be had again; ``key`` is the stream that lacks
    them now, None where nothing is left. ``whole`` says that all of it was there before.
    """

    item: Item
    what: str
    lost: SpanSet
    size: int | None
    key: StreamKey | None
    streams: tuple[StreamKey, ...]
    whole: bool


Choose = Callable[[Item, int], bool]
"""Whether the 4 MiB of an item that begin at an offset are to be checked."""
Prefer = Callable[[Digest, tuple[StreamKey, ...]], StreamKey | None]
"""Which of the streams that a blob is can be filled again; None when none of them can."""


class Look(msgspec.Struct, frozen=True):
    """How one thread looks.

    ``seen`` is told of bytes that were looked at; it may raise, to end it. Without ``choose`` all
    is checked.
    """

    leafer: Leafer
    seen: Callable[[int], None]
    choose: Choose | None
    prefer: Prefer


def wrong(offset: int, data: memoryview, known: Iterable[Piece]) -> list[Span]:
    """The pieces that are not what they were, of bytes that hold all of each."""
    return [
        piece.span
        for piece in known
        if not piece.holds(data[piece.start - offset : piece.stop - offset])
    ]


def unreadable(descriptor: int, known: Iterable[Piece]) -> Iterator[Span]:
    """The pieces of a file that cannot be read, or are not what they were: one by one, slowly.

    Raises:
        OSError: it is not the disk under these bytes that fails.
    """
    for piece in known:
        try:
            data = os.pread(descriptor, piece.span.length, piece.start)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            yield piece.span
        else:
            if not piece.holds(memoryview(data)):
                yield piece.span


def joined(spans: list[Span], more: Iterable[Span]) -> None:
    """Put spans behind others; those that touch become one, so that there are never very many."""
    for span in more:
        if spans and spans[-1].stop == span.start:
            spans[-1] = Span(spans[-1].start, span.stop)
        else:
            spans.append(span)


def covers(known: Iterable[Piece], span: Span) -> bool:
    """Whether every byte of a span has a sum."""
    return SpanSet(piece.span for piece in known).covers(span)


def changed(lost: SpanSet) -> str:
    """What has happened to bytes that are not what they were."""
    place = str(next(iter(lost))) if len(lost) == 1 else f"{len(lost)} places"
    return f"the disk has changed something in {lost.total} bytes, {place}"
