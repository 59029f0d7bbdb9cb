"""Which of the exceptions that reach the command line are expected failures."""

import click

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
    if isinstance(error, BaseExceptionGroup):
        return any(map(interrupted, error.exceptions))
    return isinstance(error, KeyboardInterrupt | click.Abort)
