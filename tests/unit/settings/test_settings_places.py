"""Places: what a path of the settings means."""

from pathlib import Path

from cafs.settings.places import settled


def test_a_mount_point_that_ends_upwards_is_the_directory_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    assert settled(tmp_path / "below" / "..") == tmp_path
    assert settled(Path("/")) == Path("/")
