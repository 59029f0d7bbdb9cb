"""A keeper that mounts by itself: with which options, and what it unmounts when it is to end.

Nothing in this process asks the mount anything: ``O_PATH`` needs no answer, and keeps it busy.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cafs.testing.fuse_wire import InitOut
from cafs.testing.hand_worker import DEADLINE_S, HandWorker
from cafs.testing.keeping import RunningKeeper

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="mount(2) wants root"),
]

OPTIONS = "fsname=test,ro,default_permissions"
READ_AHEAD_KB = 96
FUSECTL = Path("/sys/fs/fuse/connections")


def mounts_on(point: Path) -> list[list[str]]:
    """The fields of mountinfo for a mount point, of the uppermost mount last."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ") for line in lines if f" {point} " in line]


@dataclass(frozen=True)
class World:
    """A keeper, its worker, and where it has mounted."""

    keeper: RunningKeeper
    worker: HandWorker
    point: Path

    def has_gone(self) -> bool:
        """Wait for the mount to go."""
        limit = time.monotonic() + DEADLINE_S
        while mounts_on(self.point):
            if time.monotonic() > limit:
                return False
            self.keeper.has_ended(0.01)
        return True


@contextmanager
def mounted(program: Path, directory: Path, options: str = OPTIONS) -> Iterator[World]:
    point = directory / "mount"
    point.mkdir()
    arguments = ("--options", options, "--read-ahead", str(READ_AHEAD_KB))
    try:
        with RunningKeeper(program, directory, *arguments, mount_point=point) as keeper:
            worker = keeper.workers.next()
            worker.begin(InitOut())
            keeper.wait_until(lambda status: status.state == "serving")
            yield World(keeper, worker, point)
            if not keeper.has_ended():
                keeper.signal(signal.SIGTERM)
                keeper.wait()
    finally:
        for _ in mounts_on(point):
            subprocess.run(["umount", "--lazy", "--no-canonicalize", point], check=True)


@pytest.fixture
def world(program: Path, tmp_path: Path, fuse: None) -> Iterator[World]:
    with mounted(program, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("more", "marks"),
    [
        ("", ({"nosuid", "nodev"}, {"allow_other"})),
        (",allow_other", ({"nosuid", "nodev", "allow_other"}, set())),
        (",suid", ({"nodev"}, {"nosuid", "allow_other"})),
        (",dev", ({"nosuid"}, {"nodev", "allow_other"})),
    ],
)
def test_it_mounts_with_the_options_that_are_wanted(
    program: Path, tmp_path: Path, fuse: None, more: str, marks: tuple[set[str], set[str]]
) -> None:
    has, lacks = marks
    with mounted(program, tmp_path, OPTIONS + more) as world:
        (fields,) = mounts_on(world.point)
    kind, source, of_system = fields[-3:]
    options = {*fields[5].split(","), *of_system.split(",")}
    assert (kind, source) == ("fuse.cafs", "test")
    assert options >= has | {"ro", "default_permissions", "max_read=262144"}
    assert not options & lacks


def test_the_kernel_reads_as_far_ahead_as_is_wanted(world: World) -> None:
    (fields,) = mounts_on(world.point)
    told = Path("/sys/class/bdi", fields[2], "read_ahead_kb").read_text()
    assert int(told) == READ_AHEAD_KB


@pytest.mark.parametrize("options", ["nonsense", "ro,nonsense=1"])
def test_an_option_that_there_is_not_is_a_bad_start_that_leaves_nothing(
    program: Path, tmp_path: Path, fuse: None, options: str
) -> None:
    (tmp_path / "mount").mkdir()
    arguments = ("--options", options)
    with RunningKeeper(program, tmp_path, *arguments, mount_point=tmp_path / "mount") as keeper:
        keeper.expect_log(f"unknown mount option {options.rpartition(',')[2]}")
        assert keeper.wait() == 8
        assert not keeper.live.exists()
        assert not keeper.control.exists()
    assert not mounts_on(tmp_path / "mount")


def test_a_mount_point_that_is_not_there_is_a_bad_start(
    program: Path, tmp_path: Path, fuse: None
) -> None:
    with RunningKeeper(program, tmp_path, mount_point=tmp_path / "none") as keeper:
        keeper.expect_log(f"cannot mount on {tmp_path}/none: .*make that directory")
        assert keeper.wait() == 8


def test_sigterm_unmounts(world: World) -> None:
    world.keeper.signal(signal.SIGTERM)
    assert world.worker.told() == b"E"
    world.worker.wait()
    assert world.keeper.wait() == 0
    assert not mounts_on(world.point)


def test_sigterm_waits_for_the_end_of_use(world: World) -> None:
    inside = os.open(world.point, os.O_PATH)
    try:
        world.keeper.signal(signal.SIGTERM)
        world.keeper.wait_for_log("in use")
        assert world.keeper.status().state == "ending"
        assert mounts_on(world.point)
    finally:
        os.close(inside)
    assert world.keeper.wait() == 0
    assert not mounts_on(world.point)


def test_a_second_sigterm_detaches_and_a_third_ends_at_once(world: World) -> None:
    inside = os.open(world.point, os.O_PATH)
    try:
        world.keeper.signal(signal.SIGTERM)
        world.keeper.wait_for_log("in use")
        world.keeper.signal(signal.SIGTERM)
        assert world.has_gone()
        assert world.keeper.status().state == "ending"
        world.keeper.signal(signal.SIGTERM)
        assert world.keeper.wait() == 0
    finally:
        os.close(inside)


def test_what_lies_over_it_is_not_unmounted_in_its_place(world: World) -> None:
    world.keeper.expect_log(f"cannot unmount {world.point}: it is not")
    subprocess.run(["mount", "-t", "tmpfs", "over", world.point], check=True)
    world.keeper.signal(signal.SIGTERM)
    world.keeper.wait_for_log("cannot unmount")
    assert [fields[-3] for fields in mounts_on(world.point)] == ["fuse.cafs", "tmpfs"]
    subprocess.run(["umount", world.point], check=True)
    world.keeper.signal(signal.SIGTERM)
    assert world.keeper.wait() == 0
    assert not mounts_on(world.point)


def test_what_has_taken_the_place_of_a_detached_mount_stays(world: World) -> None:
    world.keeper.expect_log(f"cannot unmount {world.point}: it is not")
    inside = os.open(world.point, os.O_PATH)
    try:
        subprocess.run(["umount", "--lazy", "--no-canonicalize", world.point], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "next", world.point], check=True)
        world.keeper.signal(signal.SIGTERM)
        world.keeper.wait_for_log("cannot unmount")
        assert [fields[-3] for fields in mounts_on(world.point)] == ["tmpfs"]
    finally:
        os.close(inside)
    assert world.keeper.wait() == 0
    assert [fields[-3] for fields in mounts_on(world.point)] == ["tmpfs"]


@pytest.fixture
def fusectl() -> Iterator[None]:
    """The kernel's list of connections, mounted."""
    there = any(FUSECTL.iterdir())
    if not there:
        subprocess.run(["mount", "-t", "fusectl", "none", FUSECTL], check=True)
    yield
    if not there:
        subprocess.run(["umount", FUSECTL], check=True)


def test_a_connection_that_an_admin_aborts_leaves_no_dead_mount(
    world: World, fusectl: None
) -> None:
    (fields,) = mounts_on(world.point)
    (FUSECTL / fields[2].partition(":")[2] / "abort").write_text("1")
    assert world.worker.told() == b"E"
    assert world.keeper.wait() == 0
    assert not mounts_on(world.point)
