"""Answers that libfuse could not send.

It sends an answer once. A large one wants contiguous memory of the kernel, and when that is refused
(ENOBUFS) the answer is gone, and its reader would wait for ever: pyfuse3 writes a line to its log,
and nothing more. So that log is heard here, and the keeper is told to ask again. Small answers
cannot be lost: the kernel never refuses a few pages.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import trio
from typing_extensions import override

from cafs.fuse.channel import Channel

_LOG: Final = logging.getLogger("cafs.fuse")
_THEIRS: Final = logging.getLogger("pyfuse3")
_LARGE: Final = ("fuse_read(): fuse_reply", "fuse_readdirplus(): fuse_reply")
"""How the lines of pyfuse3 begin that tell of a lost answer with content or names."""
_PAUSE_S: Final = 0.05
"""Before the same is tried again: the kernel needs a moment to put its memory together."""
_ANSWERING: Final[ContextVar[tuple[int, int]]] = ContextVar("_ANSWERING")


def answering(node: int, offset: int) -> None:
    """Say what this task is about to answer: a READ or READDIR, by its node and offset."""
    _ANSWERING.set((node, offset))


@contextmanager
def recovered(channel: Channel, nursery: trio.Nursery) -> Iterator[None]:
    """Have the keeper ask again for what is lost in this block.

    Args:
        channel: to the keeper.
        nursery: where that is done; the answers are sent in the same trio run.
    """
    listener = _Listener(channel, nursery)
    _THEIRS.addHandler(listener)
    try:
        yield
    finally:
        _THEIRS.removeHandler(listener)


class _Listener(logging.Handler):
    """Hears of losses in the task that has answered."""

    def __init__(self, channel: Channel, nursery: trio.Nursery) -> None:
        super().__init__(logging.ERROR)
        self._channel = channel
        self._nursery = nursery

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, str) and record.msg.startswith(_LARGE):
            self._nursery.start_soon(self._ask_again, *_ANSWERING.get())

    async def _ask_again(self, node: int, offset: int) -> None:
        await trio.sleep(_PAUSE_S)
        try:
            await self._channel.ask_again(node, offset)
        except OSError as error:
            # What it has relayed has ended with it.
            _LOG.debug("fuse.losses.unheard: %s", error)
