"""What the kernel has cached does not reach the worker (20,000 files: ``scripts/bench warm``)."""

import ctypes
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from cafs.testing.archives import many_files_tar
from cafs.testing.command import Mount
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES = 4_000
PASSES = 3
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


@dataclass(frozen=True)
class Pass:
    """What a pass found, and what of it reached the worker."""

    count: int
    total: int
    cold: int
    lookups: int
    getattrs: int
    reads: int

    @classmethod
    def over(cls, root: int, mounted: Mount) -> "Pass":
        """Make one."""
        before = mounted.status()["requests"]
        found = walk(root)
        after = mounted.status()["requests"]
        asked = (after[name] - before[name] for name in ("lookup", "getattr", "read"))
        return cls(*found, *asked)


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
            assert mounted.status()["requests"]["read"] >= FILES
            passes = [Pass.over(root, mounted) for _ in range(PASSES)]
        finally:
            os.close(root)
    assert {(each.count, each.total) for each in passes} == {(FILES, size)}
    # A machine may take back pages and names that nobody has used for a while, and a pass in which
    # it did proves nothing. What it took of pages was known before each read; nothing but that may
    # reach the worker.
    assert any(
        not each.lookups
        # The ref's own directory is no part of the tree: it may change, and is asked about once.
        and each.getattrs <= 1
        and each.cold < FILES // 10
        and each.reads <= each.cold
        for each in passes
    ), passes
