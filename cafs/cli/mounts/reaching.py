"""Reaching those who fetch: where their sockets are, and asking all of them.

Each is in the runtime directory of the user whom its process runs as. A mount of root's may be
served by another user, the owner of its store; only root may ask there.
"""

import logging
import os
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.cli.mounts import live
from cafs.control import fetches as control
from cafs.errors import MountError

if TYPE_CHECKING:
    from cafs.assemble.system import System
    from cafs.fetch.interfaces import Inflight

_LOG: Final = logging.getLogger("cafs")
PREFETCH: Final = "prefetch"
"""Whom the socket of a prefetch is of; those of mounts have the mount's key."""


class Heard(msgspec.Struct, frozen=True):
    """What could be learnt: who fetches what, by socket; and who did not answer."""

    fetching: dict[Path, control.Fetching]
    troubles: list[MountError]


@asynccontextmanager
async def heard(system: "System", of: str, mount_point: Path | None) -> AsyncIterator[None]:
    """Let what this process fetches be listed and ended by others, in the block.

    It works without, so that a directory which cannot be used costs a warning only.

    Args:
        system: what fetches.
        of: the mount's key, or ``PREFETCH``.
        mount_point: absolute; None for no mount.
    """
    from cafs.control.listening import listening

    try:
        directory = live.directory()
    except MountError as error:
        _LOG.warning("control.fetches.unheard error=%s", error.line)
        yield
        return
    place = None if mount_point is None else str(mount_point)
    async with listening(directory, of, _Everything(system), mount_point=place):
        yield


class _Everything:
    """Both kinds of what a system asks sources for: what refs mean, and content."""

    def __init__(self, system: "System") -> None:
        self._system = system

    def inflight(self) -> "list[Inflight]":
        """What is under way."""
        return [*self._system.resolver.inflight(), *self._system.fetcher.inflight()]

    def cancel(self, id_: str | None = None) -> list[str]:
        """End it; the names of what was ended."""
        return [*self._system.resolver.cancel(id_), *self._system.fetcher.cancel(id_)]


def listen_to(mount_point: Path | None) -> Heard:
    """Ask everybody what they fetch, or those who serve one mount.

    Args:
        mount_point: absolute; None for all.

    Raises:
        MountError: nothing of ours is mounted there, or who serves it cannot be reached.
    """
    if mount_point is not None and live.mounted_type(mount_point) != live.TYPE:
        raise MountError(f"no cafs is mounted on {mount_point}", hint="cafs status lists mounts")
    heard = Heard({}, [])
    for path in sockets():
        try:
            told = control.inflight(path)
        except MountError as error:
            heard.troubles.append(error)
            continue
        if told is not None and mount_point in {None, _place(told)}:
            heard.fetching[path] = told
    if mount_point is not None and not heard.fetching and not heard.troubles:
        raise MountError(
            f"nobody tells what is fetched for {mount_point}", hint="its log may tell why"
        )
    return heard


def sockets() -> list[Path]:
    """The sockets of everybody whom this user may ask."""
    found = {path: None for each in _directories() for path in control.sockets(each)}
    return list(found)


def _place(told: control.Fetching) -> Path | None:
    return None if told.mount_point is None else Path(told.mount_point)


def _directories() -> Iterator[Path]:
    yield live.directory()
    mounts = live.all_mounts().mounts if os.getuid() == 0 else []
    users = {user for each in mounts if (user := _owner(each)) is not None}
    for user in sorted(users - {0}):
        # A keeper gives a worker of another user nothing of its own XDG variables.
        path = Path(tempfile.gettempdir()) / f"cafs-{user}"
        if _is_private(path, user):
            yield path


def _owner(mount: live.LiveMount) -> int | None:
    """Whom the workers of a mount run as, which is who has its store; None when that is gone."""
    try:
        return Path(mount.store).stat().st_uid
    except OSError:
        return None


def _is_private(path: Path, user: int) -> bool:
    """Whether a directory is a user's own, and nobody else can have put anything there."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o077
