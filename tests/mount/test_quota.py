"""A mount whose store may have only a little: right bytes, again and again, within the quota."""

import os
import time
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated, Literal
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

MIB = 1 << 20
QUOTA = 4 * MIB
AHEAD = 36 * MIB
"""What may be in flight of one stream that is read forward, at most."""


def content_of(store: Path) -> int:
    """Bytes on the disk of blobs and streams."""
    files = [*store.glob("blobs/sha256/*/*"), *store.glob("streams/*/*")]
    return sum(_size(path) for path in files)


def _size(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:  # it went while we looked
        return 0


def test_many_files_are_read_through_a_small_store(cafs: Cafs, origin: Origin) -> None:
    bodies = {f"f{number}": Generated(MIB, seed=number).read(0, MIB) for number in range(40)}
    toml = "".join(
        f'[ref.{name}]\nfrom = "{origin.put(f"/{name}", Literal(data))}"\n'
        for name, data in bodies.items()
    )
    with cafs.mount(toml, "--quota", "4MiB") as mount:
        most = 0
        for _ in range(2):
            for name, data in bodies.items():
                assert mount.ref(name).read_bytes() == data
                most = max(most, content_of(cafs.store))
        assert most <= QUOTA + 4 * MIB
        room = mount.status()["room"]
        assert room["quota"] == QUOTA
        assert room["used"] <= QUOTA + 2 * MIB


def test_a_file_of_ten_times_the_quota_is_read_through_it(cafs: Cafs, origin: Origin) -> None:
    size = 10 * QUOTA
    url = origin.put("/big", Generated(size, seed=1))
    with cafs.mount(f'[ref.big]\nfrom = "{url}"\n', "--quota", "4MiB") as mount:
        with mount.ref("big").open("rb", buffering=0) as opened:
            most = 0
            for offset in range(0, size, MIB):
                data = os.pread(opened.fileno(), MIB, offset)
                assert data == Generated(size, seed=1).read(offset, MIB)
                most = max(most, content_of(cafs.store))
        assert most <= QUOTA + AHEAD
        deadline = time.monotonic() + 60
        while content_of(cafs.store) > QUOTA:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_archive_that_does_not_fit_is_read_all_the_same(cafs: Cafs, origin: Origin) -> None:
    members = {f"m{number}": Generated(MIB, seed=number).read(0, MIB) for number in range(12)}
    archive = tar_bytes({name: (0o644, data) for name, data in members.items()}, compression="gz")
    url = origin.put("/tool.tar.gz", Literal(archive))
    with cafs.mount(f'[ref.tool]\nfrom = "{url}"\n', "--quota", "4MiB") as mount:
        for name in ("m0", "m11", "m5", "m0"):
            assert (mount.ref("tool") / name).read_bytes() == members[name]


def test_what_is_pinned_stays_while_others_come_and_go(cafs: Cafs, origin: Origin) -> None:
    bodies = {f"f{number}": Generated(MIB, seed=number).read(0, MIB) for number in range(12)}
    toml = "".join(
        f'[ref.{name}]\nfrom = "{origin.put(f"/{name}", Literal(data))}"\n'
        for name, data in bodies.items()
    )
    with cafs.mount(toml, "--quota", "4MiB") as mount:
        assert mount.ref("f0").read_bytes() == bodies["f0"]
        cafs.run("pin", "f0")
        for name, data in bodies.items():
            assert mount.ref(name).read_bytes() == data
        local = os.getxattr(mount.ref("f0"), "user.cafs.present").decode()
        assert local == f"{MIB}/{MIB}"
