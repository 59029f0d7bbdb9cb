"""Files: ``file:///path`` as a source, with its size and modification time as the version."""

import errno
import os
import stat
from typing import Final
from urllib.parse import unquote_to_bytes

import trio
from typing_extensions import override

from cafs.errors import (
    AccessError,
    CafsError,
    InvalidReferenceError,
    NotFoundError,
    RefusedError,
    SourceChangedError,
    UnreachableError,
)
from cafs.model.address import shown
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.interfaces import Head, Request, Response, Transport
from cafs.transport.urls import split

_PIECE: Final = 1 << 20
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

    Concurrency: any number of tasks. The disk is touched in threads only.
    """

    @override
    async def open(self, request: Request) -> Response:
        """Open the file.

        Raises:
            NotFoundError: no such file.
            AccessError: it may not be read.
            RefusedError: it is no regular file, or the span lies behind its end (``total`` tells).
            UnreachableError: the disk or its server failed.

        Cancellation: no effect; waits for the disk first.
        """
        if request.span is not None and not request.span.length:
            raise ValueError(f"an empty span cannot be asked for: {request.span}")
        path = _path(request.url)
        fd, version = await trio.to_thread.run_sync(_open, request.url, path)
        try:
            head = _head(request, version)
        except BaseException:
            os.close(fd)
            raise
        return _FileResponse(head, fd, version)

    @override
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _FileResponse(Response):
    def __init__(self, head: Head, fd: int, version: Validator) -> None:
        self._head = head
        self._fd = fd
        self._version = version
        self._at, self._stop = (head.span.start, head.span.stop) if head.span else (0, 0)
        self._reading = False
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
        """
        if self._closed:
            raise trio.ClosedResourceError(f"{shown(self._head.url)}: closed")
        if self._at == self._stop:
            return b""
        self._reading = True
        try:
            piece = await trio.to_thread.run_sync(self._read)
        finally:
            self._reading = False
            self._let_go()
        self._at += len(piece)
        return piece

    @override
    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        # A thread that reads would read from whoever gets the number next; it ends first.
        if self._closed and not self._reading:
            os.close(self._fd)

    def _read(self) -> bytes:
        url = self._head.url
        try:
            piece = os.pread(self._fd, min(_PIECE, self._stop - self._at), self._at)
            version = _version(os.fstat(self._fd))
        except OSError as error:
            raise _failure(url, error) from error
        if not piece or version != self._version:
            raise SourceChangedError(
                f"{shown(url)}: changed while it was read", hint="a new mount reads it anew"
            )
        return piece


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
        os.close(fd)
        raise _failure(url, error) from error
    if stat.S_ISREG(status.st_mode):
        return fd, _version(status)
    os.close(fd)
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
