"""Wishing: what a lock should have is of one reading of the project's file."""

from pathlib import Path

from cafs.distribution.platforms import own_platform
from cafs.settings.loading import load_project
from cafs.settings.lockfile import Lock
from cafs.settings.units import platform
from cafs.settings.values import Overrides
from cafs.settings.wishing import unheard, wishes


def test_a_project_that_changes_meanwhile_is_what_it_was_when_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "cafs.toml"
    file.write_text('[ref.a]\nfrom = "https://127.0.0.1/a"\n')
    environ = {"HOME": str(tmp_path)}
    read = load_project(tmp_path, project=None, overrides=Overrides(), environ=environ)
    for changed in ('[ref.b]\nfrom = "https://127.0.0.1/b"\n', "no TOML"):
        file.write_text(changed)
        assert [wish.spec.name for wish in wishes(read, Lock(), ())] == ["a"]


def test_platforms_that_the_settings_leave_no_room_for_are_told(tmp_path: Path) -> None:
    image = 'from = "docker://127.0.0.1:1/base"'
    (tmp_path / "cafs.toml").write_text(
        f'[ref.base]\n{image}\nplatform = "linux/amd64"\n[ref.free]\n{image}\n'
        '[ref.file]\nfrom = "https://127.0.0.1/a"\n'
        f'[ref.some.by-platform."{own_platform()}"]\n{image}\n'
    )
    environ = {"HOME": str(tmp_path)}
    read = load_project(tmp_path, project=None, overrides=Overrides(), environ=environ)
    asked = [platform("linux/arm64")]
    assert ("base", "linux/arm64") in unheard(wishes(read, Lock(), asked), asked)
    asked = [platform("linux/s390x")]
    assert unheard(wishes(read, Lock(), asked), asked) == [
        ("base", "linux/s390x"),
        ("some", "linux/s390x"),
    ]
    asked = [platform("linux/amd64")]
    assert ("base", "linux/amd64") not in unheard(wishes(read, Lock(), asked), asked)
    assert unheard(wishes(read, Lock(), ()), ()) == []
