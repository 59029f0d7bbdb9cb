"""The door to the files of a store: what lies in the place of one may be something else.

A directory, a fifo, a link, a device: whoever put it there, nobody waits for it, follows it or
writes into it. It is no file, so the file is not there, as if somebody had removed it. What is in
the way of a new file is put aside. A file that may not be read, or of which the disk has lost
bytes, is damage of the one item that it belongs to.
"""

import errno
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOG: Final = logging.getLogger("cafs.store")
CLOSED: Final = frozenset({errno.EACCES, errno.EPERM})
"""What the system says of one file that somebody has closed to us; the others may be all right."""
UNREADABLE: Final = CLOSED | {errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EISDIR}
"""The same, and what it says when the disk has lost bytes of it. A reader does not conclude that
from one read, since all of the disk may be failing."""
_NO_FILE: Final = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO})
"""What opening a directory for writing, a link, or a socket gives."""
_SAFELY: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file of the store, for the caller to close. It never waits. A new one is ours alone.

    Raises:
        FileNotFoundError: there is none; what has its name is no file.
        OSError: the disk failed, or, with a number in ``UNREADABLE``, that file is of no use.
    """
    try:
        descriptor = os.open(path, flags | _SAFELY, 0o600)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _none(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _none(path)
    return descriptor


def _none(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "Not a file", os.fspath(path))


def file_size(path: Path) -> int | None:
    """The bytes of a file of the store; None when there is none.

    Raises:
        OSError: that cannot be found out.
    """
    try:
        info = path.lstat()
    except FileNotFoundError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def is_foreign(path: Path) -> bool:
    """Whether something is there that is no file.

    Raises:
        OSError: that cannot be found out.
    """
    with suppress(FileNotFoundError):
        return not stat.S_ISREG(path.lstat().st_mode)
    return False


def make_way(path: Path, quarantine: Path) -> None:
    """Put aside what is there and is no file; a file is left alone.

    Raises:
        OSError: the disk failed.
    """
    if is_foreign(path):
        target = quarantine / f"foreign-{time.time_ns()}-{path.name}"
        with suppress(FileNotFoundError):
            path.rename(target)
            _LOG.warning("store.foreign path=%s moved_to=%s", path, target)


def remove(path: Path) -> None:
    """Remove a file of the store, if it is there. A directory is none, and stays.

    Raises:
        OSError: it cannot be removed.
    """
    with suppress(FileNotFoundError, IsADirectoryError):
        path.unlink()
