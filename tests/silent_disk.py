"""A disk that answers nobody: a mount of the kernel's FUSE with no program behind it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

LIBC: Final = ctypes.CDLL(None, use_errno=True)
DETACH: Final = 2


@contextmanager
def silent(point: Path) -> Iterator[None]:
    """A file system of which nobody answers any question, until the end of the block."""
    point.mkdir()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    try:
        if LIBC.mount(b"test", bytes(point), b"fuse.test", 0, data.encode()):
            pytest.skip(f"mounting: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(device)  # now everybody is told that nobody will answer
        LIBC.umount2(bytes(point), DETACH)
