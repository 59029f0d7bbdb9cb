"""Starting a worker in the background, and waiting for its word that the mount is ready.

The worker is this same command with ``--foreground --ready-fd N``. It writes one JSON line to the
descriptor: the live mount, or the error that kept it from mounting. End of file without a line
means that it died; then its log tells why. A worker that finds nobody there to tell unmounts: who
wanted the mount has been killed.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec
import platformdirs

from cafs.cli.failing import lament
from cafs.cli.live import LiveMount
from cafs.errors import MountError

_LOG_NAME: Final = 120
"""Bytes of a mount point's name in that of its log."""
_LOG_TAIL: Final = 2_000
"""Bytes of a dead worker's log that are shown."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker could not mount; ``exit`` is the exit code that belongs to it."""

    what: str
    hint: str
    exit: int


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The mount answers; ``pid`` is the worker's."""

    pid: int


class Word(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one line that a worker says: exactly one of the two."""

    ready: Ready | None = None
    failure: Failure | None = None


def log_file(mount_point: Path) -> Path:
    """Where a mount point's worker logs: one file each, of the last mount that became ready."""
    state = Path(platformdirs.user_state_path("cafs"))
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = hashlib.sha256(os.fsencode(mount_point)).hexdigest()[:8]
    name = os.fsencode(mount_point.name or "root")[:_LOG_NAME].decode(errors="ignore")
    return state / f"{name}-{place}.log"


def start(mount_point: Path, arguments: Sequence[str]) -> LiveMount:
    """Start a worker, and wait until it is ready.

    Args:
        mount_point: absolute.
        arguments: flags of ``cafs mount``.

    Raises:
        MountError: the worker died without a word.
        click.exceptions.Exit: the worker said why it could not mount; the message has been printed.
        KeyboardInterrupt: and the like; the worker has ended.
    """
    log = log_file(mount_point)
    # Another worker may be writing that file, and this one may fail because of it: so it writes a
    # file of its own, which takes the place when the mount is ready.
    draft = log.with_suffix(f".{os.getpid()}")
    listen, speak = os.pipe()
    with draft.open("wb") as out:
        worker = subprocess.Popen(
            [
                sys.executable,
                "-P",  # a clone must not bring modules that we import: its directory is ours
                "-m",
                "cafs",
                "mount",
                *arguments,
                "--foreground",
                "--ready-fd",
                str(speak),
                "--",
                str(mount_point),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(speak,),
            start_new_session=True,
            env={**os.environ, "CAFS_LOG_FILE": str(log)},
        )
    os.close(speak)
    try:
        with open(listen, "rb") as pipe:  # noqa: PTH123 - a descriptor, not a path
            line = pipe.readline()
    except BaseException:  # Ctrl-C
        worker.terminate()
        worker.wait()
        draft.unlink()
        raise
    if line:
        word = msgspec.json.decode(line, type=Word)
        if word.ready is not None:
            draft.replace(log)
            return word.ready
        if word.failure is not None:
            worker.wait()
            draft.unlink()
            lament(word.failure.what, word.failure.hint)
            raise click.exceptions.Exit(word.failure.exit)
    code = worker.wait()
    tail = draft.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
    draft.unlink()
    raise MountError(f"the worker ended with {code} before the mount was ready:\n{tail}")
