"""Before a mount: nobody else is about to mount there, nothing live is there, the dead is gone."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from cafs.cli.mounts import live, unmounting
from cafs.control import keeper
from cafs.errors import MountError

_ENDING_S: Final = 20.0
"""How long a keeper that is about to end may take: its worker has 15 s."""


@contextmanager
def claimed(mount_point: Path) -> Iterator[int]:
    """Keep other commands from mounting there until the block is left.

    Its file goes with the claim, but where this process becomes another program in the block: a
    file that nobody holds is claimed as if it had just been made.

    Yields:
        The descriptor that claims it: a process that inherits it goes on claiming.

    Raises:
        MountError: another command claims it, or it cannot be claimed.
    """
    lock = live.lock_path(mount_point)
    try:
        claim = _claim(lock)
    except BlockingIOError as error:
        raise MountError(
            f"another cafs is about to mount on {mount_point}",
            hint="that command says how it went; once it is done, the mount is shown by: "
            f"cafs status {mount_point}",
        ) from error
    except OSError as error:
        raise MountError(f"{lock} cannot be opened: {error.strerror}") from error
    try:
        yield claim
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is ours: what is there later is somebody else's
        os.close(claim)


def _claim(lock: Path) -> int:
    """Lock the file that is there; one that its owner has removed meanwhile claims nothing.

    Raises:
        BlockingIOError: somebody else has locked it.
        OSError: it cannot be opened.
    """
    while True:
        claim = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(claim).st_nlink:
                return claim
        except BaseException:
            os.close(claim)
            raise
        os.close(claim)


def prepare(mount_point: Path, store: Path) -> None:
    """Make a mount point that can be mounted on: there, and empty of mounts.

    A mount whose process has died is unmounted, and said so on standard error.

    Raises:
        MountError: something live is mounted there, it cannot be made, or the store would be
            hidden.
    """
    real, kept = Path(os.path.realpath(mount_point.parent)), Path(os.path.realpath(store))
    real /= mount_point.name
    if real.is_relative_to(kept) or kept.is_relative_to(real):
        raise MountError(
            f"{mount_point} and the store, {store}, lie in each other:"
            " the mount would wait for itself",
            hint="mount elsewhere, or choose another store with --store",
        )
    _outwait(mount_point)
    while (kind := live.mounted_type(mount_point)) is not None:
        _vacate(mount_point, kind)
    try:
        mount_point.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise MountError(f"{mount_point} is no directory", hint="mount on an empty one") from error
    except OSError as error:
        raise MountError(f"cannot make {mount_point}: {error.strerror}") from error


def _outwait(mount_point: Path) -> None:
    """Wait for the end of a keeper that nobody waits for, since its command has been killed.

    It is about to mount, and will unmount what is there by then: that shall not be ours.

    Raises:
        MountError: it does not end.
    """
    known = live.find(mount_point)
    if known is None or not known.alive or not known.control:
        return
    try:
        starts = keeper.status(known.control).state == "starting"
    except MountError:  # it has not come so far as to listen, or does not any more
        starts = live.mounted_type(mount_point) is None
    if starts:
        _see_end(known)


def _see_end(known: live.LiveMount) -> None:
    if not unmounting.ended(known.pid, _ENDING_S):
        raise MountError(
            f"{known.mount_point}: a former {known.holder} (pid {known.pid}) does not end",
            hint=f"end it: kill {known.pid}",
        )


def _vacate(mount_point: Path, kind: str) -> None:
    """Unmount the uppermost mount there if it is ours and dead, or see it go.

    Raises:
        MountError: it is not.
    """
    known = live.find(mount_point)
    hint = f"cafs unmount {mount_point}"
    if kind != live.TYPE:
        raise MountError(f"{mount_point} is mounted already ({kind})", hint=f"umount {mount_point}")
    if not unmounting.is_dead(mount_point):
        if known is None:
            whose = live.whose(mount_point)
            raise MountError(f"{mount_point} is mounted already (the mount is {whose})", hint=hint)
        by = f"{known.holder} pid {known.pid}, store {known.store}"
        raise MountError(f"{mount_point} is mounted already ({by})", hint=hint)
    if known is not None and known.alive:
        _see_end(known)  # it is about to unmount, and shall not unmount what comes next
        return
    unmounting.clean_up(mount_point, known)
    who = f"its {known.holder} (pid {known.pid})" if known is not None else "who served it"
    click.echo(f"cafs: cleaned up {mount_point}: {who} had died", err=True)
