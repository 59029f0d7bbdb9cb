"""What the processes of a mount are told."""

import os
import pwd
from pathlib import Path

import click
import msgspec
import pytest
from msgspec.structs import replace

from cafs.cli.mounts import background, launching
from cafs.cli.mounts.heralding import Failure, Word
from cafs.cli.mounts.launching import Launch
from cafs.errors import MountError, UsageError
from cafs.settings.loading import load_settings
from cafs.settings.places import default_store
from cafs.settings.values import Overrides, Settings


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a project whose store is in the test's directory; a keeper is there."""
    program = tmp_path / "cafs-keeper"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("CAFS_KEEPER", str(program))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "cafs.toml").write_text('[mount]\nview = "ref"\n')
    environ = {"HOME": str(tmp_path), "CAFS_STORE": str(tmp_path / "store")}
    return load_settings(tmp_path, project=None, overrides=Overrides(), environ=environ)


def worker_of(launch: Launch) -> list[str]:
    words = launch.command(9)
    return words[words.index("--") + 1 :]


def test_store_view_and_project_are_the_same_for_every_worker(
    loaded: Settings, tmp_path: Path
) -> None:
    flags = ["--store=here", "--config=there", "--view=/", "--offline"]
    words = worker_of(launching.plan(loaded, tmp_path / "m", flags))
    assert [word for word in words if word.startswith(("--store", "--view", "--config"))] == [
        f"--store={tmp_path}/store",
        "--view=ref",
        f"--config={tmp_path}/cafs.toml",
    ]
    assert "--offline" in words


def test_a_worker_is_told_its_key_its_owner_and_its_place(loaded: Settings, tmp_path: Path) -> None:
    launch = launching.plan(loaded, tmp_path / "m", [])
    words = worker_of(launch)
    assert words[1:5] == ["-P", "-m", "cafs", "worker"]
    assert words[words.index("--key") + 1] == launch.key
    assert words[words.index("--owner") + 1] == f"{os.geteuid()}:{os.getegid()}"
    assert words[-2:] == ["--", str(tmp_path / "m")]


def test_every_mount_has_a_key_of_its_own(loaded: Settings, tmp_path: Path) -> None:
    keys = {launching.plan(loaded, tmp_path / "m", []).key for _ in range(3)}
    assert len(keys) == 3
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


def test_without_a_keeper_the_worker_mounts_by_itself(loaded: Settings, tmp_path: Path) -> None:
    launch = launching.plan(loaded, tmp_path / "m", ["--offline"], with_keeper=False)
    words = launch.command(9)
    assert words[4] == "mount"
    for flag in ("--offline", "--no-keeper", "--foreground"):
        assert flag in words
    assert words[words.index("--ready-fd") + 1] == "9"
    mounted = launch.mounted(1, "")
    assert mounted.control == ""
    assert mounted.holder == "worker"


def test_what_is_mounted_is_told_as_it_was_planned(loaded: Settings, tmp_path: Path) -> None:
    launch = launching.plan(loaded, tmp_path / "m", [])
    mounted = launch.mounted(123, "/log")
    words = launch.command(9)
    assert mounted.control == words[words.index("--control") + 1]
    assert (mounted.pid, mounted.key, mounted.view) == (123, launch.key, "ref")
    assert mounted.holder == "keeper"


def test_without_a_program_there_is_no_keeper(
    loaded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAFS_KEEPER", str(tmp_path / "gone"))
    with pytest.raises(MountError, match="gone"):
        launching.plan(loaded, tmp_path / "m", [])
    assert launching.plan(loaded, tmp_path / "m", [], with_keeper=False).program is None


def test_a_user_needs_the_keeper(loaded: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the keeper"):
        launching.plan(loaded, tmp_path / "m", [], with_keeper=False, user="nobody")


def test_only_root_chooses_who_serves(
    loaded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="for root"):
        launching.plan(loaded, tmp_path / "m", [], user="nobody")
    assert launching.plan(loaded, tmp_path / "m", []).user is None


def test_root_is_served_by_the_owner_of_the_store(
    loaded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert launching.plan(loaded, tmp_path / "m", []).user is None  # there is no store yet
    loaded.store.mkdir()
    owner = pwd.getpwnam("nobody")
    monkeypatch.setattr(Path, "stat", lambda _path: os.stat_result([owner.pw_uid] * 10))
    assert launching.plan(loaded, tmp_path / "m", []).user == "nobody"
    monkeypatch.setattr(Path, "stat", lambda _path: os.stat_result([3_999_999_999] * 10))
    with pytest.raises(UsageError, match="3999999999"):
        launching.plan(loaded, tmp_path / "m", [])


def test_a_user_who_is_named_has_a_store_of_their_own(
    loaded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    chosen = launching.plan(loaded, tmp_path / "m", [], user="nobody")
    assert (chosen.user, chosen.store) == ("nobody", loaded.store)
    silent = replace(loaded, store=default_store(os.environ))
    theirs = launching.plan(silent, tmp_path / "m", [], user="nobody")
    assert theirs.store == default_store({"HOME": pwd.getpwnam("nobody").pw_dir})
    assert f"--store={theirs.store}" in worker_of(theirs)
    with pytest.raises(UsageError, match="no user 'nobody-at-all'"):
        launching.plan(loaded, tmp_path / "m", [], user="nobody-at-all")


def test_a_path_that_is_no_utf_8_is_refused(loaded: Settings, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with pytest.raises(UsageError, match="not in UTF-8"):
        launching.plan(loaded, odd, [])
    with pytest.raises(UsageError, match="not in UTF-8"):
        launching.plan(replace(loaded, store=odd), tmp_path / "m", [])


@pytest.mark.parametrize(
    ("what", "hint", "user", "said"),
    [
        ("/a: Permission denied", "chmod it", "ann", "hint: chmod it; the user 'ann' is to serve"),
        ("/a: Permission denied", "", "ann", "hint: the user 'ann' is to serve this mount"),
        ("/a: Permission denied", "chmod it", None, "hint: chmod it\n"),
        ("/a: no TOML", "mend it", "ann", "hint: mend it\n"),
    ],
)
def test_what_another_user_may_not_is_told_with_who_that_is(
    capsys: pytest.CaptureFixture[str], what: str, hint: str, user: str | None, said: str
) -> None:
    word = Word(failure=Failure(what=what, hint=hint, exit=7))
    with pytest.raises(click.exceptions.Exit) as ended:
        background.heed(msgspec.json.encode(word) + b"\n", user=user)
    assert ended.value.exit_code == 7
    first, second = capsys.readouterr().err.splitlines(keepends=True)
    assert first == f"error: {what}\n"
    assert second.startswith(said)
