"""Ending a mount, for ``unmount`` and ``run``; and what a dead one leaves, for ``mount`` too."""

import errno
import os
import select
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Final

from cafs.cli.mounts import busy, live
from cafs.errors import MountError

_DRAIN_S: Final = 20.0
"""How long a mount's processes may take to end after it has gone: a keeper gives its worker 15 s to
checkpoint the store."""
_ANSWER_S: Final = 5.0
"""How long a live mount may take to say anything; a dead one fails at once."""
_DEAD: Final = frozenset({errno.ENOTCONN, errno.ECONNABORTED})


class BusyError(MountError):
    """A mount that somebody uses, and that stays; ``users`` tells who, empty where nobody sees."""

    def __init__(self, what: str, users: str, *, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.users = users


def unmount(mount_point: Path, *, lazy: bool = False) -> bool:
    """Unmount, and wait until the mount's processes have ended.

    Args:
        mount_point: absolute.
        lazy: detach it now, whoever is in it; nothing is waited for.

    Returns:
        Whether it was a dead mount, which had nobody to wait for.

    Raises:
        BusyError: it is in use.
        MountError: nothing of cafs is mounted there, it is another user's, or its processes do not
            end.
    """
    kind = live.mounted_type(mount_point)
    known = live.find(mount_point)
    if kind is None:
        if known is not None and not known.alive:
            live.remove(known)
        raise MountError(f"nothing is mounted on {mount_point}", hint="cafs status lists mounts")
    if kind != live.TYPE:
        raise MountError(f"{mount_point} is a mount of type {kind}, not of cafs")
    if is_dead(mount_point):
        clean_up(mount_point, known)
        return True
    if live.is_foreign(mount_point):
        raise MountError(
            f"the mount on {mount_point} is {live.whose(mount_point)}",
            hint="only they and root may unmount it",
        )
    _detach(mount_point, lazy=lazy)
    if known is not None and not lazy:
        if not ended(known.pid, _DRAIN_S):
            raise _not_ended(known)
        live.remove(known)
    return False


def _not_ended(known: live.LiveMount) -> MountError:
    hint = f"see {known.log}" if known.log else ""
    elsewhere = busy.who_has_it_elsewhere(Path(known.mount_point))
    if elsewhere:
        hint = f"it serves other mount namespaces, which have that mount too: {elsewhere}"
    return MountError(
        f"unmounted {known.mount_point}, but its {known.holder} (pid {known.pid}) has not ended",
        hint=hint,
    )


def is_dead(mount_point: Path) -> bool:
    """Whether a mount of ours has nobody who could ever answer. Blocks for 5 s at most."""
    said: list[bool] = []

    def ask() -> None:
        # Attributes may come from the kernel's cache, this never does.
        try:
            os.statvfs(mount_point)
        except OSError as error:
            said.append(error.errno in _DEAD)

    # A worker that hangs answers nothing; a daemon thread may be left waiting for it.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    return any(said)


def clean_up(mount_point: Path, known: live.LiveMount | None) -> None:
    """Remove a dead mount, and what it has left behind.

    Args:
        mount_point: absolute.
        known: the mount's file, if there is one.

    Raises:
        MountError: it cannot be unmounted.
    """
    try:
        _detach(mount_point, lazy=True)  # whoever has something open in it only gets errors
    except MountError:
        if live.mounted_type(mount_point) == live.TYPE:
            raise
        # Its keeper was faster, at its own end.
    if known is not None and not known.alive:
        live.remove(known)


def ended(pid: int, limit_s: float) -> bool:
    """Wait for a process that need not be a child of ours; whether it ended in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], limit_s)[0])
    finally:
        os.close(descriptor)


def _detach(mount_point: Path, *, lazy: bool) -> None:
    program = shutil.which("fusermount3")
    if program is not None:
        command = [program, "-u", *(["-z"] if lazy else []), "--", str(mount_point)]
    else:
        command = ["umount", *(["-l"] if lazy else []), str(mount_point)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise MountError(
            f"cannot unmount {mount_point}: {command[0]} cannot be run: {error.strerror}",
            hint="install fusermount3 (Debian's package fuse3)",
        ) from error
    if done.returncode == 0:
        return
    said = done.stderr.strip() or f"{command[0]} exited {done.returncode}"
    if live.mounted_type(mount_point) != live.TYPE:
        raise MountError(f"nothing is mounted on {mount_point} any more: somebody else was faster")
    if "busy" not in said:
        raise MountError(f"cannot unmount {mount_point}: {said}")
    found = busy.who_keeps(mount_point)
    if not found and busy.stands_in(mount_point):
        what = f"the working directory is in {mount_point}"
        raise BusyError(what, "this process", hint="cd out of it")
    lazily = f"detach it now: cafs unmount --lazy {mount_point}"
    if not found:
        what = f"{mount_point} is busy, though nobody is seen in it: it may not answer"
        raise BusyError(what, "", hint=lazily)
    raise BusyError(f"{mount_point} is busy: {found}", found, hint=f"end those, or {lazily}")
