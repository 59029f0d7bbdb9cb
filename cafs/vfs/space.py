"""How much room there is on the disk of the store, as programs are told of the mount."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec
import trio

from cafs.errors import StorageError


class Space(msgspec.Struct, frozen=True):
    """The room of the file system that the store is on. Bytes; ``available`` is for this user."""

    size: int
    free: int
    available: int


async def space_at(path: Path, limiter: trio.CapacityLimiter) -> Space:
    """The room where a directory is, or where it would be.

    Args:
        path: absolute.
        limiter: of the thread that asks; a disk may take long to answer.

    Raises:
        StorageError: the disk does not tell.

    Cancellation: no effect; the thread is left to itself.
    """
    try:
        room = await trio.to_thread.run_sync(
            _disk_of, path, abandon_on_cancel=True, limiter=limiter
        )
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    unit = room.f_frsize
    return Space(room.f_blocks * unit, room.f_bfree * unit, room.f_bavail * unit)


def _disk_of(path: Path) -> os.statvfs_result:
    """What the system tells of the disk that a path is on, or would be."""
    for place in path.parents:
        with suppress(FileNotFoundError):
            return os.statvfs(path)
        path = place
    return os.statvfs(path)
