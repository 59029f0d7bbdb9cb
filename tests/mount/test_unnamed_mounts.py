"""Verbs that are told no mount point, of a project that names none."""

import json

from tests.conftest import Cafs


def test_the_one_mount_of_a_project_is_found_by_the_project(cafs: Cafs) -> None:
    cafs.project('[defaults]\ndeadline = "5s"\n')
    assert cafs.run("unmount", check=False).returncode == 2
    cafs.run("mount", "m")
    place = cafs.directory / "m"
    try:
        facts = json.loads(cafs.run("status", "--json").stdout)
        assert (facts["mount_point"], facts["elsewhere"]) == (str(place), [])
        assert f"mounted on {place} " in cafs.run("status").stdout
        text = cafs.directory / "cafs.toml"
        text.write_text(f'[mount]\npath = "other"\n{text.read_text()}')
        told = cafs.run("status").stdout
        assert told.startswith(f"not mounted; this project is on {place}\n")
        facts = json.loads(cafs.run("status", "--json").stdout)
        assert (facts["mount_point"], facts["elsewhere"]) == (None, [str(place)])
        text.write_text(text.read_text().partition('other"\n')[2])
        assert f"reloaded {place} " in cafs.run("reload").stdout
        assert cafs.run("unmount").stdout == f"cafs: unmounted {place}\n"
        assert "not mounted" in cafs.run("status").stdout
    finally:
        cafs.run("unmount", place, check=False)
