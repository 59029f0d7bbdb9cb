"""Scratch: directories on a store's disk for files of one process, which are for nobody else.

A directory is flocked by whoever has made it, and goes with the block. What kill -9 has left there
is locked by nobody: it is removed by the next who makes one, and by gc. Everything here blocks.
"""

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cafs.store.disk.files import storage_error
from cafs.store.disk.locking import flock

FOLDER: Final = "scratch"
"""Where they are, below the store's directory."""
_NAME: Final = re.compile(r"[0-9a-f]{16}")
_MODE: Final = 0o700
_NONE_OF_OURS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What opening a directory says where there is none by now, or something else."""


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """Have a new directory as long as the block lasts. Another thread may leave the block.

    Args:
        root: the store's directory.

    Raises:
        StorageError: it cannot be made.
    """
    folder = root / FOLDER
    try:
        for each in left(root):
            remove(each)
        folder.mkdir(mode=_MODE, exist_ok=True)
        path, descriptor = _make(folder)
    except OSError as error:
        raise storage_error(error, f"{folder}: cannot be used") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)  # what stays is removed as that of a killed one is
        os.close(descriptor)


def left(root: Path) -> Iterator[Path]:
    """The directories whose makers have died; another user's are for them to remove.

    Raises:
        OSError: it cannot be told.
    """
    folder = root / FOLDER
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        descriptor = None
        if _NAME.fullmatch(path.name):
            with suppress(PermissionError):
                descriptor = _taken(path)
        if descriptor is not None:
            os.close(descriptor)
            yield path


def remove(path: Path) -> bool:
    """Remove one whose maker has died; whether it was such a one.

    Raises:
        OSError: it cannot be told.
    """
    descriptor = _taken(path)
    if descriptor is None:
        return False
    try:
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        os.close(descriptor)


def _make(folder: Path) -> tuple[Path, int]:
    """Make one, and lock it. Who looks for left ones may have been between the two."""
    while True:
        path = folder / secrets.token_hex(8)
        path.mkdir(mode=_MODE)
        try:
            descriptor = _taken(path)
        except OSError:
            with suppress(OSError):
                path.rmdir()
            raise
        if descriptor is None:
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return path, descriptor
        os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The descriptor of a directory, locked; None where it has gone, or somebody else has it.

    Raises:
        OSError: it cannot be opened, or not be locked. Nobody may try again at once.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NONE_OF_OURS:
            return None
        raise
    ours = False
    try:
        ours = flock(descriptor, exclusive=True, wait=False)
    finally:
        if not ours:
            os.close(descriptor)
    return descriptor if ours else None
