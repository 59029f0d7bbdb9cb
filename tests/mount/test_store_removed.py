"""The store's directory is removed under a live mount: errors or right bytes, then whole again."""

import os
import shutil
import time
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20


def drop_caches(mounted: Path) -> None:
    """The kernel forgets the pages of the files, so that reading asks the worker again."""
    for path in (path for path in mounted.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_a_mount_whose_store_is_removed_is_whole_again(cafs: Cafs, origin: Origin) -> None:
    noise = Generated(8 * MIB, seed=5)
    items = {f"f{number}": (0o644, noise.read(number * MIB, MIB)) for number in range(8)}
    pinned = Generated(2 * MIB, seed=6)
    tree = origin.put("/tree.tar.gz", tar_bytes(items, compression="gz"))
    big, later = origin.put("/big", pinned), origin.put("/later", Generated(MIB, seed=7))
    project = f"""
[mount]
path = "cafs"
[ref.tree]
from = "{tree}"
[ref.big]
from = "{big}"
integrity = "sha256:{pinned.sha256()}"
[ref.later]
from = "{later}"
"""
    cafs.expect_log("store|statfs|No such file")
    with cafs.mount(project) as mounted:
        right = {mounted.ref("tree") / name: body for name, (_, body) in items.items()}
        right[mounted.ref("big")] = pinned.read(0, 2 * MIB)
        right[mounted.ref("later")] = Generated(MIB, seed=7).read(0, MIB)

        def all_right() -> bool:
            """Whether everything can be read; what can be read is right in any case."""
            read = 0
            drop_caches(mounted.ref("tree"))
            for path, body in right.items():
                try:
                    found = path.read_bytes()
                except OSError:
                    continue
                assert found == body
                read += 1
            return read == len(right)

        assert (mounted.ref("tree") / "f3").read_bytes() == items["f3"][1]
        assert mounted.ref("big").read_bytes() == pinned.read(0, 2 * MIB)
        shutil.rmtree(cafs.store)
        limit = time.monotonic() + 120
        while not all_right():
            assert time.monotonic() < limit
        cafs.run("prefetch", "-q")
        assert list(cafs.store.glob("blobs/sha256/*/*"))
        assert all_right()
