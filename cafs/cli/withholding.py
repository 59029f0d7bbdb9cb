"""Withholding: what is logged while a verb works is told when it has ended, and only what is new.

Where nobody has set up a log, Python writes each warning as it comes: into the bars, and beside the
error that says the same. Here people get them in the form of every other line, once each.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from typing_extensions import override

from cafs.cli.failing import expected, interrupted
from cafs.cli.saying import aside

_LOGGER: Final = "cafs"


class _Withheld(logging.Handler):
    """Keeps the texts of warnings, each once, in their order."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: dict[str, None] = {}

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.texts[record.getMessage()] = None


@contextmanager
def withheld(*, quiet: bool) -> Iterator[set[str]]:
    """Withhold what is logged in the block, and tell it on standard error at its end.

    When a failure passes through that is told anyway, or a person or a signal ends it, nothing else
    is told: what was logged led to it.

    Args:
        quiet: nothing is told but beside a bug, of which it may be the reason.

    Yields:
        The names of refs whose failure has been told: what is logged of these is not told again.
    """
    failed: set[str] = set()
    handler = _Withheld()
    logger = logging.getLogger(_LOGGER)
    logger.addHandler(handler)
    told = not quiet
    try:
        yield failed
    except BaseException as error:
        ended = interrupted(error) or isinstance(error, SystemExit)  # by a signal: ``in_order``
        told = expected(error) is None and not ended
        raise
    finally:
        logger.removeHandler(handler)
        for text in handler.texts if told else ():
            if not any(f" {name}: " in f" {text}" for name in failed):
                aside(f"warning: {text}")
