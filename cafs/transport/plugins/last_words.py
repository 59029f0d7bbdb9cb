"""The last words of a plugin: its stderr, which is its log and the reason when it fails."""

import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from cafs.transport.plugins.failing import redacted

_LOG: Final = logging.getLogger("cafs.transport")
_READ: Final = 64 << 10
_LINES: Final = 3
"""Lines that stand in a reason: the last one is often the end of a traceback, or a hint."""
_LONGEST: Final = 300
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class LastWords:
    """Listens to a stderr: every line goes to the log, the last ones are remembered.

    Args:
        scheme: whose plugin it is.
        urls: what is asked of it now; their queries are shown to nobody.

    Concurrency: one task listens.
    """

    def __init__(self, scheme: str, urls: Callable[[], tuple[str, ...]]) -> None:
        self.ended = trio.Event()
        self._scheme = scheme
        self._urls = urls
        self._lines: deque[str] = deque(maxlen=_LINES)

    @property
    def text(self) -> str:
        """The last lines, as one."""
        return "; ".join(self._lines)

    async def listen(self, stream: trio.abc.ReceiveStream) -> None:
        """Listen until the end of the stream.

        Cancellation: no effect.
        """
        rest = b""
        while data := await stream.receive_some(_READ):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[:_READ]
            for line in lines:
                self._note(line)
        self._note(rest)
        self.ended.set()

    def _note(self, line: bytes) -> None:
        text = _UNPRINTABLE.sub(" ", line.decode("utf-8", "replace")).strip()
        if text:
            text = redacted(text, self._urls())[:_LONGEST]
            self._lines.append(text)
            _LOG.info("transport.plugin.said %s: %s", self._scheme, text)
