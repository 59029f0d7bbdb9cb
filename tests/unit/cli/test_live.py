"""The files of live mounts: one a mount, found by mount point, gone with it."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from cafs.cli.mounts import live
from cafs.cli.mounts.live import LiveMount
from cafs.errors import MountError

PLACE = Path("/mnt/a place")


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def mount(key: str, *, pid: int = 1, started_ns: int = 0, place: Path = PLACE) -> LiveMount:
    return LiveMount(
        mount_point=str(place),
        pid=pid,
        key=key * 32,
        store="/store",
        view="/",
        log="",
        control="",
        started_ns=started_ns,
    )


def test_what_was_saved_is_found_until_it_is_removed() -> None:
    assert live.find(PLACE) is None
    live.save(mount("a"))
    assert live.find(PLACE) == mount("a")
    assert live.find(PLACE.parent) is None
    live.remove(mount("a"))
    assert live.find(PLACE) is None
    live.remove(mount("a"))


def test_a_detached_mount_and_its_successor_have_a_file_each() -> None:
    former, later = mount("b", started_ns=1), mount("a", started_ns=2)
    live.save(later)
    live.save(former)
    assert live.find(PLACE) == later
    assert live.all_mounts() == ([former, later], [])
    live.remove(former)
    assert live.find(PLACE) == later


def test_the_file_that_is_named_to_the_keeper_is_the_one_that_is_written() -> None:
    live.save(mount("a"))
    live.live_path(PLACE, "a" * 32).unlink()
    assert live.find(PLACE) is None


def test_removing_takes_the_control_socket_along(runtime: Path) -> None:
    path = live.control_path(PLACE, "a" * 32)
    path.touch()
    gone = LiveMount(
        mount_point=str(PLACE),
        pid=1,
        key="a" * 32,
        store="",
        view="/",
        log="",
        control=str(path),
        started_ns=0,
    )
    live.save(gone)
    live.remove(gone)
    assert not path.exists()


def test_a_control_socket_can_be_bound_however_long_the_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    path = live.control_path(PLACE, "a" * 32)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    path.unlink()


def test_a_damaged_file_is_named(runtime: Path) -> None:
    live.save(mount("a"))
    path = live.live_path(PLACE, "a" * 32)
    path.write_text("{}")
    with pytest.raises(MountError, match=path.name):
        live.find(PLACE)


def test_a_directory_that_others_may_read_is_refused(runtime: Path) -> None:
    (runtime / "cafs").mkdir(mode=0o755)
    (runtime / "cafs").chmod(0o755)
    with pytest.raises(MountError, match="open to others"):
        live.directory()


def test_alive_is_who_was_started_for_it_until_it_ends() -> None:
    with subprocess.Popen(
        ["sh", "-c", "read line", "--key", "a" * 32], stdin=subprocess.PIPE
    ) as it:
        assert mount("a", pid=it.pid).alive
        assert not mount("b", pid=it.pid).alive
        assert it.stdin is not None
        it.stdin.close()
        os.waitid(os.P_PID, it.pid, os.WEXITED | os.WNOWAIT)
        assert not mount("a", pid=it.pid).alive  # a zombie
    assert not mount("a", pid=it.pid).alive


def test_who_got_the_pid_later_is_not_the_mounts_process() -> None:
    assert not mount("a", pid=os.getpid()).alive


def test_what_cannot_be_made_or_written_is_named(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = live.directory()
    place = live.live_path(PLACE, "a" * 32)
    place.mkdir()
    with pytest.raises(MountError, match="cannot be written: Is a directory"):
        live.save(mount("a"))
    assert list(directory.iterdir()) == [place]
    (runtime / "file").write_text("")
    for name, reason in (("file", "cannot be made: Not a directory"), ("a", "is no directory")):
        (runtime / "a").mkdir(exist_ok=True)
        (runtime / "a/cafs").write_text("")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / name))
        with pytest.raises(MountError, match=reason):
            live.directory()


MOUNTINFO = rb"""21 26 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
36 26 0:35 / /mnt/a\040b\134 rw,nosuid - fuse.cafs cafs ro,user_id=1000,group_id=100
"""


def test_mounts_are_read_with_their_users() -> None:
    assert live.mounts_of(MOUNTINFO) == [
        (b"/sys", "sysfs", None),
        (b"/mnt/a b\\", "fuse.cafs", 1000),
    ]


def test_only_a_newline_ends_a_line_of_the_mount_table() -> None:
    odd = b"35 26 0:34 / /mnt/o\rd\x0b\x85d rw - tmpfs tmpfs rw\n"
    assert live.mounts_of(odd + MOUNTINFO)[0] == (b"/mnt/o\rd\x0b\x85d", "tmpfs", None)
    assert live.mounts_of(odd + MOUNTINFO)[1:] == live.mounts_of(MOUNTINFO)
