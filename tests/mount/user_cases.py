"""What an ordinary user does with a mount; ``test_keeper_as_user.py`` runs this as one."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin
from cafs.testing.soaking import KEEPER_LINES, Ground, Keeper, Scene, mounted

pytestmark = pytest.mark.fuse

MIB = 1 << 20
READERS = 64
SECONDS, REQUESTS = 1.0, 1500


def test_a_user_mounts_reads_and_unmounts(cafs: Cafs, origin: Origin) -> None:
    assert os.geteuid() != 0
    cafs.expect_log(KEEPER_LINES)
    url = origin.put("/tree.tar", tar_bytes({"d/a": (0o644, b"alpha"), "b": (0o755, b"beta")}))
    with cafs.mount(f'[ref.tree]\nfrom = "{url}"\n') as mount:
        keeper = Keeper(mount.control)
        assert (mount.ref("tree") / "d/a").read_bytes() == b"alpha"
        assert sorted(os.listdir(mount.ref("tree"))) == ["b", "d"]
        worker = keeper.wait_serving().worker
        owner = os.stat(f"/proc/{worker}").st_uid
        assert owner == os.geteuid()
        os.kill(worker, signal.SIGKILL)
        assert (mount.ref("tree") / "b").read_bytes() == b"beta"
        cafs.run("reload", mount.path)
        assert (mount.ref("tree") / "d/a").stat().st_size == 5
        cafs.run("unmount", mount.path)
        assert not mount.is_mounted()
        assert os.listdir(mount.path) == []


@pytest.mark.parametrize("lazily", [False, True])
def test_a_users_keeper_unmounts_when_it_is_told_to_end(cafs: Cafs, lazily: bool) -> None:
    with cafs.mount("") as mount:
        keeper = Keeper(mount.control)
        inside = os.open(mount.path, os.O_RDONLY)
        os.kill(mount.pid, signal.SIGTERM)
        until(lambda: "it is unmounted once it is not" in mount.log())
        assert mount.is_mounted()
        if lazily:
            os.kill(mount.pid, signal.SIGTERM)
            until(lambda: not mount.is_mounted())
            keeper.wait_until(lambda now: now.state == "ending")
        os.close(inside)
        until(lambda: not Path(f"/proc/{mount.pid}").exists())
        assert not mount.is_mounted()


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize("local", [False, True], ids=["cold", "warm"])
def test_64_readers_on_one_processor_lose_no_reply(
    cafs: Cafs, origin: Origin, tmp_path: Path, local: bool
) -> None:
    assert len(os.sched_getaffinity(0)) == 1
    ground = Ground.make(tmp_path, origin, files=1000, blob=16 * MIB)
    with mounted(cafs, ground, local=local) as scene:
        outcome = scene.disturbed(nothing, seconds=SECONDS, threads=READERS, least=(0, REQUESTS))
    figures = outcome.figures
    assert (figures.errors, figures.wrong) == (0, 0), figures.trouble
    assert outcome.relayed >= REQUESTS
    assert outcome.after.workers == 1
    assert outcome.after.waiting == 0


def nothing(scene: Scene) -> None:
    """Leave the worker alone."""
