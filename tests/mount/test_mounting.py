"""Mounting and unmounting: flags, messages, and what is refused."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

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


def told_of_refs(cafs: Cafs) -> list[dict[str, Any]]:
    """What status says of the refs, by name."""
    refs = json.loads(cafs.run("status", "--json").stdout)["refs"]
    return sorted(refs, key=lambda ref: str(ref["name"]))


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
        with pytest.raises(OSError, match="No such") as caught:
            os.listdir(mounted.ref("no"))
        assert caught.value.errno == errno.ENXIO
        assert "opt" in os.getxattr(mounted.ref("no"), "user.cafs.error").decode()
    assert len([one for one in origin.requests if one.bytes_sent > 1]) == 1


def test_status_tells_what_is_local_of_a_ref_that_nobody_has_read_in_this_mount(
    cafs: Cafs, origin: Origin
) -> None:
    url = tool(origin)
    toml = f'[ref.tool]\nfrom="{url}"\n[ref.other]\nfrom="{url}.other"\n'
    cafs.project(toml)
    cafs.run("prefetch", "-q", "tool")
    asked = len(origin.requests)
    with cafs.mount(toml) as mounted:
        other, read = told_of_refs(cafs)
        assert (read["state"], other["state"]) == ("unread", "unread")
        assert read["present"] == read["size"] > 0
        assert (read["sources"], other["sources"]) == ([url], [])
        assert (other["present"], other["size"]) == (0, None)
        os.listdir(mounted.ref("tool"))
        assert told_of_refs(cafs) == [other, {**read, "state": "resolved"}]
    assert len(origin.requests) == asked + 1  # a mount asks once whether the answer still holds


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


@pytest.mark.parametrize(
    ("flags", "words"),
    [((), {"ro", "nosuid", "nodev"}), (("--suid", "--dev"), {"ro"})],
    ids=["plain", "suid and dev"],
)
def test_the_kernel_is_told_no_more_than_was_asked(
    cafs: Cafs, flags: tuple[str, ...], words: set[str]
) -> None:
    for keeping in ((), ("--no-keeper",)):
        with cafs.mount(EMPTY, *flags, *keeping) as mounted:
            table = Path("/proc/self/mountinfo").read_text().splitlines()
            (fields,) = (line.split(" ") for line in table if f" {mounted.path} " in line)
            assert words == {"ro", "nosuid", "nodev"} & set(fields[5].split(","))
            assert fields[-3:-1] == ["fuse.cafs", "cafs"]
            assert "default_permissions" in fields[-1]
            assert "allow_other" not in fields[-1]


def test_other_users_are_let_in_when_asked(cafs: Cafs) -> None:
    for keeping in ((), ("--no-keeper",)):
        with cafs.mount(EMPTY, "--allow-other", *keeping) as mounted:
            table = Path("/proc/self/mountinfo").read_text().splitlines()
            assert any(f" {mounted.path} " in line and "allow_other" in line for line in table)


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
