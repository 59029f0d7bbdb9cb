"""The keeper itself dies: readers are told at once, and the next command cleans up."""

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import HangBeforeHead
from cafs.testing.loading import Reader, compiled
from cafs.testing.origin import Origin
from cafs.testing.soaking import Keeper

pytestmark = pytest.mark.fuse

MIB = 1 << 20
END_S = 20.0
EMPTY = '[mount]\npath = "cafs"\n'


def ends(pid: int) -> bool:
    """Wait for a process that is not our child; whether it ended."""
    limit = time.monotonic() + END_S
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
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
            _, said = blocked.process.communicate(timeout=5)
            assert blocked.process.returncode == 1
            assert b"pread" in said
        with pytest.raises(OSError) as caught:
            os.listdir(mount.path)
        assert caught.value.errno == errno.ENOTCONN
        assert ends(worker)
        origin.heal()
        cafs.run("unmount", mount.path)
        assert not mount.is_mounted()


def test_mounting_again_cleans_up_after_a_dead_keeper_and_says_so(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mount:
        assert ends(kill_keeper(cafs, mount))
        assert mount.is_mounted()
        again = cafs.run("mount")
        assert str(mount.path) in again.stderr
        assert "ref" in os.listdir(mount.path)
        table = Path("/proc/self/mountinfo").read_text()
        assert table.count(f" {mount.path} ") == 1
        cafs.run("unmount")
        assert not mount.is_mounted()


def test_a_live_mount_is_refused_and_named(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mount:
        again = cafs.run("mount", check=False)
        assert again.returncode == 8
        assert str(mount.path) in again.stderr
        assert str(mount.pid) in again.stderr


def test_a_busy_mount_serves_on_until_its_last_user_leaves(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/data.bin", Generated(8 * MIB, seed=2))
    with cafs.mount(f'[ref.data]\nfrom = "{url}"\n') as mount:
        keeper = Keeper(mount.control).wait_serving()
        with mount.ref("data").open("rb", buffering=0) as opened:
            busy = cafs.run("unmount", check=False)
            assert busy.returncode == 8
            assert str(os.getpid()) in busy.stderr
            cafs.run("unmount", "--lazy")
            assert not mount.is_mounted()
            data = os.pread(opened.fileno(), 4096, 7 * MIB)
            assert data == origin.expected("/data.bin")[7 * MIB :][:4096]
        assert ends(keeper.pid)
        assert ends(keeper.worker)


def test_sigterm_to_the_keeper_unmounts(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mount:
        now = Keeper(mount.control).wait_serving()
        os.kill(now.pid, signal.SIGTERM)
        assert ends(now.pid)
        assert ends(now.worker)
        assert not mount.is_mounted()
        assert os.listdir(mount.path) == []


def test_umount_by_anybody_ends_keeper_and_worker(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mount:
        now = Keeper(mount.control).wait_serving()
        subprocess.run(["umount", mount.path], check=True)
        assert ends(now.pid)
        assert ends(now.worker)
        # Nothing is left that could be taken for a mount.
        assert str(mount.path) not in cafs.run("status", check=False).stdout
