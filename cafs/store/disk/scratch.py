"""Scratch: directories on a store's disk for files of one process, which are for nobody else.

A directory is flocked by whoever has made it, and goes with the block. What kill -9 has left there
is locked by nobody: it is removed by the next who makes one, and by gc. Everything here blocks.
"""

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


@contextmanager
def scratch(root: Path) -> Iterator[Path]:
    """Have a new directory as long as the block lasts. Another thread may leave the block.

    Args:
        root: the store's directory.

    Raises:
        StorageError: it cannot be made.
    """
    folder = root / FOLDER
    for each in left(root):
        remove(each)
    try:
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
    """The directories whose makers have died."""
    folder = root / FOLDER
    try:
        paths = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in paths:
        descriptor = _taken(path) if _NAME.fullmatch(path.name) else None
        if descriptor is not None:
            os.close(descriptor)
            yield path


def remove(path: Path) -> bool:
    """Remove one whose maker has died; whether it was such a one."""
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
        descriptor = _taken(path)
        if descriptor is None:
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return path, descriptor
        os.close(descriptor)


def _taken(path: Path) -> int | None:
    """The descriptor of a directory, locked; None where it has gone, or somebody else has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if flock(descriptor, exclusive=True, wait=False):
        return descriptor
    os.close(descriptor)
    return None
