"""Wishing: what a lock should have is of one reading of the project's file."""

from pathlib import Path

from cafs.settings.loading import load_project
from cafs.settings.lockfile import Lock
from cafs.settings.values import Overrides
from cafs.settings.wishing import wishes


def test_a_project_that_changes_meanwhile_is_what_it_was_when_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "cafs.toml"
    file.write_text('[ref.a]\nfrom = "https://127.0.0.1/a"\n')
    environ = {"HOME": str(tmp_path)}
    read = load_project(tmp_path, project=None, overrides=Overrides(), environ=environ)
    for changed in ('[ref.b]\nfrom = "https://127.0.0.1/b"\n', "no TOML"):
        file.write_text(changed)
        assert [wish.spec.name for wish in wishes(read, Lock(), ())] == ["a"]
