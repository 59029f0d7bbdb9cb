"""Which mount is meant where nobody names one."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from cafs.cli.mounts import live
from cafs.cli.mounts.choosing import place_of_mount, place_of_project
from cafs.cli.mounts.live import LiveMount
from cafs.cli.mounts.looking import look
from cafs.errors import MountError, UsageError
from cafs.settings.loading import Project, load_settings
from cafs.settings.values import Overrides, Settings


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[Path]:
    """What is mounted, as far as the kernel would say."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    places: set[Path] = set()
    monkeypatch.setattr(live, "mounted_type", lambda place: live.TYPE if place in places else None)
    return places


@pytest.fixture
def loaded(tmp_path: Path) -> Settings:
    (tmp_path / "cafs.toml").write_text("")
    environ = {"HOME": str(tmp_path)}
    return load_settings(tmp_path, project=None, overrides=Overrides(), environ=environ)


def mount(there: set[Path], name: str, project: Path, *, key: str = "a") -> Path:
    """Be mounted."""
    place = Path("/mnt") / name
    there.add(place)
    live.save(
        LiveMount(
            mount_point=str(place),
            pid=1,
            key=key * 32,
            store="/store",
            view="/",
            log="",
            control="",
            started_ns=ord(key),
            project=live.project_name(project),
        )
    )
    return place


def test_the_only_mount_of_a_project_is_meant_where_the_settings_name_none(
    loaded: Settings, there: set[Path], tmp_path: Path
) -> None:
    file = tmp_path / "cafs.toml"
    with pytest.raises(UsageError, match="nothing of this project is mounted"):
        place_of_mount(loaded)
    assert place_of_project(loaded) is None
    mount(there, "foreign", tmp_path / "other/cafs.toml")
    gone = mount(there, "gone", file)
    there.remove(gone)
    own = mount(there, "own", file)
    mount(there, "taken", file, key="b")
    mount(there, "taken", tmp_path / "other/cafs.toml", key="c")  # over it, detached
    assert place_of_mount(loaded) == own
    (tmp_path / "link").symlink_to(tmp_path)
    assert place_of_mount(replace(loaded, project_file=tmp_path / "link/./cafs.toml")) == own


def test_of_several_mounts_of_a_project_all_are_named(
    loaded: Settings, there: set[Path], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        mount(there, name, tmp_path / "cafs.toml")
    with pytest.raises(UsageError, match="/mnt/one, /mnt/two"):
        place_of_project(loaded)


def test_the_settings_come_first_and_without_a_project_nothing_is_found(
    loaded: Settings, there: set[Path], tmp_path: Path
) -> None:
    mount(there, "one", tmp_path / "cafs.toml")
    named = replace(loaded, mount_point=Path("/mnt/named"))
    assert place_of_project(named) == Path("/mnt/named")
    assert place_of_project(replace(loaded, project_file=None)) is None


def test_a_project_whose_name_cannot_be_written_down_is_not_found(
    loaded: Settings, there: set[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "\udcff.toml"
    mount(there, "odd", odd)
    assert live.of_project(odd).mounts == []


def test_a_damaged_file_hides_its_own_mount_alone(
    loaded: Settings, there: set[Path], tmp_path: Path
) -> None:
    own = mount(there, "own", tmp_path / "cafs.toml")
    (live.directory() / "damaged.json").write_text("{}")
    (live.directory() / "folder.json").mkdir()
    assert place_of_project(loaded) == place_of_mount(loaded) == own
    live.live_path(own, "a" * 32).write_text("")
    assert place_of_project(loaded) is None
    with pytest.raises(MountError, match=r"is damaged|cannot be read"):
        place_of_mount(loaded)


@pytest.mark.parametrize("here", [None, "/mnt/here"])
def test_status_shows_what_it_can_where_not_every_mount_is_known(
    loaded: Settings, there: set[Path], tmp_path: Path, here: str | None
) -> None:
    loaded = replace(loaded, mount_point=None if here is None else Path(here))
    own = mount(there, "own", tmp_path / "cafs.toml")
    (live.directory() / "damaged.json").write_text("{}")
    if here is None:
        there.clear()
    seen = look(Project(loaded, ()))
    assert seen is not None
    assert seen.status is not None
    (note,) = seen.status.notes
    assert "damaged.json is damaged" in note
    assert seen.elsewhere == (() if here is None else (str(own),))


def test_status_needs_no_directory_of_mounts(
    loaded: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "open/cafs").mkdir(parents=True)
    (tmp_path / "open/cafs").chmod(0o755)
    for name, notes in (("missing", 0), ("file", 0), ("open", 1)):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / name))
        seen = look(Project(loaded, ()))
        assert seen is not None
        assert seen.status is not None
        assert (len(seen.status.notes), seen.elsewhere) == (notes, ())
        assert live.all_mounts().mounts == []
    assert not (tmp_path / "missing").exists()
