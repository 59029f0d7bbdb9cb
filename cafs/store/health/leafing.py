"""Leafing: reading files that nobody asked for, at the disk's rate, without taking others' memory.

What the page cache has is read from there, and stays. What had to come from the disk is let go of
afterwards, since the next to want it is the next verification. While one piece is looked at, the
next is read, and the disk is asked for those behind it.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Final, Self

from cafs.model.span import Span, SpanSet

CHUNK: Final = 1 << 20
"""Bytes read at once: a multiple of what is summed together, and enough for a disk to be busy."""
_PROBE: Final = 64 << 10
"""Bytes of which it is found out at once whether the page cache has them."""
_AHEAD: Final = 4
"""Pieces that the disk is asked for before they are read."""
_FEW: Final = 2


class Leafer:
    """Reads spans of files, one file at a time.

    Concurrency: one thread.
    """

    def __init__(self) -> None:
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="leafer")
        self._buffers = [bytearray(CHUNK), bytearray(CHUNK)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ahead.shutdown()

    def read(self, descriptor: int, spans: Iterable[Span]) -> Generator[tuple[int, memoryview]]:
        """The bytes of spans, in pieces that end at multiples of ``CHUNK``: their offset, and they.

        A piece is good until the next is taken. It is short, or empty, where the file ends.

        Raises:
            OSError: the disk failed.
        """
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read beyond
        turns = (_Turn(descriptor, span) for span in _cut(spans))
        waiting = deque(islice(turns, _AHEAD))
        if len(waiting) < _FEW:  # nothing to read meanwhile
            for turn in waiting:
                yield turn.span.start, turn.read(memoryview(self._buffers[0]))
            return
        number = 0
        flying = self._fly(waiting[0], number)
        try:
            while waiting:
                turn, data = waiting.popleft(), flying.result()
                waiting.extend(islice(turns, 1))
                number += 1
                if waiting:
                    flying = self._fly(waiting[0], number)
                yield turn.span.start, data
        finally:
            with suppress(OSError):
                flying.result()  # nobody may close the file under it

    def _fly(self, turn: "_Turn", number: int) -> Future[memoryview]:
        return self._ahead.submit(turn.read, memoryview(self._buffers[number % 2]))


class _Turn:
    """A piece that is going to be read. What the page cache does not have of it is on its way."""

    __slots__ = ("_cold", "_descriptor", "span")

    def __init__(self, descriptor: int, span: Span) -> None:
        self.span = span
        self._descriptor = descriptor
        self._cold = _cold(descriptor, span)
        for each in self._cold:
            os.posix_fadvise(descriptor, each.start, each.length, os.POSIX_FADV_WILLNEED)

    def read(self, buffer: memoryview) -> memoryview:
        """Read it into a buffer, and let go of what was not in the page cache."""
        at = self.span.start
        while at < self.span.stop:
            part = buffer[at - self.span.start : self.span.length]
            count = os.preadv(self._descriptor, [part], at)
            if not count:
                break
            at += count
        for each in self._cold:
            os.posix_fadvise(self._descriptor, each.start, each.length, os.POSIX_FADV_DONTNEED)
        return buffer[: at - self.span.start]


def _cut(spans: Iterable[Span]) -> Iterator[Span]:
    for span in spans:
        start = span.start
        while start < span.stop:
            stop = min(span.stop, start - start % CHUNK + CHUNK)
            yield Span(start, stop)
            start = stop


def _cold(descriptor: int, span: Span) -> SpanSet:
    """What of a span the page cache does not have, by the first byte of each ``_PROBE``."""
    edges = [span.start, *range(span.start - span.start % _PROBE + _PROBE, span.stop, _PROBE)]
    stops = [*edges[1:], span.stop]
    pairs = zip(edges, stops, strict=True)
    return SpanSet(Span(*pair) for pair in pairs if not _warm(descriptor, pair[0]))


def _warm(descriptor: int, offset: int) -> bool:
    """Whether the page cache has a byte."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:  # it has not; or this file system cannot tell, and then nothing is lost
        return False
