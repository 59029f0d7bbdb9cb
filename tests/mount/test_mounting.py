"""Mounting and unmounting: flags, messages, and what is refused."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs
from cafs.testing.faults import Rate
from cafs.testing.origin import Origin

pytestmark = pytest.mark.fuse

EMPTY = '[mount]\npath="cafs"\n'


def tool(origin: Origin) -> str:
    archive = tar_bytes(
        {"tool-1.0/usr/bin/hello": (0o755, b"#!/bin/sh\necho hello\n")}, compression="gz"
    )
    return origin.put("/tool-1.0.tar.gz", archive)


def test_strip_and_subdir_choose_what_a_ref_shows(cafs: Cafs, origin: Origin) -> None:
    url = tool(origin)
    toml = (
        f'[ref.plain]\nfrom="{url}"\n[ref.strip]\nfrom="{url}"\nstrip=1\n'
        f'[ref.sub]\nfrom="{url}"\nstrip=1\nsubdir="usr"\n[ref.no]\nfrom="{url}"\nsubdir="opt"\n'
    )
    with cafs.mount(toml) as mounted:
        assert os.listdir(mounted.ref("plain")) == ["tool-1.0"]
        assert os.listdir(mounted.ref("strip")) == ["usr"]
        assert os.listdir(mounted.ref("sub")) == ["bin"]
        with pytest.raises(FileNotFoundError):
            os.listdir(mounted.ref("no"))
        assert "opt" in os.getxattr(mounted.ref("no"), "user.cafs.error").decode()
    assert len([one for one in origin.requests if one.bytes_sent > 1]) == 1


@pytest.mark.parametrize(
    ("view", "inside"),
    [("ref", "tool/usr/bin/hello"), ("ref/tool", "usr/bin/hello"), ("ref/tool/usr", "bin/hello")],
)
def test_a_view_shows_a_subtree_at_the_root(
    cafs: Cafs, origin: Origin, view: str, inside: str
) -> None:
    toml = f'[ref.tool]\nfrom="{tool(origin)}"\nstrip=1\n'
    with cafs.mount(toml, "--view", view) as mounted:
        done = subprocess.run([mounted.path / inside], capture_output=True, text=True, check=True)
        assert done.stdout == "hello\n"
        assert (mounted.path / ".cafs/status.json").exists()
        assert ".cafs" not in os.listdir(mounted.path)


def test_foreground_serves_until_it_is_told_to_end(cafs: Cafs, origin: Origin) -> None:
    cafs.project(f'{EMPTY}[ref.tool]\nfrom="{tool(origin)}"\n')
    process = cafs.popen("mount", "--foreground")
    place = cafs.directory / "cafs"
    limit = time.monotonic() + 20
    while not os.path.ismount(place):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert (place / "ref/tool/tool-1.0/usr/bin/hello").exists()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert not os.path.ismount(place)
    assert "Traceback" not in said


def test_what_cannot_be_mounted_says_why(cafs: Cafs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cafs.project("")
    nowhere = cafs.run("mount", check=False)
    assert nowhere.returncode == 2
    assert "mount point" in nowhere.stderr
    on_file = cafs.run("mount", tmp_path / "file", check=False)
    assert on_file.returncode == 8
    assert str(tmp_path / "file") in on_file.stderr
    missing = cafs.run("unmount", tmp_path, check=False)
    assert missing.returncode == 8
    assert str(tmp_path) in missing.stderr
    view = cafs.run("mount", tmp_path / "view", "--view", "ref/none", check=False)
    assert view.returncode in {2, 3}
    assert "ref/none" in view.stderr
    for done in (nowhere, on_file, missing, view):
        assert "Traceback" not in done.stderr


def test_a_mount_point_in_use_is_refused(cafs: Cafs) -> None:
    with cafs.mount(EMPTY):
        again = cafs.run("mount", check=False)
        assert again.returncode == 8
        assert "mounted already" in again.stderr


def test_a_mount_whose_worker_died_is_named_and_can_be_unmounted(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        os.kill(mounted.pid, signal.SIGKILL)
        limit = time.monotonic() + 10
        while Path(f"/proc/{mounted.pid}").exists() and time.monotonic() < limit:
            time.sleep(0.02)
        again = cafs.run("mount", check=False)
        assert again.returncode == 8
        assert f"cafs unmount {mounted.path}" in again.stderr
        cafs.run("unmount")
    with cafs.mount(EMPTY) as mounted:
        assert "ref" in os.listdir(mounted.path)


def test_a_busy_mount_names_who_keeps_it(cafs: Cafs) -> None:
    with cafs.mount(EMPTY) as mounted:
        with subprocess.Popen(["sleep", "60"], cwd=mounted.path) as sleeper:
            busy = cafs.run("unmount", check=False)
            sleeper.kill()
        assert busy.returncode == 8
        assert f"{sleeper.pid} (sleep)" in busy.stderr
        assert "--lazy" in busy.stderr


def test_status_of_a_mount_tells_what_is_fetched(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(4 << 20, seed=1))
    with cafs.mount(f'[ref.model]\nfrom="{url}"\n') as mounted:
        mounted.ref("model").read_bytes()
        facts = json.loads(cafs.run("status", "--json").stdout)
        (ref,) = facts["refs"]
        assert (ref["present"], ref["size"]) == (4 << 20, 4 << 20)
        assert ref["sources"] == [url]
        assert facts["fetched"] == origin.bytes_sent()
        assert 0 <= facts["hit_rate"] <= 1
        text = cafs.run("status").stdout
        assert "4.0 MiB" in text
        assert str(mounted.path) in text


def test_a_budget_ends_in_edquot(cafs: Cafs, origin: Origin) -> None:
    url = origin.put("/model.bin", Generated(8 << 20, seed=2))
    with cafs.mount(f'[ref.model]\nfrom="{url}"\n', "--budget", "2MiB") as mounted:
        with pytest.raises(OSError, match="quota"):
            mounted.ref("model").read_bytes()
        assert "budget" in os.getxattr(mounted.ref("model"), "user.cafs.error").decode()


def test_two_mounts_of_one_store_share_one_download(cafs: Cafs, origin: Origin) -> None:
    body = Generated(16 << 20, seed=3)
    url = origin.put("/model.bin", body)
    origin.fault("/model.bin", Rate(32 << 20))
    cafs.project(f'[ref.model]\nfrom="{url}"\n')
    places = [cafs.directory / "one", cafs.directory / "two"]
    try:
        for place in places:
            cafs.run("mount", place)
        readers = [
            subprocess.Popen(["sha256sum", place / "ref/model"], stdout=subprocess.PIPE, text=True)
            for place in places
        ]
        digests = {reader.communicate(timeout=60)[0].split()[0] for reader in readers}
    finally:
        for place in places:
            cafs.run("unmount", place, check=False)
    assert digests == {body.sha256()}
    assert origin.bytes_sent() <= 1.05 * (16 << 20)


@pytest.mark.parametrize("place", ["", "inside", ".."])
def test_a_mount_does_not_hide_its_own_store(cafs: Cafs, place: str) -> None:
    cafs.project("")
    cafs.store.mkdir(parents=True)
    done = cafs.run("mount", (cafs.store / place).resolve(), check=False)
    assert done.returncode == 8
    assert "the store" in done.stderr
    assert not (cafs.store / "inside").exists()


@pytest.mark.parametrize(("length", "code"), [(255, 0), (256, 8)])
def test_a_mount_point_may_have_as_long_a_name_as_any(cafs: Cafs, length: int, code: int) -> None:
    cafs.project("")
    place = cafs.directory / ("é" * 100 + "x" * (length - 200))
    done = cafs.run("mount", place, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if not code:
        cafs.run("unmount", place)
