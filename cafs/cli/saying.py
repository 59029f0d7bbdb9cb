"""Writing to standard output, and what becomes of it when that fails; lines beside it, and bars."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import click

from cafs.errors import StorageError, StorageFullError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_LAST_STREAM: Final = 2
"""The number of standard error, after standard input and output."""

_ABOVE: Final[ContextVar[Callable[[str], None] | None]] = ContextVar("above", default=None)
"""Writes a line above the bars that are drawn; None where none are."""


class ReaderGoneError(Exception):
    """Whoever read our output has gone (``cafs ls | head``); the command ends as a filter does.

    It is not an OSError, since click ends the process by itself when it sees a broken pipe.
    """


def keep_places() -> None:
    """Take the places of standard streams that were closed (`cafs verify 2>&-`).

    Else the next files that are opened have their numbers: those of the store, into which every
    child would write what it has to say.
    """
    while (place := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        os.set_inheritable(place, True)
    os.close(place)
    if sys.stderr is None:
        sys.stderr = open(_LAST_STREAM, "w", closefd=False)  # noqa: SIM115 - as long as we live


def mute() -> None:
    """Let standard error, which cannot be written, lead nowhere.

    Python would try again at exit, and make its own exit code of the failure.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _LAST_STREAM)
    os.close(nowhere)


def hush() -> None:
    """Keep what is logged of fetching off standard error, where nobody has set up a log.

    For verbs that a person reads by: what concerns him is their error, and that they print.
    """
    import logging

    for name in ("cafs.fetch", "cafs.distribution"):
        logging.getLogger(name).addHandler(logging.NullHandler())


def say(line: str | bytes) -> None:
    """Write one line.

    Raises:
        ReaderGoneError: nobody reads any more.
        StorageError: it cannot be written, as on a full disk.
    """
    text = line.encode(errors="surrogateescape") if isinstance(line, str) else line
    write(text + b"\n")


def aside(line: str) -> None:
    """Write one line on standard error; above bars that are drawn, which would wipe it away.

    Where that cannot be written, it is not: what it is beside goes on.
    """
    above = _ABOVE.get()
    try:
        if above is None:
            click.echo(line, err=True)
        else:
            above(line)
    except OSError:
        mute()


@contextmanager
def drawing(above: Callable[[str], None]) -> Iterator[None]:
    """Have ``aside`` write by this in the block, here and in the tasks that are begun there."""
    token = _ABOVE.set(above)
    try:
        yield
    finally:
        _ABOVE.reset(token)


def readable(text: str) -> str:
    """Text that JSON can hold: bytes that are no UTF-8 become the replacement character."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


def write(content: bytes) -> None:
    """Write bytes as they are. A slow reader blocks it: in trio, call it in a thread.

    Raises:
        ReaderGoneError: nobody reads any more.
        StorageError: they cannot be written, as on a full disk.
    """
    if sys.stdout is None:  # closed by whoever started us (`cafs ls >&-`)
        raise ReaderGoneError
    left = memoryview(content)
    try:
        while left:
            # Past Python's buffer, which would be flushed again at exit, and fail again.
            left = left[os.write(sys.stdout.fileno(), left) :]
    except BrokenPipeError as error:
        raise ReaderGoneError from error
    except OSError as error:
        kind = StorageFullError if error.errno in _FULL else StorageError
        raise kind(f"cannot write to standard output: {error.strerror}") from error
