"""gc and rm under live mounts: readers go on, and get right bytes or their own again."""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Mount
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20
MEMBERS = {f"d{number % 7}/f{number}": (0o644, b"%d" % number * 999) for number in range(300)}
TREE = tar_bytes(MEMBERS, compression="gz")
BODY = Generated(4 * MIB, seed=9)


def project(origin: Origin) -> str:
    tree, model = origin.put("/t.tgz", TREE), origin.put("/model.bin", BODY)
    return f'[mount]\npath="cafs"\n[ref.tree]\nfrom="{tree}"\n[ref.model]\nfrom="{model}"\n'


def read_all(mounted: Mount) -> int:
    """Read everything once, past the kernel's cache; how many files."""
    count = 0
    for name, (_, data) in MEMBERS.items():
        path = mounted.ref("tree") / name
        forget_pages(path)
        assert path.read_bytes() == data
        count += 1
    forget_pages(mounted.ref("model"))
    data = mounted.ref("model").read_bytes()
    assert hashlib.sha256(data).hexdigest() == BODY.sha256()
    return count


def forget_pages(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def test_b_s4_gc_beside_readers_takes_nothing_from_them(cafs: Cafs, origin: Origin) -> None:
    with cafs.mount(project(origin)) as mounted:
        read_all(mounted)
        listing = sorted(os.listdir(mounted.ref("tree")))
        with ThreadPoolExecutor() as pool:
            reading = [pool.submit(read_all, mounted) for _ in range(4)]
            told = [
                json.loads(cafs.run("gc", "--json", "--older-than", "0s").stdout.splitlines()[-1])
                for _ in range(4)
            ]
            assert all(each.result() == len(MEMBERS) for each in reading)
        assert all(each["failed"] == 0 for each in told)
        assert sorted(os.listdir(mounted.ref("tree"))) == listing
        read_all(mounted)


def test_a_mount_shows_what_rm_removed_and_fetches_it_again(cafs: Cafs, origin: Origin) -> None:
    with cafs.mount(project(origin)) as mounted:
        read_all(mounted)
        first = (mounted.ref("tree") / "d0/f0").stat().st_ino
        origin.forget()
        told = cafs.run("rm", "tree", "model").stdout
        assert f"tree: {mounted.path} goes on to show it" in told
        assert (mounted.ref("tree") / "d0/f0").stat().st_ino == first
        assert not origin.requests
        read_all(mounted)
        assert origin.requests
        read_all(mounted)
    again = json.loads(cafs.run("du", "--json", "model").stdout.splitlines()[0])
    assert again["bytes"] in {0, 4 * MIB}


def test_gc_takes_no_tree_that_a_mount_shows(cafs: Cafs, origin: Origin) -> None:
    toml = project(origin).replace("[ref.model]", "strip = 1\n[ref.model]")
    with cafs.mount(toml) as mounted:
        names = sorted(os.listdir(mounted.ref("tree")))
        told = cafs.run("gc", "--older-than", "0s", "--json").stdout.splitlines()
        assert "tree" not in {json.loads(line).get("kind") for line in told}
        assert sorted(os.listdir(mounted.ref("tree"))) == names
        assert (mounted.ref("tree") / "f0").read_bytes() == b"0" * 999
    kinds = [
        json.loads(line).get("kind")
        for line in cafs.run("gc", "--older-than", "0s", "--json").stdout.splitlines()
    ]
    assert kinds.count("tree") == 2
