"""Settings that cannot be read: what is told of them all the same.

Which file is the project's is known without reading it, and by it the mounts that were made for the
project: to look at one, or to end it, nobody has to mend the settings first.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cafs.errors import SettingsError
from cafs.settings.loading import Project, load_project, project_file, with_lock
from cafs.settings.places import settled
from cafs.settings.values import Overrides, Settings


class Broken(msgspec.Struct, frozen=True):
    """Settings that cannot be read, and ``why``.

    ``file`` is the project's file, None without one. ``mount_point`` is what ``CAFS_MOUNT_POINT``
    says, which comes before what any file would.
    """

    why: SettingsError
    file: Path | None = None
    mount_point: Path | None = None


def attempt_project(
    start: Path, *, project: Path | None, overrides: Overrides, environ: Mapping[str, str]
) -> Project | Broken:
    """As ``load_project``; what is wrong is not raised."""
    try:
        return load_project(start, project=project, overrides=overrides, environ=environ)
    except SettingsError as error:
        said = environ.get("CAFS_MOUNT_POINT", "")
        file = project_file(start.absolute(), project, environ)
        return Broken(error, file, settled(start.absolute() / said) if said else None)


def attempt_lock(read: Project) -> Settings | Broken:
    """As ``with_lock``; what is wrong is not raised."""
    try:
        return with_lock(read)
    except SettingsError as error:
        return Broken(error, read.settings.project_file, read.settings.mount_point)
