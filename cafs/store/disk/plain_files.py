"""Files that somebody else has put there, in a checkout say: opened without trusting what they are.

In the place of a file there may be a pipe, which would be waited for without end, a device, which
never ends, or a link to what is none of our business. And it need not be as long as it was.
"""

import os
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

from cafs.model.digest import Digest, Hasher

_PIECE: Final = 1 << 20
_NEVER_WAIT: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class NoPlainFileError(OSError):
    """Something is there that is no file, or that is not to be read; ``strerror`` says what."""

    def __init__(self, what: str) -> None:
        super().__init__(0, what)


def open_plain(path: Path) -> FileIO:
    """Open a regular file for reading.

    Raises:
        NoPlainFileError: it is no regular file.
        OSError: it cannot be opened.
    """
    descriptor = os.open(path, _NEVER_WAIT)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NoPlainFileError("is no file")
    return FileIO(descriptor)


def what_is_wrong(
    path: Path,
    expected: Digest,
    *,
    size: int | None,
    most: int,
    inside: Path | None = None,
    beat: Callable[[], object] = lambda: None,
) -> str:
    """What keeps a file from being what it must be, with its path; empty for a right one. Blocks.

    Args:
        path: the file.
        expected: the digest that it must have, a sha256.
        size: bytes that it must have, None where nobody said. Another size is not even read.
        most: bytes that it may have.
        inside: the directory that no link may lead out of; None where that does not matter.
        beat: called for each piece that is hashed; what it raises ends that.

    Raises:
        FileNotFoundError: there is nothing.
    """
    try:
        if inside is not None and not _within(path, inside):
            return f"{path}: leads out of {inside}"
        with open_plain(path) as file:
            length = os.fstat(file.fileno()).st_size
            if size is not None and length != size:
                return f"{path}: expected {expected} ({size} bytes), it has {length} bytes"
            if length > most:
                return f"{path}: {length} bytes; {most} are allowed"
            hasher = Hasher()
            # One byte more than there was tells that it has grown.
            while hasher.size <= length and (data := file.read(_PIECE)):
                hasher.update(data)
                beat()
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"{path}: {error.strerror}"
    actual = hasher.digest()
    return "" if actual == expected else f"{path}: expected {expected}, got {actual}"


def _within(path: Path, directory: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))
