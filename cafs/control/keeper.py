"""The keeper, as the rest of cafs sees it: where the program is, how it is called, what it answers.

The program itself is ``cafs/fuse/keeper``; ``docs/processes.md`` tells what it does, and has the
protocol of its control socket.
"""

import os
import shutil
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from typing_extensions import override

from cafs.errors import MountError

PROGRAM: Final = "cafs-keeper"
_READ_AHEAD_KB: Final = 256
"""As ``cafs.fuse.session`` sets it where a worker mounts by itself; the reason stands there."""
_STATUS_S: Final = 5.0
"""How long a keeper may take to say how it is; it needs microseconds."""
_RELOAD_S: Final = 60.0
"""A new worker has 30 s to become ready; the keeper answers then, or as soon as it has failed."""
_DATAGRAM: Final = 1 << 16

_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class KeeperStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper says of itself and its mount; counts are since it started.

    ``state`` is ``starting``, ``serving``, ``recovering`` (between two workers), ``given-up`` (too
    many workers failed; requests are answered EIO) or ``ending``. ``worker`` is a pid, 0 when there
    is none; ``workers`` how many have been started; ``waiting`` the requests that are unanswered
    now; ``relayed`` and ``answered`` those that went to a worker, and those that the keeper
    answered by itself; ``resent`` those that a worker left behind; ``interrupted`` those whose
    reader was killed; ``notices`` and ``notices_dropped`` what workers told the kernel to forget.
    """

    pid: int
    state: str
    worker: int
    workers: int
    waiting: int
    relayed: int
    answered: int
    resent: int
    interrupted: int
    notices: int
    notices_dropped: int


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """How a reload ended: ``worker`` is the new one's pid; ``why`` there is none."""

    ok: bool
    worker: int = 0
    why: str = ""


class MountOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel is to mount; what the words mean is in fuse(8) and mount(8)."""

    allow_other: bool = False
    suid: bool = False
    dev: bool = False

    @override
    def __str__(self) -> str:
        words = ["fsname=cafs", "ro", "default_permissions"]
        words += [name for name in ("allow_other", "suid", "dev") if getattr(self, name)]
        return ",".join(words)


def find_program(environ: Mapping[str, str]) -> Path:
    """The keeper's program: ``CAFS_KEEPER``, else installed with this package, else on the path.

    Raises:
        MountError: there is none.
    """
    named = environ.get("CAFS_KEEPER")
    if named:
        if not os.access(named, os.X_OK):
            raise MountError(f"CAFS_KEEPER is {named}, which is no program that can be run")
        return Path(named)
    beside = Path(sys.executable).parent / PROGRAM
    if os.access(beside, os.X_OK):
        return beside
    installed = Path(sysconfig.get_path("scripts")) / PROGRAM  # some ms, mostly for nothing
    if os.access(installed, os.X_OK):
        return installed
    found = shutil.which(PROGRAM, path=environ.get("PATH"))
    if found is None:
        raise MountError(
            f"{PROGRAM} is not installed",
            hint="install cafs where a C compiler is, or mount without it: cafs mount --no-keeper",
        )
    return Path(found)


def command(
    program: Path,
    mount_point: Path,
    worker: Sequence[str],
    *,
    options: MountOptions,
    user: str | None,
    control: Path,
    live: Path,
    word: int,
) -> list[str]:
    """The command line of a keeper.

    Args:
        program: where it is.
        mount_point: an existing directory, absolute.
        worker: the command line of every worker.
        options: how to mount.
        user: whom the worker runs as; None for who runs the keeper.
        control: where it is to listen.
        live: the file that it is to remove when the mount has ended.
        word: the descriptor that the first worker is to say its word to.
    """
    as_user = [] if user is None else ["--user", user]
    return [
        str(program),
        "--options",
        str(options),
        *as_user,
        "--control",
        str(control),
        "--live",
        str(live),
        "--word",
        str(word),
        "--read-ahead",
        str(_READ_AHEAD_KB),
        str(mount_point),
        "--",
        *worker,
    ]


def status(control: str) -> KeeperStatus:
    """How a keeper is. Blocks for 5 s at most.

    Raises:
        MountError: it does not answer.
    """
    return _ask(control, b"status", KeeperStatus, limit_s=_STATUS_S)


def reload(control: str, word: int) -> Reloaded:
    """Have a keeper replace its worker, and wait for the end of it. Blocks for a minute at most.

    Args:
        control: the keeper's socket.
        word: a descriptor that the new worker is to say its word to; the caller closes its own.

    Raises:
        MountError: the keeper does not answer; whether it goes on reloading is not known.
    """
    return _ask(control, b"reload", Reloaded, limit_s=_RELOAD_S, descriptors=(word,))


def _ask(
    control: str,
    words: bytes,
    kind: type[_Answer],
    *,
    limit_s: float,
    descriptors: Sequence[int] = (),
) -> _Answer:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(limit_s)
            connection.connect(control)
            socket.send_fds(connection, [words], list(descriptors))
            told = connection.recv(_DATAGRAM)
    except (BlockingIOError, TimeoutError) as error:
        raise MountError(f"the keeper does not answer within {limit_s:g} s at {control}") from error
    except OSError as error:
        raise MountError(f"no keeper listens at {control}: {error.strerror}") from error
    if not told:
        raise MountError(f"the keeper at {control} hung up: it ends, or is another user's")
    try:
        return msgspec.json.decode(told, type=kind)
    except msgspec.MsgspecError as error:
        raise MountError(f"the keeper at {control} speaks of other things: {error}") from error
