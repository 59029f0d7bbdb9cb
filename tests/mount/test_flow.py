"""How bytes flow through a mount: fairly among readers, and to them before prefetches."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.faults import Latency, Rate
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SIZE = 16 * MIB


def read_whole(path: Path) -> tuple[str, float]:
    """The digest of a file, and when its last byte had come."""
    with path.open("rb", buffering=0) as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return digest, time.monotonic()


@pytest.mark.parametrize("pinned", [False, True])
def test_four_files_that_are_read_at_once_share_a_line_fairly(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    bodies = [Generated(SIZE, seed=number) for number in range(4)]
    project = ""
    for number, body in enumerate(bodies):
        url = origin.put(f"/side{number}", body)
        origin.fault(f"/side{number}", Rate(40e6, shared=True), Latency(0.005))
        pin = f'integrity = "sha256:{body.sha256()}"\n' if pinned else ""
        project += f'[ref.side{number}]\nfrom = "{url}"\n{pin}'
    with cafs.mount(project) as mount, ThreadPoolExecutor(4) as pool:
        began = time.monotonic()
        results = list(pool.map(read_whole, [mount.ref(f"side{number}") for number in range(4)]))
    assert [digest for digest, _ in results] == [body.sha256() for body in bodies]
    took = sorted(end - began for _, end in results)
    # One after the other would be 1 : 4.
    assert took[-1] < 2 * took[0]
    assert origin.bytes_sent() <= 4 * (SIZE + 1)


def test_a_reader_goes_before_a_prefetch_of_the_same_host(cafs: Cafs, origin: Origin) -> None:
    big, small = Generated(160 * MIB, seed=5), Generated(12 * MIB, seed=6)
    urls = {"big": origin.put("/big", big), "small": origin.put("/small", small)}
    for path in ("/big", "/small"):
        origin.fault(path, Rate(10e6, shared=True))
    project = "".join(f'[ref.{name}]\nfrom = "{url}"\n' for name, url in urls.items())
    with cafs.mount(project) as mount:
        assert mount.ref("small").stat().st_size == small.size
        prefetching = cafs.popen("prefetch", "-q", "big")
        try:
            origin.wait_until(lambda _: origin.bytes_sent("/big") > 4 * MIB)
            before = origin.bytes_sent("/big")
            digest, _ = read_whole(mount.ref("small"))
            meanwhile = origin.bytes_sent("/big") - before
        finally:
            prefetching.kill()
            prefetching.communicate()
    assert digest == small.sha256()
    # What was under way in sockets and in the prefetch's buffers still came.
    assert meanwhile < small.size


def test_prefetch_keeps_to_its_limit(cafs: Cafs, origin: Origin) -> None:
    body = Generated(3 * MIB, seed=7)
    url = origin.put("/limited", body)
    cafs.project(f'[ref.limited]\nfrom = "{url}"\n')
    began = time.monotonic()
    cafs.run("prefetch", "-q", "--limit", "2MiB/s")
    assert time.monotonic() - began > 1.0
    assert origin.bytes_sent("/limited") == 3 * MIB


def test_many_small_refs_are_prefetched_side_by_side(cafs: Cafs, origin: Origin) -> None:
    origin.fault("/small/*", Latency(0.3))
    project = ""
    for number in range(60):
        url = origin.put(f"/small/{number}", Generated(1000 + number, seed=number))
        project += f'[ref.f{number}]\nfrom = "{url}"\n'
    cafs.project(project)
    began = time.monotonic()
    done = cafs.run("prefetch")
    took_s = time.monotonic() - began
    lines = done.stdout.splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(f"f{at}" for at in range(60))
    # The waits alone, one after the other.
    assert took_s < 60 * 0.3
    assert len(origin.requests) == 60
