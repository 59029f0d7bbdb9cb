"""Which of the exceptions that reach the command line are no bugs, and how they are told."""

import errno
import os
import sys
from types import UnionType
from typing import Final

import click

from cafs.cli.exits import exit_code
from cafs.cli.saying import ReaderGoneError, aside
from cafs.errors import CafsError, StorageError, StorageFullError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_IN_THE_WAY: Final = _FULL | {errno.EACCES, errno.EPERM, errno.EIO, errno.EROFS, errno.ESTALE}
"""What a system says of a file that is there and cannot be used: no bug, wherever it is met."""


def expected(error: BaseException) -> CafsError | None:
    """The failure to report when an exception, or a group of them, is one of ours."""
    if isinstance(error, CafsError):
        return error
    if isinstance(error, OSError) and error.filename is not None and error.errno in _IN_THE_WAY:
        kind = StorageFullError if error.errno in _FULL else StorageError
        return kind(f"{os.fsdecode(error.filename)}: {error.strerror}")
    if isinstance(error, BaseExceptionGroup):
        found = [expected(each) for each in error.exceptions]
        if all(each is not None for each in found):
            return found[0]
    return None


def interrupted(error: BaseException) -> bool:
    """Whether it is Ctrl-C, alone or in a group that trio made of it."""
    return _holds(error, KeyboardInterrupt | click.Abort)


def reader_gone(error: BaseException) -> bool:
    """Whether it is that nobody reads our output any more, alone or in a group."""
    return _holds(error, ReaderGoneError)


def _holds(error: BaseException, kind: type[BaseException] | UnionType) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_holds(each, kind) for each in error.exceptions)
    return isinstance(error, kind)


def report(error: CafsError, *, of: str = "") -> int:
    """Print an expected failure for a person, and return its exit code.

    ``of`` is the name of a ref, or the ref itself, where there are several: what a source answers
    does not always have it.
    """
    hint, error.hint = error.hint, ""
    line = error.line
    named = line.startswith(f"{of}: ") or (":" in of and of in line)
    lament(line if named or not of else f"{of}: {line}", hint)
    error.hint = hint
    return exit_code(type(error))


def lament(what: str, hint: str) -> None:
    """Print what went wrong, and what to do, on standard error; the exit code says it too."""
    styled = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    label = click.style("error", fg="red", bold=True) if styled else "error"
    aside(f"{label}: {what}")
    if hint:
        aside(f"hint: {hint}")
