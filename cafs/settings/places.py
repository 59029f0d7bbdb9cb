"""Places on disk: where the settings files are, and what a path in one of them means."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cafs.errors import SettingsError

PROJECT_FILE: Final = "cafs.toml"
_SYSTEM_FILE: Final = Path("/etc/cafs/config.toml")


def home(environ: Mapping[str, str]) -> Path:
    """The user's home: ``HOME``, else what the system says."""
    return Path(environ["HOME"]) if environ.get("HOME") else Path.home()


def absolute(text: str, environ: Mapping[str, str]) -> Path | None:
    """An absolute path, or one below the user's home that starts with ``~/``; else None."""
    if text.startswith("~/"):
        return home(environ) / text.removeprefix("~/")
    return Path(text) if text.startswith("/") else None


def user_file(environ: Mapping[str, str]) -> Path:
    """The user's settings file, whether or not it exists.

    Source: XDG Base Directory Specification; a relative XDG_CONFIG_HOME is ignored.
    """
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "cafs" / "config.toml"


def system_file(environ: Mapping[str, str]) -> Path:
    """The system's settings file; ``CAFS_SYSTEM_CONFIG`` names another."""
    return Path(environ.get("CAFS_SYSTEM_CONFIG") or _SYSTEM_FILE).absolute()


def default_store(environ: Mapping[str, str]) -> Path:
    """The store when nothing names one: in the user's cache directory."""
    return _xdg(environ, "XDG_CACHE_HOME", ".cache") / "cafs" / "store"


def find_project(start: Path) -> Path | None:
    """The nearest cafs.toml in ``start`` or above it."""
    start = start.absolute()
    for directory in (start, *start.parents):
        file = directory / PROJECT_FILE
        if file.is_file():
            return file
    return None


def real(path: Path) -> Path:
    """The path with symlinks resolved; what does not exist, or loops, stays as it is."""
    return Path(os.path.realpath(path))


def within(path: Path, directory: Path) -> bool:
    """Whether a resolved path lies strictly below a directory, wherever that really is."""
    top = real(directory)
    return path != top and path.is_relative_to(top)


def settled(path: Path) -> Path:
    """A mount point: symlinks resolved, without ever asking the file system that is mounted there.

    A stopped worker answers no question about its mount, and reading its settings must still work:
    so parents are resolved, and the last component is only asked whether it is a symlink, which the
    kernel answers by itself.
    """
    if path.name in {"", ".."}:
        return real(path)
    place = real(path.parent) / path.name
    try:
        target = place.readlink()
    except OSError:
        # Not a symlink, or not there yet: both are what a mount point should be.
        return place
    return real(place.parent / target)


def project_mount(file: str, directory: Path, text: str) -> Path:
    """Where a project file's ``mount.path`` leads.

    Raises:
        SettingsError: absolute, the project itself, with a ``..``, or out of it through a symlink.
    """
    words = [word for word in text.split("/") if word not in {"", "."}]
    if text.startswith(("/", "~")) or ".." in words or not words:
        raise SettingsError(
            file,
            "mount.path",
            f"{text!r} is no path below this file",
            hint="name another place on the command line: cafs mount PATH",
        )
    place = settled(directory.joinpath(*words))
    if not within(place, directory):
        raise SettingsError(
            file,
            "mount.path",
            f"{text!r} leads out of the project, to {place}",
            hint="name another place on the command line: cafs mount PATH",
        )
    return place


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    text = environ.get(variable, "")
    return Path(text) if text.startswith("/") else home(environ) / below_home
