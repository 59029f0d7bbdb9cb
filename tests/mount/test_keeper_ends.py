"""The keeper dies, and readers are told at once; or it is to end, and serves them until then."""

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import HangBeforeHead
from cafs.testing.loading import Reader, compiled
from cafs.testing.origin import Origin
from cafs.testing.soaking import KEEPER_LINES, Keeper

pytestmark = pytest.mark.fuse

MIB = 1 << 20
END_S = 60.0


def wait_until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + END_S
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def ends(pid: int) -> bool:
    """Wait for the end of a process that is not our child."""
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    return True


def kill_keeper(cafs: Cafs, mount: Mount) -> int:
    """Kill the keeper, and wait for its end; the pid of the worker that it had."""
    now = Keeper(mount.control).wait_serving()
    assert now.pid == mount.pid
    os.kill(now.pid, signal.SIGKILL)
    assert ends(now.pid)
    return now.worker


def test_readers_are_told_at_once_and_the_worker_ends(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    url = origin.put("/hang.bin", Generated(64 * MIB, seed=1))
    origin.fault("/hang.bin", HangBeforeHead(skip=1))
    with cafs.mount(f'[ref.hang]\nfrom = "{url}"\n') as mount:
        assert mount.ref("hang").stat().st_size == 64 * MIB
        with Reader(compiled("reader", tmp_path), "read", mount.ref("hang"), 32 * MIB) as blocked:
            origin.wait_until(lambda log: len(log) >= 2)
            worker = kill_keeper(cafs, mount)
            _, said = blocked.process.communicate(timeout=20)
            assert blocked.process.returncode == 1
            assert b"pread" in said
        with pytest.raises(OSError) as caught:
            os.listdir(mount.path)
        assert caught.value.errno == errno.ENOTCONN
        assert ends(worker)
        origin.heal()
        cafs.run("unmount", mount.path)
        assert not mount.is_mounted()


def test_sigterm_waits_for_the_last_user_and_serves_until_then(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/data.bin", Generated(8 * MIB, seed=2))
    cafs.expect_log(KEEPER_LINES)
    with cafs.mount(f'[ref.data]\nfrom = "{url}"\n') as mount:
        now = Keeper(mount.control).wait_serving()
        with mount.ref("data").open("rb", buffering=0) as opened:
            os.kill(now.pid, signal.SIGTERM)
            os.kill(now.worker, signal.SIGKILL)
            # It has other things to do than to end, and goes on doing them.
            data = os.pread(opened.fileno(), 4096, 7 * MIB)
            assert data == origin.expected("/data.bin")[7 * MIB :][:4096]
            assert mount.is_mounted()
        assert ends(now.pid)
        assert not mount.is_mounted()


def test_a_second_sigterm_detaches_and_serves_who_is_left(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/data.bin", Generated(8 * MIB, seed=3))
    with cafs.mount(f'[ref.data]\nfrom = "{url}"\n') as mount:
        now = Keeper(mount.control).wait_serving()
        with mount.ref("data").open("rb", buffering=0) as opened:
            os.kill(now.pid, signal.SIGTERM)
            Keeper(mount.control).wait_until(lambda now: now.state == "ending")
            os.kill(now.pid, signal.SIGTERM)
            wait_until(lambda: not mount.is_mounted())
            data = os.pread(opened.fileno(), 4096, 7 * MIB)
            assert data == origin.expected("/data.bin")[7 * MIB :][:4096]
        assert ends(now.pid)
        assert ends(now.worker)
