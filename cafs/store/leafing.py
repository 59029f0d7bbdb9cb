"""Leafing: reading files that nobody asked for, at the disk's rate, without taking others' memory.

What the page cache has is read from there, and stays. What had to come from the disk is let go of
afterwards, since the next to want it is the next verification. While one piece is looked at, the
next is read.
"""

import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from cafs.model.span import Span

CHUNK: Final = 1 << 20
"""Bytes read at once: a multiple of what is summed together, and enough for a disk to be busy."""
_PROBE: Final = 64 << 10
"""Bytes of which it is found out at once whether the page cache has them."""


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
        turns = iter(self._cut(spans))
        first = next(turns, None)
        if first is None:
            return
        following = next(turns, None)
        if following is None:  # nothing to read meanwhile
            yield first.start, _read(descriptor, first, memoryview(self._buffers[0]))
            return
        flying = self._fly(descriptor, first, 0)
        number, span = 0, first
        try:
            while True:
                data = flying.result()
                number += 1
                if following is not None:
                    flying = self._fly(descriptor, following, number % 2)
                yield span.start, data
                if following is None:
                    return
                span, following = following, next(turns, None)
        finally:
            with suppress(OSError):
                flying.result()  # nobody may close the file under it

    def _fly(self, descriptor: int, span: Span, number: int) -> Future[memoryview]:
        buffer = memoryview(self._buffers[number])
        return self._ahead.submit(_read, descriptor, span, buffer)

    def _cut(self, spans: Iterable[Span]) -> Iterator[Span]:
        for span in spans:
            start = span.start
            while start < span.stop:
                stop = min(span.stop, start - start % CHUNK + CHUNK)
                yield Span(start, stop)
                start = stop


def _read(descriptor: int, span: Span, buffer: memoryview) -> memoryview:
    """Read a span into a buffer, and let go of what was not in the page cache."""
    at = span.start
    while at < span.stop:
        cached = _warm(descriptor, Span(at, span.stop), buffer[at - span.start :])
        at += cached
        if at == span.stop:
            break
        stop = _cold_end(descriptor, at, span.stop)
        count = os.preadv(descriptor, [buffer[at - span.start : stop - span.start]], at)
        if not count:
            break
        os.posix_fadvise(descriptor, at, count, os.POSIX_FADV_DONTNEED)
        at += count
    return buffer[: at - span.start]


def _warm(descriptor: int, span: Span, buffer: memoryview) -> int:
    """How many bytes the page cache has from the start on; they are in the buffer then."""
    try:
        return os.preadv(descriptor, [buffer[: span.length]], span.start, os.RWF_NOWAIT)
    except OSError:  # none; or this file system cannot tell, and the disk's own error comes next
        return 0


def _cold_end(descriptor: int, start: int, stop: int) -> int:
    """Where what is not in the page cache ends, at the earliest."""
    scratch = memoryview(bytearray(1))
    at = start - start % _PROBE + _PROBE
    while at < stop and not _warm(descriptor, Span(at, at + 1), scratch):
        at += _PROBE
    return min(at, stop)
