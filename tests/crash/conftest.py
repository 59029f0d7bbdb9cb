"""Scratch in memory: a process that is killed leaves what it wrote, synced or not."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_MEMORY: Final = Path("/dev", "shm")
_ENOUGH: Final = 2 << 30


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """A directory for one test, where syncing takes no time.

    Here stores are opened, written and synced hundreds of times, and a disk does nothing else then.
    Where there is no room in memory, it is on the disk.
    """
    try:
        room = os.statvfs(_MEMORY)
    except OSError:
        room = None
    if room is None or room.f_bavail * room.f_frsize < _ENOUGH or not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="cafs-test-", dir=_MEMORY))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
