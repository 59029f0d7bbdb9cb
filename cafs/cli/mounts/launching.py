"""What the processes of a mount are told: by whom, for whom, and with which command lines."""

import os
import pwd
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from cafs.cli.mounts import live
from cafs.control import keeper
from cafs.errors import UsageError

if TYPE_CHECKING:
    from cafs.settings.values import Settings

_PYTHON: Final = (sys.executable, "-P", "-m", "cafs")
"""A clone must not bring modules that we import: its directory, where it runs, is not ours."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A mount that is to be.

    ``arguments`` are the flags of its workers; ``program`` is the keeper, None for a worker that
    mounts by itself; ``user`` is whom workers run as, None for who mounts; ``project`` is the
    project's file, empty without one.
    """

    mount_point: Path
    key: str
    store: Path
    view: str
    arguments: tuple[str, ...]
    options: keeper.MountOptions
    program: Path | None
    user: str | None
    project: str = ""

    def command(self, word: int) -> list[str]:
        """The command line of the process that holds the mount.

        Args:
            word: the descriptor that the first worker says its word to.
        """
        place = str(self.mount_point)
        if self.program is None:
            alone = ("--no-keeper", "--foreground", "--key", self.key, "--ready-fd", str(word))
            return [*_PYTHON, "mount", *self.arguments, *alone, "--", place]
        owner = f"{os.geteuid()}:{os.getegid()}"
        names = ("--key", self.key, "--owner", owner)
        return keeper.command(
            self.program,
            self.mount_point,
            [*_PYTHON, "worker", *self.arguments, *names, "--", place],
            options=self.options,
            user=self.user,
            control=live.control_path(self.mount_point, self.key),
            live=live.live_path(self.mount_point, self.key),
            word=word,
        )

    def mounted(self, pid: int, log: str) -> live.LiveMount:
        """What the world is told of it once ``pid`` holds it."""
        control = ""
        if self.program is not None:
            control = str(live.control_path(self.mount_point, self.key))
        return live.LiveMount(
            mount_point=str(self.mount_point),
            pid=pid,
            key=self.key,
            store=str(self.store),
            view=self.view,
            log=log,
            control=control,
            started_ns=time.time_ns(),
            project=self.project,
        )


def plan(
    loaded: "Settings",
    mount_point: Path,
    flags: Sequence[str],
    *,
    with_keeper: bool = True,
    user: str | None = None,
    key: str | None = None,
) -> Launch:
    """Settle what a mount is to be.

    The store, the view and the project's file are the same for all of its workers, whatever the
    settings say by the time the next one starts: inodes that the kernel remembers must go on
    meaning what they mean.

    Args:
        loaded: the settings.
        mount_point: absolute.
        flags: the flags of ``cafs mount`` that stand for settings, as they were given.
        with_keeper: False for a worker that mounts by itself.
        user: whom workers are to run as, by name; None for the owner of the store.
        key: the mount's; None makes one.

    Raises:
        MountError: there is no keeper.
        UsageError: the user cannot be one, or a path is no UTF-8.
    """
    if user is not None and not with_keeper:
        raise UsageError("--user needs the keeper", hint=f"or as that user: su {user} -c '…'")
    store = _store_of(loaded.store, user)
    for path in (mount_point, store):
        _check_encoding(path)
    pinned = [f"--store={store}", f"--view={loaded.view}"]
    if loaded.project_file is not None:
        pinned.append(f"--config={loaded.project_file}")
    said = [flag for flag in flags if not flag.startswith(("--store=", "--view=", "--config="))]
    return Launch(
        mount_point=mount_point,
        key=key or secrets.token_hex(16),
        store=store,
        view=loaded.view,
        arguments=(*said, *pinned),
        options=keeper.MountOptions(
            allow_other=loaded.allow_other, suid=loaded.suid, dev=loaded.dev
        ),
        program=keeper.find_program(os.environ) if with_keeper else None,
        user=_worker_user(user, store) if with_keeper else None,
        project="" if loaded.project_file is None else live.project_name(loaded.project_file),
    )


def _check_encoding(path: Path) -> None:
    """Raises UsageError for a path that no JSON could tell, and so none of our files and facts."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path} is not in UTF-8", hint="give it another name") from error


def _store_of(store: Path, user: str | None) -> Path:
    """The store: a user who was named has one of their own unless the settings say which."""
    from cafs.settings.places import default_store

    if user is None or store != default_store(os.environ):
        return store
    return default_store({"HOME": _known(user).pw_dir})


def _worker_user(named: str | None, store: Path) -> str | None:
    """Whom workers run as; None for who we are."""
    if os.geteuid() != 0:
        if named is not None:
            raise UsageError("--user is for root", hint="a mount is served by who mounts it")
        return None
    if named is not None:
        return named if _known(named).pw_uid else None
    try:
        owner = store.stat().st_uid
    except OSError:  # there is none yet, or the worker will say why it cannot be used
        return None
    if owner == 0:
        return None
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError as error:
        raise UsageError(
            f"the store, {store}, belongs to user id {owner}, who has no name",
            hint="name who is to serve the mount with --user",
        ) from error


def _known(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise UsageError(f"there is no user {name!r}") from error
