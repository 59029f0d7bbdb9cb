"""A download that is broken off goes on where it stopped."""

import hashlib
import os
import signal
import threading

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.crowd import disk_usage
from cafs.testing.faults import Drop, Rate
from cafs.testing.origin import Origin
from tests.conftest import Cafs

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MIB = 1 << 20
SIZE = 96 * MIB
UNBOOKED = 8 * MIB
"""Bytes that may lie in the store at one moment and are not booked yet."""


def sha256_of(path: os.PathLike[str]) -> str:
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@pytest.mark.parametrize("pinned", [False, True])
def test_kill_9_in_the_middle_then_mount_again_and_read_on(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=3)
    url = origin.put("/model.bin", body)
    origin.fault("/model.bin", Rate(64 * MIB))
    pin = f'integrity="sha256:{body.sha256()}"\n' if pinned else ""
    toml = f'[mount]\npath="cafs"\n[ref.model]\nfrom="{url}"\n{pin}'
    cafs.expect_log("Broken pipe")  # of the worker, if it answers in that moment
    with cafs.mount(toml) as mounted:
        reader = threading.Thread(target=read_until_broken, args=(mounted.path / "ref/model",))
        reader.start()
        origin.wait_until(lambda log: sum(one.bytes_sent for one in log) > SIZE // 2)
        os.kill(mounted.pid, signal.SIGKILL)
        reader.join()
    origin.settle()
    origin.heal()
    sent, stored = origin.bytes_sent(), disk_usage(cafs.store)
    assert SIZE // 2 < sent < SIZE
    # The rest lay in sockets, or between a socket and the store.
    assert stored > SIZE // 4
    with cafs.mount(toml) as mounted:
        assert sha256_of(mounted.path / "ref/model") == body.sha256()
    origin.settle()
    assert origin.bytes_sent() <= SIZE + (sent - stored) + UNBOOKED


def read_until_broken(path: os.PathLike[str]) -> None:
    with pytest.raises(OSError, match=r"endpoint|abort"):
        sha256_of(path)


@pytest.mark.parametrize("pinned", [False, True])
def test_the_origin_drops_the_connection_and_the_read_goes_on(
    cafs: Cafs, origin: Origin, pinned: bool
) -> None:
    body = Generated(SIZE, seed=4)
    url = origin.put("/model.bin", body)
    for after in (3 * MIB, 5 * MIB, MIB + 1, 100):
        origin.fault("/model.bin", Drop(after_bytes=after, times=2, skip=1))
    pin = f'integrity="sha256:{body.sha256()}"\n' if pinned else ""
    with cafs.mount(f'[mount]\npath="cafs"\n[ref.model]\nfrom="{url}"\n{pin}') as mounted:
        assert sha256_of(mounted.path / "ref/model") == body.sha256()
    origin.settle()
    assert sum(one.aborted for one in origin.requests) >= 2
    assert origin.bytes_sent() <= 1.05 * SIZE
