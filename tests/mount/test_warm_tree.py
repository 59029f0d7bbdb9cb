"""What the kernel has cached does not reach the worker."""

import os
from pathlib import Path

import pytest
from cafs.testing.archives import many_files_tar

from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES = 20_000


def walk(root: Path) -> tuple[int, int]:
    """Stat and read every file; how many there are, and how many bytes they have."""
    count = size = 0
    for directory, _directories, names in os.walk(root):
        for name in names:
            path = f"{directory}/{name}"
            expected = os.stat(path).st_size
            with open(path, "rb") as opened:
                assert len(opened.read()) == expected
            count += 1
            size += expected
    return count, size


def test_a_second_pass_over_20_000_files_sends_no_stat_and_no_read(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    archive = tmp_path / "many.tar.gz"
    size = many_files_tar(archive, files=FILES)
    url = origin.put("/many.tar.gz", archive)
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.many]\nfrom="{url}"\n') as mounted:
        root = mounted.path / "ref/many"
        assert walk(root) == (FILES, size)
        first = mounted.status()["requests"]
        assert first["read"] >= FILES
        assert walk(root) == (FILES, size)
        second = mounted.status()["requests"]
        assert second["read"] == first["read"]
        # Two paths were looked at in between that are not of the tree: `.cafs` and `status.json`.
        assert second.get("getattr", 0) - first.get("getattr", 0) <= 2
        assert second["lookup"] - first["lookup"] <= 4
