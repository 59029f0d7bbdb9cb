"""What the kernel has cached does not reach the worker (20,000 files: ``scripts/bench warm``)."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from cafs.testing.archives import many_files_tar
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES = 4_000
LIBC = ctypes.CDLL(None, use_errno=True)


def is_cached(fd: int, size: int) -> bool:
    """Whether all pages of an open file are in the page cache (mincore(2))."""
    with mmap.mmap(fd, size, mmap.MAP_PRIVATE) as mapped:
        pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        failed = LIBC.mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), pages)
        assert not failed, os.strerror(ctypes.get_errno())
        return all(page & 1 for page in pages.raw[: len(pages)])


def walk(root: int) -> tuple[int, int, int]:
    """Stat and read every file below an open directory.

    Returns:
        How many there are, how many bytes they have, and how many were not cached just before.
    """
    count = total = cold = 0
    for _path, _directories, names, directory in os.fwalk(".", dir_fd=root):
        for name in names:
            size = os.stat(name, dir_fd=directory).st_size
            fd = os.open(name, os.O_RDONLY, dir_fd=directory)
            try:
                cold += not is_cached(fd, size)
                assert len(os.read(fd, size + 1)) == size
            finally:
                os.close(fd)
            count += 1
            total += size
    return count, total, cold


def test_a_second_pass_over_many_files_sends_no_stat_and_no_read(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    archive = tmp_path / "many.tar.gz"
    size = many_files_tar(archive, files=FILES)
    url = origin.put("/many.tar.gz", archive)
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.many]\nfrom="{url}"\n') as mounted:
        # From a descriptor on, so that every name that is looked up lies in the tree.
        root = os.open(mounted.path / "ref/many", os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert walk(root) == (FILES, size, FILES)
            first = mounted.status()["requests"]
            assert first["read"] >= FILES
            count, total, cold = walk(root)
            second = mounted.status()["requests"]
        finally:
            os.close(root)
    assert (count, total) == (FILES, size)
    assert second["lookup"] == first["lookup"]
    # The ref's own directory is no part of the tree: it may change, and is asked about once.
    assert second["getattr"] - first["getattr"] <= 1
    # A machine may take back pages that nobody has used for a while. What it took was known before
    # each read; nothing but that may reach the worker.
    assert cold < FILES // 10
    assert second["read"] - first["read"] <= cold
