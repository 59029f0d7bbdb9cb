"""Reading files without opening them each time: a bounded cache of descriptors, and one read.

A read of what the kernel has cached is answered where it is asked; what must come from the disk is
read in a thread.
"""

import ctypes
import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from cachetools import LRUCache

from cafs.errors import StorageError, StorageFullError
from cafs.model.span import Span
from cafs.store.disk.door import open_file, remove

DESCRIPTORS: Final = 256
"""Files kept open for reading; a process may have 1,024 by default, and others need some."""
_SMALL: Final = 64 << 10
"""Bytes of a file that may stay on the disk while others have it open."""
READS: Final = 16
"""Disk reads at one time; more would only queue in the kernel."""
_BUFFER: Final = 1 << 20
"""Bytes read at once from the page cache: the most that a kernel asks for."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What the system says of a disk that has no room."""
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES})
_PUNCH_HOLE: Final = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE, which needs FALLOC_FL_KEEP_SIZE."""
_NO_HOLES: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})
_WOULD_WAIT: Final = frozenset({errno.EAGAIN, errno.EOPNOTSUPP})
"""The pages are not cached, or this file system cannot tell."""


class OpenFile:
    """An open file and how many reads are using it."""

    __slots__ = ("descriptor", "retired", "users")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.users = 0
        self.retired = False


class Files:
    """Open files by path, least recently used closed first, never under a running read.

    Paths are never reused for other content: stream files have random names, blobs are named by
    their content.

    Concurrency: any number of tasks and threads; the lock is held for microseconds.
    """

    def __init__(self, limit: int = DESCRIPTORS) -> None:
        self._limit = limit
        self._open: LRUCache[Path, OpenFile] = LRUCache(limit)
        self._lock = threading.Lock()
        self._reads = trio.CapacityLimiter(READS)
        self._buffer = bytearray(_BUFFER)

    def acquire(self, path: Path) -> OpenFile:
        """The open file at a path; ``release`` it afterwards.

        Raises:
            FileNotFoundError: there is none (and it was not open).
        """
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = OpenFile(open_file(path))
                if len(self._open) >= self._limit:
                    self._retire(self._open.popitem()[1])
                self._open[path] = file
            file.users += 1
            return file

    def release(self, file: OpenFile) -> None:
        """Say that a read is over."""
        with self._lock:
            file.users -= 1
            if file.retired and not file.users:
                os.close(file.descriptor)

    def forget(self, path: Path) -> None:
        """Close the file, once its reads are over."""
        with self._lock:
            file = self._open.pop(path, None)
            if file is not None:
                self._retire(file)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._retire(self._open.popitem()[1])

    def _retire(self, file: OpenFile) -> None:
        file.retired = True
        if not file.users:
            os.close(file.descriptor)

    async def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes; short only at the end of the file.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the disk failed.

        Cancellation: no effect.
        """
        file = self.acquire(path)
        try:
            head = self._read_cached(file.descriptor, offset, length)
            if head is not None and len(head) == length:
                await trio.lowlevel.checkpoint_if_cancelled()
                return head
            return await trio.to_thread.run_sync(
                _read_whole, file.descriptor, offset, length, limiter=self._reads
            )
        finally:
            self.release(file)

    def _read_cached(self, descriptor: int, offset: int, length: int) -> bytes | None:
        """What the page cache has from ``offset`` on, at most ``length``; None where it has none.

        Through one buffer, which only the trio thread uses: a new one would be zeroed first.
        """
        if length > _BUFFER:
            return None
        with memoryview(self._buffer)[:length] as buffer:
            try:
                count = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno in _WOULD_WAIT:
                    return None
                raise
            return bytes(buffer[:count])


def _read_whole(descriptor: int, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length and (data := os.pread(descriptor, length, offset)):
        parts.append(data)
        offset += len(data)
        length -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write_whole(descriptor: int, offset: int, data: memoryview) -> None:
    """Write all of ``data`` at ``offset``. Blocks."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data = data[count:]
        offset += count


def erase(path: Path) -> None:
    """Remove a file that no record names, if it is there; a directory is none, and stays. Blocks.

    The space of a large one comes back though other processes have it open: they keep some files
    open that they read. Who reads it at this moment finds it short, and looks up anew. Small ones
    are not worth it: to cut one takes ext4 twenty times as long as to remove its name.

    Raises:
        OSError: it cannot be removed.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size > _SMALL:
            with suppress(OSError):  # some file systems need space even for that
                path.chmod(0o600)
                os.truncate(path, 0)
    remove(path)


def punch(descriptor: int, span: Span) -> bool:
    """Give the disk space of a span of a file back; False where that cannot be done. Blocks.

    The span reads as zeros afterwards, and the file stays as long as it is.

    Source: fallocate(2), "Deallocating file space".

    Raises:
        OSError: the disk failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    place, length = ctypes.c_int64(span.start), ctypes.c_int64(span.length)
    if not libc.fallocate(descriptor, _PUNCH_HOLE, place, length):
        return True
    code = ctypes.get_errno()
    if code in _NO_HOLES:
        return False
    raise OSError(code, os.strerror(code))


def storage_error(error: OSError, what: str) -> StorageError:
    """The error to raise for one of the system's; ``what`` says what was tried, on what.

    The file that was in the way is named too, where that says more.
    """
    text = f"{what}: {error.strerror or error}"
    if error.filename is not None and os.fspath(error.filename) not in what:
        text = f"{text} ({error.filename})"
    if error.errno in FULL:
        return StorageFullError(text, hint="free space on the store's disk")
    if error.errno in _READ_ONLY:
        hint = "a store must be writable, also to be read from; --store names another one"
        return StorageError(text, hint=hint)
    return StorageError(text)


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlive a power cut. Blocks."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
