"""Which of the exceptions that reach the command line are no bugs, and how they are told."""

import os
import sys
from types import UnionType

import click

from cafs.cli.exits import exit_code
from cafs.cli.saying import ReaderGoneError
from cafs.errors import CafsError


def expected(error: BaseException) -> CafsError | None:
    """The failure to report when an exception, or a group of them, is one of ours."""
    if isinstance(error, CafsError):
        return error
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


def report(error: CafsError) -> int:
    """Print an expected failure for a person, and return its exit code."""
    hint, error.hint = error.hint, ""
    lament(error.line, hint)
    error.hint = hint
    return exit_code(type(error))


def lament(what: str, hint: str) -> None:
    """Print what went wrong, and what to do, on standard error."""
    styled = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    label = click.style("error", fg="red", bold=True) if styled else "error"
    click.echo(f"{label}: {what}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
