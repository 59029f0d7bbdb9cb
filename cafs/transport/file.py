"""Files: ``file:///path`` as a source, with its size and modification time as the version."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar
from urllib.parse import unquote_to_bytes

import trio
from typing_extensions import override

from cafs.errors import (
    AccessError,
    CafsError,
    DeadlineError,
    InvalidReferenceError,
    NotFoundError,
    RefusedError,
    SourceChangedError,
    UnreachableError,
)
from cafs.model.address import shown
from cafs.model.pacing import USUAL, Pacing
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.urls import split

T = TypeVar("T")
_PIECE: Final = 1 << 20
_CLOSE_S: Final = 1.0
"""How long the end of a file that nobody reads any more is waited for."""
_FAMILIES: Final[dict[int, type[CafsError]]] = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: NotFoundError,
    errno.EACCES: AccessError,
    errno.EPERM: AccessError,
    errno.EIO: UnreachableError,
    errno.ESTALE: UnreachableError,
    errno.ETIMEDOUT: UnreachableError,
    errno.ENFILE: UnreachableError,
    errno.EMFILE: UnreachableError,
}
"""What a failed system call means; everything else is a RefusedError. A network file system that
does not answer now may answer later."""


class FileTransport(Transport):
    """Answers for ``file:`` URLs of this machine, which are always asked: their age is 0 (R-24).

    A version is size and modification time (R-10). A file that changes while it is read fails with
    SourceChangedError, at the piece during which it changed.

    A file may lie on a disk whose server does not answer. So threads of its own number touch it,
    and nobody waits for one for longer than for any other source.

    Args:
        pacing: how long to wait for what, and how many threads there are.

    Concurrency: any number of tasks; those above the number of threads wait.
    """

    def __init__(self, pacing: Pacing = USUAL) -> None:
        self._pacing = pacing
        self._threads = trio.CapacityLimiter(pacing.connections)

    @override
    async def open(self, request: Request) -> Response:
        """Open the file.

        Raises:
            NotFoundError: no such file.
            AccessError: it may not be read.
            RefusedError: it is no regular file, or the span lies behind its end (``total`` tells).
            UnreachableError: the disk or its server failed.
            DeadlineError: nothing came of it in time.

        Cancellation: no effect; a thread that waits for the disk closes what it gets.
        """
        if request.span is not None and not request.span.length:
            raise ValueError(f"an empty span cannot be asked for: {request.span}")
        opening = _Opening(request, _path(request.url))
        try:
            head = await self.run(opening.open, request.url, self._pacing.first_byte_s)
        except BaseException:
            await _closed(opening.leave())
            raise
        return _FileResponse(head, opening, self)

    async def run(self, work: Callable[[], T], url: str, limit_s: float | None = None) -> T:
        """Do something with a file in a thread, which goes on alone when it takes too long.

        Args:
            work: what to do.
            url: whose the file is.
            limit_s: how long it may take; None for as long as a body may be silent.

        Raises:
            DeadlineError: it took longer.
        """
        limit_s = self._pacing.stall_s if limit_s is None else limit_s
        try:
            with trio.fail_after(limit_s):
                return await trio.to_thread.run_sync(
                    work, limiter=self._threads, abandon_on_cancel=True
                )
        except trio.TooSlowError as error:
            what = f"{shown(url)}: its disk did not answer within {limit_s:g} s"
            raise DeadlineError(what) from error

    @override
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _Opening:
    """A file that is open for as long as somebody reads it, or a thread is at it.

    Concurrency: ``open`` and ``read`` in a thread, one at a time; ``leave`` anywhere.
    """

    def __init__(self, request: Request, path: bytes) -> None:
        self._request = request
        self._path = path
        self._version = Validator()
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._used = False
        self._left = False

    def open(self) -> Head:
        """Open it where there is something to be read, and say what there is. Blocks."""
        fd, self._version = _open(self._request.url, self._path)
        try:
            head = _head(self._request, self._version)
        except BaseException:
            _close(fd)
            raise
        with self._lock:
            wanted = not self._left and head.span is not None and head.span.length > 0
            if wanted:
                self._fd = fd
        if not wanted:
            _close(fd)
        return head

    def read(self, span: Span) -> bytes:
        """The first bytes of a span, at most 1 MiB; with the last ones it is closed. Blocks.

        Raises:
            SourceChangedError: the file is not the one that was opened any more.
            UnreachableError: the disk or its server failed.
        """
        url = self._request.url
        with self._lock:
            if self._fd is None:
                raise trio.ClosedResourceError(f"{shown(url)}: closed")
            fd, self._used = self._fd, True
        ended = False
        try:
            piece = os.pread(fd, min(_PIECE, span.length), span.start)
            version = _version(os.fstat(fd))
            ended = len(piece) == span.length
        except OSError as error:
            raise _failure(url, error) from error
        finally:
            with self._lock:
                self._used = False
                over = ended or self._left
                if over:
                    self._fd = None
            if over:
                _close(fd)
        if not piece or version != self._version:
            raise SourceChangedError(
                f"{shown(url)}: changed while it was read", hint="a new mount reads it anew"
            )
        return piece

    def leave(self) -> int | None:
        """Nobody reads any more; what the caller has to close: a thread that is at it does so."""
        with self._lock:
            self._left = True
            if self._used:
                return None
            fd, self._fd = self._fd, None
            return fd


class _FileResponse(Response):
    def __init__(self, head: Head, opening: _Opening, transport: FileTransport) -> None:
        self._head = head
        self._opening = opening
        self._transport = transport
        self._at, self._stop = (head.span.start, head.span.stop) if head.span else (0, 0)
        self._closed = False

    @property
    @override
    def head(self) -> Head:
        return self._head

    @override
    async def receive(self) -> bytes:
        """The next bytes of the file.

        Raises:
            SourceChangedError: the file is not the one that was opened any more.
            UnreachableError: the disk or its server failed.
            DeadlineError: nothing came in time.
        """
        if self._closed:
            raise trio.ClosedResourceError(f"{shown(self._head.url)}: closed")
        if self._at == self._stop:
            return b""
        read = partial(self._opening.read, Span(self._at, self._stop))
        piece = await self._transport.run(read, self._head.url)
        self._at += len(piece)
        return piece

    @override
    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await _closed(self._opening.leave())


def _close(fd: int) -> None:
    """Close it. Blocks."""
    # Nothing was written, what was read is right, and it is closed even if that fails (close(2)).
    with suppress(OSError):
        os.close(fd)


async def _closed(fd: int | None) -> None:
    """Close it. Its server may be asked for that too, so a thread does it, and is not waited for.

    Cancellation: carried through.
    """
    if fd is not None:
        with trio.CancelScope(shield=True), trio.move_on_after(_CLOSE_S):
            own = trio.CapacityLimiter(1)  # there is always a thread for this
            await trio.to_thread.run_sync(_close, fd, limiter=own, abandon_on_cancel=True)


def _path(url: str) -> bytes:
    """The path of a file URL.

    Source: RFC 8089 §2.
    """
    parts = split(url)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        raise InvalidReferenceError(f"{shown(url)}: not a file of this machine")
    path = unquote_to_bytes(parts.path)
    if parts.query or not path.startswith(b"/") or b"\0" in path:
        raise InvalidReferenceError(f"{shown(url)}: no absolute path", hint="file:///path")
    return path


def _open(url: str, path: bytes) -> tuple[int, Validator]:
    try:
        # Not to wait for the other end of a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _failure(url, error) from error
    try:
        status = os.fstat(fd)
    except OSError as error:
        _close(fd)
        raise _failure(url, error) from error
    if stat.S_ISREG(status.st_mode):
        return fd, _version(status)
    _close(fd)
    raise RefusedError(f"{shown(url)}: not a regular file")


def _version(status: os.stat_result) -> Validator:
    return Validator(size=status.st_size, mtime_ns=status.st_mtime_ns)


def _head(request: Request, version: Validator) -> Head:
    size = version.size or 0
    unchanged = request.if_changed is not None and request.if_changed == version
    span = request.span
    if request.if_range is not None and request.if_range.text not in ("", version.text):
        span = None
    if not size and span is not None and span.start == 0:
        span = None  # as for http: no part of nothing can be had, all of it can
    if span is not None and span.start >= size and not unchanged:
        raise RefusedError(f"{shown(request.url)}: {span} is behind its end", total=size)
    part = Span(0, size) if span is None else span.clamp(size)
    return Head(
        url=request.url,
        status=304 if unchanged else 200 if span is None else 206,
        validator=version,
        span=None if unchanged or request.method == "HEAD" else part,
        total=None if unchanged else size,
        unchanged=unchanged,
        ranges=True,
    )


def _failure(url: str, error: OSError) -> CafsError:
    family = _FAMILIES.get(error.errno or 0, RefusedError)
    return family(f"{shown(url)}: {error.strerror}")
