"""Concurrent readers share one download."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.faults import Latency
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = pytest.mark.fuse

MIB = 1 << 20


@pytest.mark.parametrize("pinned", [False, True])
def test_32_readers_of_a_cold_file_cause_one_download(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(24 * MIB, seed=6)
    url = origin.put("/cold.bin", body)
    origin.fault("/cold.bin", Latency(0.02))
    pin = f'integrity="sha256:{body.sha256()}"\n' if pinned else ""
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.cold]\nfrom="{url}"\n{pin}') as mounted:
        file = mounted.path / "ref/cold"

        def read(_number: int) -> str:
            with file.open("rb", buffering=0) as opened:
                return hashlib.file_digest(opened, "sha256").hexdigest()

        with ThreadPoolExecutor(32) as pool:
            digests = set(pool.map(read, range(32)))
    assert digests == {body.sha256()}
    # One download: every byte once, and the byte that told the size.
    assert origin.bytes_sent() <= 24 * MIB + 1
