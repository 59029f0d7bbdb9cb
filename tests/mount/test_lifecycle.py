"""A mount from its beginning to its end: by whom it is held, and who is told what."""

import json
import os
import pwd
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.control import keeper
from cafs.testing.archives import tar_bytes
from cafs.testing.command import Cafs, Mount
from cafs.testing.origin import Origin
from tests.forked import ForkedCafs, Forks

pytestmark = pytest.mark.fuse

EMPTY = '[mount]\npath="cafs"\n'
KEEPING = pytest.mark.parametrize("keeping", [(), ("--no-keeper",)], ids=["keeper", "no keeper"])


def until(holds: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def kill(pid: int) -> None:
    """Kill a process that is not our child, and wait for its end."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        assert select.select([process], [], [], 60)[0]
    finally:
        os.close(process)


def mounts_on(place: Path) -> int:
    return Path("/proc/self/mountinfo").read_text().count(f" {place} ")


def keeper_of(cafs: Cafs) -> dict[str, object]:
    facts = json.loads(cafs.run("status", "--json").stdout)["keeper"]
    assert isinstance(facts, dict)
    return facts


def hello(origin: Origin) -> str:
    return origin.put("/hello.tar", tar_bytes({"hello": (0o644, b"hello\n")}))


def test_a_mount_tells_who_holds_it_and_who_serves_it(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        facts = keeper_of(cafs)
        assert facts["pid"] == mounted.pid
        assert facts["state"] == "serving"
        assert facts["worker"] == mounted.worker
        assert facts["workers"] == 1
        told = cafs.run("status").stdout
        assert f"keeper pid {mounted.pid}: serving, worker pid {mounted.worker}" in told
        assert Path(f"/proc/{mounted.worker}/stat").read_text().split()[3] == str(mounted.pid)


def test_without_a_keeper_the_worker_holds_the_mount(cafs: Cafs) -> None:
    with cafs.mount(EMPTY, "--no-keeper") as mounted:
        facts = json.loads(cafs.run("status", "--json").stdout)
        assert facts["keeper"] is None
        assert facts["pid"] == mounted.pid
        assert "keeper pid" not in cafs.run("status").stdout


def test_a_missing_keeper_is_named_with_the_way_out(cafs: Cafs, tmp_path: Path) -> None:
    cafs.project(EMPTY)
    cafs.environment["CAFS_KEEPER"] = str(tmp_path / "gone")
    done = cafs.run("mount", check=False)
    assert done.returncode == 8
    assert str(tmp_path / "gone") in done.stderr
    with cafs.mount(EMPTY, "--no-keeper") as mounted:
        assert mounted.control == ""


@KEEPING
def test_foreground_serves_until_it_is_told_to_end(
    cafs: Cafs, origin: Origin, keeping: tuple[str, ...]
) -> None:
    cafs.project(f'{EMPTY}[ref.tool]\nfrom="{hello(origin)}"\n')
    process = cafs.popen("mount", "--foreground", *keeping)
    place = cafs.directory / "cafs"
    until(lambda: os.path.ismount(place) or process.poll() is not None)
    assert (place / "ref/tool/hello").read_text() == "hello\n"
    facts = json.loads(cafs.run("status", "--json").stdout)
    assert process.pid == (facts["pid"] if keeping else facts["keeper"]["pid"])
    again = cafs.run("mount", check=False)
    assert again.returncode == 8
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert not os.path.ismount(place)
    assert "Traceback" not in said
    assert "not mounted" in cafs.run("status").stdout


@KEEPING
def test_what_fails_in_the_foreground_says_why_and_exits_with_it(
    cafs: Cafs, keeping: tuple[str, ...]
) -> None:
    cafs.project(EMPTY)
    done = cafs.run("mount", "--foreground", "--view", "ref/none", *keeping, check=False)
    assert done.returncode == 2
    assert "ref/none" in done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.ismount(cafs.directory / "cafs")


@KEEPING
def test_a_live_mount_is_refused_and_named(cafs: Cafs, keeping: tuple[str, ...]) -> None:
    with cafs.mount(EMPTY, *keeping) as mounted:
        again = cafs.run("mount", check=False)
        assert again.returncode == 8
        for words in (mounted.path, mounted.pid, cafs.store, f"cafs unmount {mounted.path}"):
            assert str(words) in again.stderr
        assert mounts_on(mounted.path) == 1
        assert "ref" in os.listdir(mounted.path)


@pytest.mark.parametrize("flag", [None, "--foreground"])
def test_of_two_that_mount_at_once_one_wins_and_the_other_says_so(
    cafs: Cafs, flag: str | None
) -> None:
    cafs.project(EMPTY)
    place = cafs.directory / "cafs"
    arguments = ("mount",) if flag is None else ("mount", flag)
    both = [cafs.popen(*arguments), cafs.popen(*arguments)]
    until(lambda: any(process.poll() == 8 for process in both))
    try:
        until(lambda: mounts_on(place) == 1)
        (loser,) = (process for process in both if process.poll() == 8)
        _, said = loser.communicate()
        assert str(place) in said
        assert "about to mount" in said or "mounted already" in said
    finally:
        cafs.run("unmount")
    (winner,) = (process for process in both if process is not loser)
    winner.communicate(timeout=60)
    assert winner.returncode == 0


@KEEPING
def test_a_dead_mount_is_cleaned_up_by_the_next_and_said_so(
    cafs: Cafs, keeping: tuple[str, ...]
) -> None:
    with cafs.mount(EMPTY, *keeping) as dead:
        kill(dead.pid)
        with pytest.raises(OSError, match=r"endpoint|abort"):
            os.statvfs(dead.path)
        with cafs.mount(None, *keeping) as mounted:
            assert mounts_on(mounted.path) == 1
            assert "ref" in os.listdir(mounted.path)
            assert len(list(Path(cafs.environment["XDG_RUNTIME_DIR"], "cafs").glob("*.json"))) == 1


def test_cleaning_up_is_said_on_standard_error(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as dead:
        kill(dead.pid)
        done = cafs.run("mount")
        assert f"cafs: cleaned up {dead.path}: its keeper (pid {dead.pid}) had died" in done.stderr
        assert f"cafs: mounted on {dead.path} (keeper pid " in done.stdout


@KEEPING
def test_a_dead_mount_is_cleaned_up_by_unmount(cafs: Cafs, keeping: tuple[str, ...]) -> None:
    with cafs.mount(EMPTY, *keeping) as dead:
        kill(dead.pid)
        done = cafs.run("unmount")
        assert f"cleaned up {dead.path}" in done.stdout
        assert mounts_on(dead.path) == 0
    assert "not mounted" in cafs.run("status").stdout


def test_a_busy_mount_names_who_keeps_it(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        with subprocess.Popen(["sleep", "60"], cwd=mounted.path) as sleeper:
            busy = cafs.run("unmount", check=False)
            sleeper.kill()
        assert busy.returncode == 8
        assert f"{sleeper.pid} (sleep)" in busy.stderr
        assert f"cafs unmount --lazy {mounted.path}" in busy.stderr
        assert "ref" in os.listdir(mounted.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts what is not FUSE")
def test_a_mount_inside_keeps_it_busy_and_is_named(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        inside = mounted.path / "ref"
        subprocess.run(["mount", "-t", "tmpfs", "cafs-test", inside], check=True)
        try:
            busy = cafs.run("unmount", check=False)
        finally:
            subprocess.run(["umount", inside], check=True)
        assert busy.returncode == 8
        assert f"a tmpfs mount on {inside}" in busy.stderr


def test_a_mapped_file_keeps_it_busy_and_its_process_is_named(cafs: Cafs, origin: Origin) -> None:
    script = "import mmap,sys,time\nwith open(sys.argv[1],'rb') as f:\n"
    script += " m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\nprint(m[:5],flush=True)\n"
    script += "time.sleep(60)"
    toml = f'{EMPTY}[ref.tool]\nfrom="{hello(origin)}"\n'
    with cafs.mount(toml) as mounted:
        file = mounted.ref("tool") / "hello"
        command = ["python3", "-c", script, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as mapper:
            assert mapper.stdout is not None
            assert mapper.stdout.readline() == b"b'hello'\n"
            busy = cafs.run("unmount", check=False)
            mapper.kill()
        assert busy.returncode == 8
        assert f"{mapper.pid} (python3" in busy.stderr


def test_lazily_unmounted_it_serves_on_beside_its_successor(cafs: Cafs, origin: Origin) -> None:
    toml = f'{EMPTY}[ref.tool]\nfrom="{hello(origin)}"\n'
    with cafs.mount(toml) as former:
        inside = os.open(former.ref("tool"), os.O_RDONLY)
        try:
            cafs.run("unmount", "--lazy")
            assert mounts_on(former.path) == 0
            with cafs.mount() as later:
                assert later.pid != former.pid
                reader = os.open("hello", os.O_RDONLY, dir_fd=inside)
                assert os.read(reader, 9) == b"hello\n"
                os.close(reader)
                os.close(inside)
                inside = -1
                until(lambda: not Path(f"/proc/{former.pid}/cmdline").exists())
                # Whoever is left is found, and can be asked.
                assert later.worker
                assert keeper_of(cafs)["pid"] == later.pid
        finally:
            if inside >= 0:
                os.close(inside)


def test_unmounting_leaves_nobody_behind(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        pids = (mounted.pid, mounted.worker)
        cafs.run("unmount")
        assert [pid for pid in pids if is_running(pid)] == []
        assert list(Path(cafs.environment["XDG_RUNTIME_DIR"], "cafs").glob("*.[js]*")) == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


@KEEPING
def test_run_mounts_and_unmounts(cafs: Cafs, origin: Origin, keeping: tuple[str, ...]) -> None:
    cafs.project(f'{EMPTY}[ref.tool]\nfrom="{hello(origin)}"\n')
    script = 'cat "$CAFS_MOUNT/ref/tool/hello"; exit 7'
    done = cafs.run("run", *keeping, "--", "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout) == (7, "hello\n")
    assert mounts_on(cafs.directory / "cafs") == 0


def test_what_a_command_has_left_in_the_mount_is_named_and_served_on(cafs: Cafs) -> None:
    cafs.project(EMPTY)
    script = "exec 3<cafs/.cafs/README; sleep 300 >/dev/null 2>&1 & echo $!; exit 7"
    done = cafs.run("run", "--", "sh", "-c", script, check=False)
    left = int(done.stdout)
    try:
        assert done.returncode == 7
        assert f"{left} (" in done.stderr
        assert mounts_on(cafs.directory / "cafs") == 0
        assert cafs.run("run", "--", "test", "-e", "cafs/.cafs/README").returncode == 0
        assert "cafs" in Path(f"/proc/{left}/fd/3").read_text()
    finally:
        kill(left)
    runtime = Path(cafs.environment["XDG_RUNTIME_DIR"], "cafs")
    until(lambda: not list(runtime.glob("*.[js]*")))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses who serves")
@pytest.mark.parametrize("named", [True, False], ids=["by name", "by the store"])
@pytest.mark.usefixtures("nobody_enters")
def test_root_holds_the_mount_and_another_user_serves_it(
    forks: Forks, origin: Origin, named: bool
) -> None:
    user = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as scratch:  # a test's own directory is root's alone
        Path(scratch).chmod(0o755)
        store = Path(scratch, "store")
        store.mkdir()
        os.chown(store, user.pw_uid, user.pw_gid)
        cafs = ForkedCafs(Path(scratch, "world"), forks)
        toml = f'{EMPTY}[ref.tool]\nfrom="{hello(origin)}"\n'
        with cafs.mount(toml, "--store", store, *(["--user", "nobody"] if named else [])) as mount:
            assert (mount.ref("tool") / "hello").read_text() == "hello\n"
            assert os.stat(f"/proc/{mount.worker}").st_uid == user.pw_uid
            assert os.stat(f"/proc/{mount.pid}").st_uid == 0
            assert mount.path.stat().st_uid == 0
            cafs.run("reload")
            assert os.stat(f"/proc/{mount.worker}").st_uid == user.pw_uid
        assert {path.stat().st_uid for path in store.rglob("*")} == {user.pw_uid}


def test_status_lists_every_mount_and_forgets_what_a_crash_left(cafs: Cafs) -> None:
    with cafs.mount(None, cafs.directory / "there") as mounted:
        assert f"{mounted.path}  keeper pid {mounted.pid}" in cafs.run("status").stdout
        kill(mounted.pid)
        assert "has died" in cafs.run("status").stdout
        subprocess.run(["umount", mounted.path], check=True)
        assert "nothing is mounted" in cafs.run("status").stdout


@pytest.mark.slow
def test_when_its_workers_fail_again_and_again_status_says_what_to_do(
    cafs: Cafs, tmp_path: Path
) -> None:
    cafs.expect_log("worker|workers")
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    broken = hostile / "sitecustomize.py"
    cafs.environment["PYTHONPATH"] = str(hostile)
    with cafs.mount(EMPTY) as mounted:
        broken.write_text("import os\nos._exit(9)\n")
        del cafs.environment["PYTHONPATH"]
        os.kill(mounted.worker, signal.SIGKILL)
        until_given_up(cafs, mounted)
        done = cafs.run("status", check=False)
        assert done.returncode == 8
        assert f"keeper pid {mounted.pid}: given-up, no worker" in done.stdout
        assert f"cafs reload {mounted.path}" in done.stderr
        facts = json.loads(cafs.run("status", "--json", check=False).stdout)
        assert (facts["mount_point"], facts["pid"]) == (str(mounted.path), None)
        assert facts["keeper"]["state"] == "given-up"
        with pytest.raises(OSError, match="Input/output"):
            os.statvfs(mounted.path)
        broken.unlink()
        # The command itself reads another file: it is the new worker that says what is wrong.
        cafs.project(f"{EMPTY}[ref.model]\nform=1\n")
        other = cafs.directory / "elsewhere.toml"
        other.write_text("")
        done = cafs.run("reload", "--config", other, mounted.path, check=False)
        assert done.returncode == 2
        assert "ref.model.form" in done.stderr
        assert f"{mounted.path} gets no new worker, it has none" in done.stderr
        assert keeper_state(mounted) == "given-up"
        cafs.project(EMPTY)
        cafs.run("reload")
        assert "ref" in os.listdir(mounted.path)


def until_given_up(cafs: Cafs, mounted: Mount) -> None:
    """Eight starts, with pauses that sum up to 12.7 s."""
    limit = time.monotonic() + 60
    while keeper_state(mounted) != "given-up":
        assert time.monotonic() < limit, mounted.log()
        time.sleep(0.1)


def keeper_state(mounted: Mount) -> str:
    return keeper.status(mounted.control).state
