"""Several processes, one store: what one fetches, no other fetches again."""

import gzip
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cafs.fetch.flights.filling import BATCH
from cafs.model.digest import digest_of
from cafs.testing.bodies import Generated
from cafs.testing.faults import Latency, Rate, Stall
from cafs.testing.origin import Origin
from tests.unit.fetch.test_first_pass import tar_of

MIB = 1 << 20
CHILD = Path(__file__).with_name("reading_child.py")
ROOT = Path(__file__).parents[3]


@contextmanager
def child(*args: object) -> Iterator[subprocess.Popen[str]]:
    """A reader that is ready to begin; killed at the end, if it still runs."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def begin(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    assert process.stdout is not None
    received, found = process.stdout.readline().split()
    return int(received), found


@pytest.mark.parametrize("what", ["pin", "range"])
def test_processes_that_read_the_same_download_it_once(
    origin: Origin, tmp_path: Path, what: str
) -> None:
    size = 20 * MIB
    url = origin.put("/shared", Generated(size, seed=1), etag='"v1"')
    origin.fault("/shared", Rate(40 * MIB))
    right = Generated(size, seed=1).sha256()
    tell = '"v1"' if what == "range" else f"sha256:{right}"
    with ExitStack() as stack:
        processes = [
            stack.enter_context(child(tmp_path / "store", url, tell, size, what)) for _ in range(3)
        ]
        for process in processes:
            begin(process)
        outcomes = [outcome(process) for process in processes]
    assert {found for _, found in outcomes} == {right}
    assert sum(received for received, _ in outcomes) <= 1.05 * size


@pytest.mark.parametrize("what", ["pin", "range"])
def test_processes_that_read_the_same_small_file_download_it_once(
    origin: Origin, tmp_path: Path, what: str
) -> None:
    url = origin.put("/small", Generated(20_000, seed=2), etag='"v1"')
    origin.fault("/small", Latency(0.3))
    right = Generated(20_000, seed=2).sha256()
    tell = '"v1"' if what == "range" else f"sha256:{right}"
    with ExitStack() as stack:
        processes = [
            stack.enter_context(child(tmp_path / "store", url, tell, 20_000, what))
            for _ in range(3)
        ]
        for process in processes:
            begin(process)
        outcomes = [outcome(process) for process in processes]
    assert {found for _, found in outcomes} == {right}
    assert sum(received for received, _ in outcomes) == 20_000


def test_processes_that_open_the_same_archive_make_one_tree(origin: Origin, tmp_path: Path) -> None:
    source = random.Random(3)
    body = gzip.compress(tar_of({f"f{i}": source.randbytes(100_000) for i in range(100)}), 1)
    url = origin.put("/x.tar.gz", body)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(child(tmp_path / "store", url, digest_of(body), len(body), "plant"))
            for _ in range(2)
        ]
        for process in processes:
            begin(process)
        outcomes = [outcome(process) for process in processes]
    assert len({number for _, number in outcomes}) == 1
    assert sum(received for received, _ in outcomes) <= 1.05 * len(body)


@pytest.mark.crash
@pytest.mark.parametrize("what", ["pin", "range"])
def test_a_killed_download_is_continued(origin: Origin, tmp_path: Path, what: str) -> None:
    size = 48 * MIB
    url = origin.put("/killed", Generated(size, seed=2), etag='"v1"')
    right = Generated(size, seed=2).sha256()
    tell = '"v1"' if what == "range" else f"sha256:{right}"
    origin.fault("/killed", Stall(after_bytes=6 * MIB))
    with child(tmp_path / "store", url, tell, size, what) as process:
        begin(process)
        limit = time.monotonic() + 60
        while stored(tmp_path / "store") < 12 * MIB:
            assert time.monotonic() < limit
            time.sleep(0.01)
        process.kill()
        process.wait()
    had, flights = stored(tmp_path / "store"), len(origin.requests)
    origin.heal()
    origin.forget()
    with child(tmp_path / "store", url, tell, size, what) as process:
        begin(process)
        received, found = outcome(process)
    assert found == right
    # What was in sockets was not stored; of what was, a kill loses a batch of each flight at most.
    assert received <= size - had + flights * BATCH


def stored(store: Path) -> int:
    """The bytes of streams that lie on the disk."""
    return sum(path.stat().st_blocks * 512 for path in store.glob("streams/*/*"))
