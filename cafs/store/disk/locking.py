"""Locks on files that every process of one machine sees: open-file-description locks, and flock.

An OFD lock belongs to one open of the file, so two tasks exclude each other like two processes do,
and it goes with the last descriptor, however its holder ends.

Source: fcntl_locking(2), "Open file description locks".
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from cafs.model.span import Span
from cafs.store.disk.door import open_file

LOCK_LENGTH: Final = 8 << 20
"""The longest span that one lock may cover, so that nobody can hold a whole stream."""
_GATE: Final = Span(1 << 62, (1 << 62) + 1)
"""A byte that no stream has: who writes into a stream file holds it."""
_FLOCK: Final = struct.Struct("@hhqqi4x")
_POLL_S: Final = 0.005
"""Between two looks whether another process has let go."""
_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES})


def _ofd(descriptor: int, command: int, kind: int, span: Span) -> None:
    fcntl.fcntl(descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, span.start, span.length, 0))


class SpanLock:
    """A lock on a span of a file; let go by ``release``, or with the process.

    Concurrency: any task may release it.
    """

    __slots__ = ("_descriptor", "_span")

    def __init__(self, descriptor: int | None, span: Span | None = None) -> None:
        self._descriptor = descriptor
        self._span = span

    def pass_by(self, position: int) -> None:
        """Let go of what lies before a position in the file, which is done."""
        if self._descriptor is None or self._span is None or position <= self._span.start:
            return
        if position >= self._span.stop:
            self.release()
            return
        let_go(self._descriptor, Span(self._span.start, position))
        self._span = Span(position, self._span.stop)

    def end_at(self, position: int) -> None:
        """Let go of what lies from a position in the file on, which is others' to do."""
        if self._descriptor is None or self._span is None or position >= self._span.stop:
            return
        if position <= self._span.start:
            self.release()
            return
        let_go(self._descriptor, Span(position, self._span.stop))
        self._span = Span(self._span.start, position)

    async def sign(self, limiter: trio.CapacityLimiter) -> None:
        """Leave a sign, on the file, that what it is held for goes on; as long as the disk takes.

        It may be released meanwhile, and goes at once: the file is opened anew for this.

        Args:
            limiter: of the thread that it is done in.

        Cancellation: carried through.
        """
        if self._descriptor is None:
            return
        with suppress(OSError):  # who waits then hears less, and nothing else depends on it
            file = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                await trio.to_thread.run_sync(_touch, file, limiter=limiter)
            finally:
                os.close(file)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _touch(descriptor: int) -> None:
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))


def try_lock(path: Path, span: Span, *, create: bool = False) -> SpanLock | None:
    """Lock a span of a file exclusively; None when somebody else holds a part of it.

    Raises:
        ValueError: the span is empty or longer than ``LOCK_LENGTH``.
        FileNotFoundError: there is no such file, and none is to be created.

    What is to be created is no file of content: of it nothing is ever done but all.
    """
    if not 0 < span.length <= LOCK_LENGTH:
        raise ValueError(f"cannot lock {span}: at most {LOCK_LENGTH} bytes, at least one")
    descriptor = open_file(path, os.O_RDWR | (os.O_CREAT if create else 0))
    try:
        _ofd(descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, span)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _BUSY:
            return None
        raise
    return SpanLock(descriptor, None if create else span)


@contextmanager
def gate(path: Path) -> Iterator[int]:
    """Open a stream's file, and hold its gate as long as the block lasts; gives the descriptor.

    Blocks for as long as one write into the file takes; for worker threads.

    Raises:
        FileNotFoundError: there is none.
        OSError: the disk failed, or it may not be opened.
    """
    descriptor = open_file(path, os.O_RDWR)
    try:
        hold_gate(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def hold_gate(descriptor: int) -> None:
    """Wait for a stream file's gate, and hold it until the descriptor is closed.

    Blocks for as long as one write into the file takes; for worker threads.
    """
    _ofd(descriptor, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _GATE)


def try_range(descriptor: int, span: Span, *, alone: bool) -> bool:
    """Lock a span of an open file, ``alone`` or shared; whether nobody else's lock was there.

    What the descriptor has locked already is no obstacle: then the lock changes.
    """
    try:
        _ofd(descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK if alone else fcntl.F_RDLCK, span)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise
    return True


def hold_range(descriptor: int, span: Span, *, alone: bool = False) -> None:
    """Lock a span of an open file, ``alone`` or shared, once nobody else is in the way. Blocks."""
    _ofd(descriptor, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK if alone else fcntl.F_RDLCK, span)


def let_go(descriptor: int, span: Span) -> None:
    """Unlock a span of an open file."""
    _ofd(descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, span)


def is_locked(descriptor: int, span: Span) -> bool:
    """Whether anybody else has locked a byte of a span of an open file."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, span.start, span.length, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def flock(descriptor: int, *, exclusive: bool, wait: bool) -> bool:
    """Lock a whole file, or change the lock; whether it was to be had (always, with ``wait``)."""
    operation = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(descriptor, operation | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def flock_alone(descriptor: int) -> None:
    """Lock a whole file against everybody, in a thread of trio's; waits until it is to be had.

    Raises:
        trio.Cancelled: whoever waits for the thread was cancelled.
    """
    while not flock(descriptor, exclusive=True, wait=False):
        trio.from_thread.check_cancelled()
        time.sleep(_POLL_S)
