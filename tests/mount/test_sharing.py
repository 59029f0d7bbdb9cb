"""Whoever wants the same bytes at once, in however many processes: they come once, and right."""

import hashlib
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.faults import Latency
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20
SIZE = 10 * MIB
READERS = 80
QUESTIONS = (64 << 10) + 16
"""Bytes beside one download that tell what a file is: a mount asks for one, a prefetch for the
first 64 KiB, and the file may have come meanwhile."""


class Crowd:
    """Readers that begin at the same moment; those who read at random see every byte too."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self._pool = ThreadPoolExecutor(count)

    def read(self, path: Path, number: int) -> "Callable[[], str]":
        """Let one more read the file, one of two in an order of its own; its digest."""
        return self._pool.submit(self._read, path, number).result

    def _read(self, path: Path, number: int) -> str:
        self._barrier.wait(120)
        found = bytearray(SIZE)
        offsets = list(range(0, SIZE, MIB))
        if number % 2:
            random.Random(number).shuffle(offsets)
        with path.open("rb", buffering=0) as opened:
            for offset in offsets:
                found[offset : offset + MIB] = whole_piece(opened.fileno(), offset)
        return hashlib.sha256(found).hexdigest()


def whole_piece(file: int, offset: int) -> bytes:
    data = b""
    while len(data) < MIB:
        piece = os.pread(file, MIB - len(data), offset + len(data))
        assert piece, "short"
        data += piece
    return data


def project(url: str, body: Generated, *, pinned: bool) -> str:
    pin = f'integrity = "sha256:{body.sha256()}"\n' if pinned else ""
    return f'[mount]\npath = "cafs"\n[ref.cold]\nfrom = "{url}"\n{pin}'


@pytest.mark.parametrize("pinned", [False, True])
def test_80_readers_of_a_cold_url_cause_one_download_and_no_wrong_byte(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=6)
    url = origin.put("/cold.bin", body)
    origin.fault("/cold.bin", Latency(0.02))
    with cafs.mount(project(url, body, pinned=pinned)) as mounted:
        crowd = Crowd(READERS)
        digests = [crowd.read(mounted.ref("cold"), number) for number in range(READERS)]
        assert {digest() for digest in digests} == {body.sha256()}
    assert origin.bytes_sent() <= SIZE + QUESTIONS


@pytest.mark.parametrize("pinned", [False, True])
def test_two_mounts_and_a_prefetch_on_one_store_cause_one_download(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=7)
    url = origin.put("/cold.bin", body)
    origin.fault("/cold.bin", Latency(0.02))
    toml = project(url, body, pinned=pinned)
    with cafs.mount(toml) as mounted, cafs.mount(None, "second") as second:
        places = [mounted.ref("cold"), second.ref("cold")]
        crowd = Crowd(8)
        prefetch = cafs.popen("prefetch", "--quiet")
        digests = [crowd.read(places[number % 2], number) for number in range(8)]
        assert {digest() for digest in digests} == {body.sha256()}
        out, err = prefetch.communicate(timeout=60)
        assert prefetch.returncode == 0, out + err
    assert origin.bytes_sent() <= SIZE + QUESTIONS


@pytest.mark.parametrize("compression", ["", "gz"])
def test_two_mounts_and_a_prefetch_make_one_pass_over_an_archive(
    cafs: Cafs, origin: Origin, compression: str
) -> None:
    noise = Generated(6 * MIB, seed=8)
    items = {f"f{n}": (0o644, noise.read(n * MIB, MIB)) for n in range(6)}
    archive = tar_bytes(items, compression=compression)
    url = origin.put(f"/tree.tar{compression and '.'}{compression}", archive)
    origin.fault("/tree*", Latency(0.02))
    with (
        cafs.mount(f'[mount]\npath = "cafs"\n[ref.tree]\nfrom = "{url}"\n') as mounted,
        cafs.mount(None, "second") as second,
    ):
        barrier = threading.Barrier(8)

        def read(number: int) -> bytes:
            barrier.wait(120)
            tree = (mounted, second)[number % 2].ref("tree")
            return b"".join((tree / name).read_bytes() for name in sorted(os.listdir(tree)))

        prefetch = cafs.popen("prefetch", "--quiet")
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(read, range(8))) == {noise.read(0, 6 * MIB)}
        out, err = prefetch.communicate(timeout=60)
        assert prefetch.returncode == 0, out + err
    assert origin.bytes_sent() <= len(archive) + QUESTIONS
