"""Ending a mount, for ``unmount`` and ``run``."""

import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Final

from cafs.cli import live
from cafs.errors import MountError

_DRAIN_S: Final = 15.0
"""How long a worker may take to end after its mount has gone: it checkpoints the store."""


def unmount(mount_point: Path, *, lazy: bool = False) -> None:
    """Unmount, and wait until the worker has ended.

    Raises:
        MountError: nothing of ours is mounted there, or it is busy.
    """
    kind = live.mounted_type(mount_point)
    known = live.find(mount_point)
    if kind is None:
        if known is not None and not known.alive:
            live.remove(known)
        raise MountError(f"nothing is mounted on {mount_point}", hint="cafs status lists mounts")
    if kind != "fuse.cafs":
        raise MountError(f"{mount_point} is a mount of type {kind}, not of cafs")
    _detach(mount_point, lazy=lazy)
    if known is not None:
        if not lazy and not _ended(known.pid, _DRAIN_S):
            raise MountError(
                f"unmounted {mount_point}, but its worker (pid {known.pid}) has not ended",
                hint=f"see {known.log}" if known.log else "",
            )
        if not known.alive:
            live.remove(known)


def _detach(mount_point: Path, *, lazy: bool) -> None:
    program = shutil.which("fusermount3")
    if program is not None:
        command = [program, "-u", *(["-z"] if lazy else []), "--", str(mount_point)]
    else:
        command = ["umount", *(["-l"] if lazy else []), str(mount_point)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return
    said = done.stderr.strip() or f"{command[0]} exited {done.returncode}"
    if "busy" in said:
        users = _users(mount_point)
        if not users and _below(Path("/proc/self/cwd"), os.fsencode(mount_point)):
            raise MountError(f"the working directory is in {mount_point}", hint="cd out of it")
        raise MountError(
            f"{mount_point} is busy: {users or said}", hint="end those, or cafs unmount --lazy"
        )
    raise MountError(f"cannot unmount {mount_point}: {said}")


def _users(mount_point: Path) -> str:
    """Other processes with a working directory, root, program or open file below it."""
    prefix = os.fsencode(mount_point)
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        links = [process / "cwd", process / "root", process / "exe"]
        try:
            links += (process / "fd").iterdir()
        except OSError:
            continue  # gone, or another user's
        if any(_below(link, prefix) for link in links):
            found.append(f"{process.name} ({_command(process)})")
    return ", ".join(found)


def _below(link: Path, prefix: bytes) -> bool:
    try:
        place = os.fsencode(link.readlink())
    except OSError:
        return False
    return place == prefix or place.startswith(prefix + b"/")


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "gone"


def _ended(pid: int, limit_s: float) -> bool:
    """Wait for a process that need not be a child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], limit_s)[0])
    finally:
        os.close(descriptor)
