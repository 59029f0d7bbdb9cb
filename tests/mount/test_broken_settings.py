"""Files of settings that cannot be read, as a merge leaves them: nobody is locked out by them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cafs.testing.origin import Origin
from tests.conftest import Cafs

CONFLICT = "<<<<<<< HEAD\n"


@pytest.fixture
def mounted(fuse: None, cafs: Cafs, origin: Origin) -> Iterator[Cafs]:
    """A project whose one ref is locked, mounted."""
    url = origin.put("/model.bin", b"model")
    cafs.project(f'[mount]\npath="cafs"\n[ref.model]\nfrom="{url}"\n')
    cafs.run("lock", "--quiet")
    cafs.run("mount")
    yield cafs
    cafs.run("unmount", cafs.directory / "cafs", check=False)


def break_file(file: Path) -> None:
    file.write_text(CONFLICT + file.read_text())


def test_a_broken_lock_hinders_only_who_asks_what_a_ref_means(mounted: Cafs) -> None:
    digest = json.loads(mounted.run("resolve", "--json").stdout)["digest"]
    mounted.run("prefetch", "--quiet")
    break_file(mounted.directory / "cafs.lock")
    assert json.loads(mounted.run("status", "--json").stdout)["refs"][0]["name"] == "model"
    assert mounted.run("pin", digest).returncode == 0
    for words in (("pin",), ("gc",), ("verify",), ("du", digest), ("unpin", digest)):
        assert mounted.run(*words).stderr == "", words
    listed = mounted.run("du")
    assert "model.bin" in listed.stdout
    assert "begins a merge conflict" in listed.stderr
    for words in (("du", "model"), ("pin", "model"), ("rm", "model"), ("ls", "model"), ("mount",)):
        done = mounted.run(*words, check=False)
        assert (done.returncode, "begins a merge conflict" in done.stderr) == (2, True), words
    done = mounted.run("reload", check=False)
    assert "the old worker serves on" in done.stderr
    assert "begins a merge conflict" in done.stderr
    assert mounted.run("unmount").stderr == ""
    done = mounted.run("status", check=False)  # of no mount: what refs mean is what it shows
    assert (done.returncode, "begins a merge conflict" in done.stderr) == (2, True)


def test_without_a_project_status_lists_mounts_whatever_the_users_file_says(
    mounted: Cafs, tmp_path: Path
) -> None:
    user = tmp_path / "user.toml"
    user.write_text("[[[\n")
    mounted.environment["CAFS_SYSTEM_CONFIG"] = str(user)
    (mounted.directory / "cafs.toml").rename(mounted.directory / "away.toml")
    done = mounted.run("status")
    assert done.stdout.startswith(f"{mounted.directory / 'cafs'}  keeper pid ")
    assert done.stderr.startswith(f"warning: the settings cannot be read: {user}: line 1, ")
    done = mounted.run("unmount", check=False)
    assert (done.returncode, str(user) in done.stderr) == (2, True)


def test_a_project_whose_file_is_broken_is_known_by_its_mounts(mounted: Cafs) -> None:
    place, file = mounted.directory / "cafs", mounted.directory / "cafs.toml"
    text = file.read_text()
    file.write_text("[[[\n")
    done = mounted.run("status")
    assert f"mounted on {place} " in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: the settings cannot be read: {file}: line 1, ")
    assert f"{place} is meant" in line
    assert mounted.run("gc", check=False).returncode == 2  # where the store is, is in the settings
    file.write_text(text)
    other = mounted.directory / "other"
    mounted.run("mount", other)
    file.write_text("[[[\n")
    try:
        for verb in ("unmount", "status"):
            done = mounted.run(verb, check=False)
            assert done.returncode == 2
            assert f"hint: name the mount that is meant: {place}, {other}" in done.stderr
        mounted.environment["CAFS_MOUNT_POINT"] = "other"
        assert mounted.run("unmount").stdout == f"cafs: unmounted {other}\n"
        del mounted.environment["CAFS_MOUNT_POINT"]
    finally:
        mounted.run("unmount", other, check=False)
    done = mounted.run("unmount")
    assert (done.stdout, f"{place} is meant" in done.stderr) == (f"cafs: unmounted {place}\n", True)
    for verb in ("unmount", "status"):
        done = mounted.run(verb, check=False)
        assert (done.returncode, f"error: {file}: line 1, " in done.stderr) == (2, True)
