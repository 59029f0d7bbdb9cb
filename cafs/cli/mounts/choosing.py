"""Which mount is meant where nobody names one."""

from pathlib import Path
from typing import TYPE_CHECKING

from cafs.cli.mounts import live
from cafs.errors import UsageError

if TYPE_CHECKING:
    from cafs.settings.values import Settings


def place_of_mount(loaded: "Settings") -> Path:
    """The mount point of the settings; where they name none, that of the project's only mount.

    Raises:
        UsageError: they name none, and the project has no mount, or several.
        MountError: the runtime directory cannot be used.
    """
    from cafs.cli.verbs.mount import target

    return place_of_project(loaded) or target(loaded)


def place_of_project(loaded: "Settings") -> Path | None:
    """As ``place_of_mount``; None where the project has no mount.

    Raises:
        UsageError: they name none, and the project has several.
        MountError: the runtime directory cannot be used.
    """
    file = loaded.project_file
    if loaded.mount_point is not None or file is None:
        return loaded.mount_point
    places = [each.mount_point for each in live.of_project(file)]
    if len(places) > 1:
        several = f"{file} names no mount point, and has several mounts: {', '.join(places)}"
        raise UsageError(several, hint="name the one that is meant")
    return Path(places[0]) if places else None
