"""A small disk of a test's own, and how it becomes full: a tmpfs, which only root can mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TOLD_IN_TIME = pytest.mark.expects_log("store.checkpoint.failed|store.uses.unwritten")
"""What is due every few seconds finds the disk full too, if a test takes that long."""


@contextmanager
def disk_of(path: Path, mib: int) -> Iterator[Path]:
    """An empty file system of a size."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    path.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", path],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs: {made.stderr.decode()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(path: Path, number: int = 0) -> Path:
    """Fill a disk to its last block; the file that does it."""
    filler = path / f"filler{number}"
    done = subprocess.run(
        ["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], check=False, capture_output=True, text=True
    )
    assert "No space" in done.stderr
    return filler


def free(path: Path) -> int:
    """Bytes that are free on a disk."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
