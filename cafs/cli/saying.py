"""Writing to standard output, and what becomes of it when that fails."""

import errno
import os
import sys
from typing import Final

from cafs.errors import StorageError, StorageFullError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class ReaderGoneError(Exception):
    """Whoever read our output has gone (``cafs ls | head``); the command ends as a filter does.

    It is not an OSError, since click ends the process by itself when it sees a broken pipe.
    """


def say(line: str | bytes) -> None:
    """Write one line.

    Raises:
        ReaderGoneError: nobody reads any more.
        StorageError: it cannot be written, as on a full disk.
    """
    text = line.encode(errors="surrogateescape") if isinstance(line, str) else line
    write(text + b"\n")


def write(content: bytes) -> None:
    """Write bytes as they are. A slow reader blocks it: in trio, call it in a thread.

    Raises:
        ReaderGoneError: nobody reads any more.
        StorageError: they cannot be written, as on a full disk.
    """
    if sys.stdout is None:  # closed by whoever started us (`cafs ls >&-`)
        raise ReaderGoneError
    left = memoryview(content)
    try:
        while left:
            # Past Python's buffer, which would be flushed again at exit, and fail again.
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError as error:
        raise ReaderGoneError from error
    except OSError as error:
        kind = StorageFullError if error.errno in _FULL else StorageError
        raise kind(f"cannot write to standard output: {error.strerror}") from error
