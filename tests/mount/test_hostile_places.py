"""Mounts where names, settings and directories are against it: what is said is true, and ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cafs.cli.mounts import unmounting
from cafs.errors import MountError
from cafs.testing.command import Cafs
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

EMPTY = '[mount]\npath="cafs"\n'
NOBODY = 65_534
ROOT = Path(__file__).parents[2]
BROKEN = "<<<<<<< HEAD\n"
# In a mount namespace of its own: what such a name breaks, it would break for everybody.
LET_GO = """\
for each in $(findmnt --raw --noheadings --types fuse.cafs --output TARGET); do
    test "$each" = "$0" || umount --lazy --no-canonicalize "$each" || true
done
"""
"""What a new mount namespace does first: mounts of other tests cannot end while it has them too."""
ODD_MOUNTS = f"""\
{LET_GO}
mount -t tmpfs tmpfs "$1"
shift
for keeping in "" --no-keeper; do
    "$@" mount "$PLACE" $keeping
    cat "$PLACE/ref/model"
    "$@" status "$PLACE"
    "$@" unmount "$PLACE"
done
"""


def test_a_broken_project_file_keeps_nobody_from_ending_a_mount_that_is_named(cafs: Cafs) -> None:
    cafs.expect_log("worker|cafs.toml")
    with cafs.mount(EMPTY) as mounted:
        former = mounted.worker
        cafs.project(BROKEN)
        assert f"mounted on {mounted.path}" in cafs.run("status", mounted.path).stdout
        done = cafs.run("reload", mounted.path, check=False)
        assert done.returncode == 2
        assert "the old worker serves on" in done.stderr
        assert "cafs.toml: line 1" in done.stderr
        assert mounted.worker == former
        cafs.run("unmount", "cafs")
        assert not mounted.is_mounted()


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace is for root to make")
def test_names_that_look_like_ends_of_lines_are_names(
    cafs: Cafs, origin: Origin, tmp_path: Path
) -> None:
    odd, place = tmp_path / "o\rd", cafs.directory / "a\r b\n\\c\x0b"
    odd.mkdir()
    url = origin.put("/model.bin", b"model")
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    command = ["unshare", "--mount", "--propagation=private", "sh", "-euc", ODD_MOUNTS, "sh"]
    done = subprocess.run(
        [*command, odd, sys.executable, "-m", "cafs"],
        cwd=cafs.directory,
        env={**cafs.environment, "PLACE": str(place), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"model") >= 2
    assert done.stdout.count(b"cafs: unmounted " + os.fsencode(place)) == 2


def test_a_name_that_is_no_utf_8_is_refused(cafs: Cafs) -> None:
    cafs.project("")
    place = Path(os.fsdecode(os.fsencode(cafs.directory) + b"/\xff"))
    done = cafs.run("mount", place, check=False)
    assert done.returncode == 2
    assert "not in UTF-8" in done.stderr
    assert not place.exists()


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "XDG_RUNTIME_DIR"])
def test_directories_that_cannot_be_made_are_named(cafs: Cafs, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    cafs.project(EMPTY)
    cafs.environment[name] = str(tmp_path / "file")
    done = cafs.run("mount", check=False)
    assert done.returncode == 8
    assert f"{tmp_path}/file/cafs" in done.stderr
    assert f"hint: set {name}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_log_that_cannot_be_made_is_named_and_nothing_is_mounted(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        log = mounted.log_file
    log.unlink()
    log.mkdir()
    done = cafs.run("mount", check=False)
    assert done.returncode == 8
    assert f"{log}, for logs, cannot be replaced" in done.stderr
    assert not os.path.ismount(mounted.path)
    assert list(log.parent.iterdir()) == [log]


def test_a_mount_whose_file_is_gone_is_said_to_be_unknown_and_can_be_ended(
    cafs: Cafs, tmp_path: Path
) -> None:
    with cafs.mount(EMPTY) as mounted:
        (tmp_path / "other").mkdir(mode=0o700)
        cafs.environment["XDG_RUNTIME_DIR"] = str(tmp_path / "other")
        for verb in ("reload", "mount"):
            done = cafs.run(verb, check=False)
            assert done.returncode == 8
            assert f"not known in {tmp_path}/other/cafs" in done.stderr
            assert "XDG_RUNTIME_DIR" in done.stderr
        cafs.run("unmount")
        assert not mounted.is_mounted()


def test_a_keeper_that_is_killed_before_its_mount_is_ready_is_named(
    cafs: Cafs, tmp_path: Path
) -> None:
    cafs.project(EMPTY)
    program = tmp_path / "keeper"
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    program.chmod(0o755)
    cafs.environment["CAFS_KEEPER"] = str(program)
    done = cafs.run("mount", check=False)
    assert done.returncode == 8
    assert f"the keeper of {cafs.directory}/cafs was killed by signal 9 before" in done.stderr


def test_what_fusermount_said_is_shown_before_the_keepers_reason(
    cafs: Cafs, tmp_path: Path
) -> None:
    cafs.project(EMPTY)
    program = tmp_path / "keeper"
    said = "fusermount3: no write access\n2026-01-01 00:00:00,000 ERROR cafs.keeper: refused\n"
    program.write_text(f"#!/bin/sh\nprintf '{said}' >&2\nexit 8\n")
    program.chmod(0o755)
    cafs.environment["CAFS_KEEPER"] = str(program)
    done = cafs.run("mount", check=False)
    assert done.returncode == 8
    assert done.stderr == "fusermount3: no write access\nerror: refused\n"


def test_unmounting_without_any_program_for_it_says_so(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        path = cafs.environment["PATH"]
        cafs.environment["PATH"] = str(cafs.directory)
        done = cafs.run("unmount", check=False)
        cafs.environment["PATH"] = path
        assert done.returncode == 8
        assert f"cannot unmount {mounted.path}: umount cannot be run: No such file" in done.stderr


def test_unmounting_what_does_not_answer_says_so_and_how(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        os.kill(mounted.pid, signal.SIGSTOP)
        try:
            done = cafs.run("unmount", check=False)
        finally:
            os.kill(mounted.pid, signal.SIGCONT)
        assert done.returncode == 8
        assert "it may not answer" in done.stderr
        assert f"hint: detach it now: cafs unmount --lazy {mounted.path}" in done.stderr


def test_an_absolute_mount_point_needs_no_working_directory(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        gone = cafs.directory / "gone"
        gone.mkdir()
        script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
        command = [sys.executable, "-m", "cafs", "status", "--json", str(mounted.path)]
        done = subprocess.run(
            ["sh", "-c", script, "sh", gone, *command],
            cwd=cafs.directory,
            env={**cafs.environment, "PYTHONSAFEPATH": "1"},
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)["keeper"]["pid"] == mounted.pid


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace is for root to make")
def test_other_mount_namespaces_that_keep_a_mount_are_named(
    cafs: Cafs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", cafs.environment["XDG_RUNTIME_DIR"])
    monkeypatch.setattr(unmounting, "_DRAIN_S", 0.5)
    script = f"{LET_GO}\necho there; exec cat"
    place = cafs.directory / "cafs"
    elsewhere = ["unshare", "--mount", "--propagation=private", "sh", "-c", script, str(place)]
    with (
        cafs.mount(EMPTY) as mounted,
        subprocess.Popen(elsewhere, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"there\n"
        with pytest.raises(MountError, match=f"keeper .pid {mounted.pid}. has not ended") as caught:
            unmounting.unmount(mounted.path)
        told = caught.value.hint.partition("other mount namespaces, which have that mount too: ")[2]
        assert f"{holder.pid} (" in told
        holder.communicate()
        assert unmounting.ended(mounted.pid, 60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.usefixtures("nobody_enters")
def test_another_users_mount_is_said_to_be_theirs(cafs: Cafs) -> None:
    cafs.project("")
    with tempfile.TemporaryDirectory(prefix="cafs-odd.") as open_directory:
        place = Path(open_directory, "cafs")
        runtime = Path(open_directory, "runtime")
        runtime.mkdir(mode=0o700)
        os.chown(runtime, NOBODY, NOBODY)
        Path(open_directory).chmod(0o755)
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        with cafs.mount(None, place, "--allow-other"):
            done = subprocess.run(
                [*user, sys.executable, "-m", "cafs", "unmount", place],
                cwd=ROOT,
                env={**cafs.environment, "XDG_RUNTIME_DIR": str(runtime)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert os.path.ismount(place)
        assert done.returncode == 8
        assert f"the mount on {place} is of user id 0" in done.stderr
        assert "hint: only they and root may unmount it" in done.stderr
