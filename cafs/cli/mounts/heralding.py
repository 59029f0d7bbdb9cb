"""A worker's word: the one line that it says to whoever started it."""

import os
import select
import stat
from pathlib import Path
from typing import Final

import msgspec

from cafs.cli.exits import exit_code
from cafs.errors import CafsError, MountError

_GONE: Final = select.POLLERR
"""What a pipe that nobody reads is polled as. Source: poll(2)."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker could not serve; ``exit`` is the exit code that belongs to it."""

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


def is_awaited(descriptor: int) -> bool:
    """Whether somebody waits for the word: a keeper gives ``/dev/null`` where nobody does.

    What it gives otherwise is the pipe of ``cafs mount`` or ``cafs reload``; or, to the first
    worker of a mount in the foreground, the file that claims the mount point.
    """
    return not stat.S_ISCHR(os.fstat(descriptor).st_mode)


class Herald:
    """Says one word, once, and closes the descriptor that it was said to.

    Concurrency: one thread at a time.
    """

    def __init__(self, word: int | None) -> None:
        """Speak to a descriptor; None is nobody."""
        self._word = word

    def check(self, mount_point: Path) -> None:
        """See whether anybody still listens, where one did.

        Raises:
            MountError: who asked for the mount has been killed.
        """
        if self._word is None:
            return
        poll = select.poll()
        poll.register(self._word, 0)
        if any(found & _GONE for _, found in poll.poll(0)):
            raise MountError(f"{mount_point}: who asked for the mount has gone")

    def proclaim(self) -> bool:
        """Say that the mount answers; False when whoever wanted to know has gone."""
        return self._word is None or self._say(Word(ready=Ready(pid=os.getpid())))

    def lament(self, error: CafsError) -> bool:
        """Say why there is no mount; whether anybody could be told."""
        hint, error.hint = error.hint, ""
        failure = Failure(what=error.line, hint=hint, exit=exit_code(type(error)))
        error.hint = hint
        return self._word is not None and self._say(Word(failure=failure))

    def _say(self, word: Word) -> bool:
        if self._word is None:
            return True
        descriptor, self._word = self._word, None
        try:
            with open(descriptor, "wb", buffering=0) as pipe:  # noqa: PTH123 - no path
                pipe.write(msgspec.json.encode(word) + b"\n")
        except OSError:  # a broken pipe, or nobody has given us one
            return False
        return True
