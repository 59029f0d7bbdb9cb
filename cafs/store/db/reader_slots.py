"""The table of LMDB's readers, made before LMDB maps it.

The table is a file that all processes map and write into. It begins as a hole: the first reader
that needs another page of it gets that page from the disk, and where the disk is full, is killed by
SIGBUS. So all its blocks are there before it is mapped.

Source: mdb.c, ``mdb_env_setup_locks`` and ``mdb_txn_renew0``; mmap(2), "SIGBUS".
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cafs.store.disk.files import FULL

_SLOT: Final = 64
"""Bytes of a reader, one cache line; the header is about as long, and LMDB appends it."""
_LEAST: Final = 128
"""Readers that there must be a place for."""
_BLOCK: Final = 512


def settle(path: Path, readers: int, make_room: Callable[[], bool]) -> None:
    """Give the table of an environment its blocks, before this process opens the environment.

    Not afterwards: the locks that a process has on a file end when it closes any descriptor of it.

    Args:
        path: of the table.
        readers: how many slots it has; on a full disk some will do.
        make_room: frees some disk space; whether there was anything to free.

    Raises:
        OSError: there is no space, or the disk failed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_blocks * _BLOCK >= readers * _SLOT:
            return
        if _allocate(descriptor, readers):
            return
        make_room()  # where that is nothing, another process may have done it since
        if not _allocate(descriptor, readers):
            os.posix_fallocate(descriptor, 0, _LEAST * _SLOT)
    finally:
        os.close(descriptor)


def _allocate(descriptor: int, readers: int) -> bool:
    """Whether there was space for so many."""
    try:
        os.posix_fallocate(descriptor, 0, readers * _SLOT)
    except OSError as error:
        if error.errno in FULL:
            return False
        raise
    return True
