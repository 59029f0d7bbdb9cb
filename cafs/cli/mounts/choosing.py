"""Which mount is meant where nobody names one."""

from pathlib import Path
from typing import TYPE_CHECKING

from cafs.cli.mounts import live
from cafs.cli.saying import aside
from cafs.errors import UsageError

if TYPE_CHECKING:
    from cafs.errors import MountError
    from cafs.settings.broken import Broken
    from cafs.settings.values import Settings


def place_of_mount(loaded: "Settings") -> Path:
    """The mount point of the settings; where they name none, that of the project's only mount.

    Raises:
        UsageError: they name none, and the project has no mount, or several.
        MountError: they name none, and what mounts the project has cannot be told.
    """
    from cafs.cli.verbs.mount import target

    place, troubles = _of_project(loaded)
    if place is None and troubles:
        raise troubles[0]
    if place is None and loaded.project_file is not None:
        what = f"{loaded.project_file} names no mount point, and nothing of this project is mounted"
        raise UsageError(what, hint="name the mount that is meant; cafs status lists them")
    return place or target(loaded)


def place_of_project(loaded: "Settings") -> Path | None:
    """As ``place_of_mount``; None where the project has no mount, as far as that can be told.

    Raises:
        UsageError: they name none, and the project has several.
    """
    return _of_project(loaded)[0]


def place_on_record(broken: "Broken") -> Path:
    """Where the project's settings cannot be read: its only mount, as its record says.

    What is wrong, and which mount is meant for that reason, is told on standard error.

    Raises:
        SettingsError: what is wrong; the project has no mount, or several, which are named.
    """
    found = live.Known([], []) if broken.file is None else live.of_project(broken.file)
    said = broken.mount_point
    places = [Path(each.mount_point) for each in found.mounts] if said is None else [said]
    if len(places) > 1:
        broken.why.hint = f"name the mount that is meant: {', '.join(map(str, places))}"
    if len(places) != 1:
        raise broken.why
    which = f"{places[0]} is meant, the only mount of this project" if said is None else str(said)
    aside(f"warning: the settings cannot be read: {broken.why.line}; {which}")
    return places[0]


def _of_project(loaded: "Settings") -> "tuple[Path | None, list[MountError]]":
    """The place, and why there may be mounts of which nothing is known."""
    file = loaded.project_file
    if loaded.mount_point is not None or file is None:
        return loaded.mount_point, []
    known = live.of_project(file)
    places = [each.mount_point for each in known.mounts]
    if len(places) > 1:
        several = f"{file} names no mount point, and has several mounts: {', '.join(places)}"
        raise UsageError(several, hint="name the one that is meant")
    return Path(places[0]) if places else None, known.troubles
