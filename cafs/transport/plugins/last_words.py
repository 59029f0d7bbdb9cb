"""The last words of a plugin: its stderr, which is its log and the reason when it fails.

Some programs never stop talking. The log gets so many lines in a while, each of a bounded length,
and is told how much was left out.
"""

import logging
import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import trio

from cafs.transport.plugins.failing import redacted

_LOG: Final = logging.getLogger("cafs.transport")
_READ: Final = 64 << 10
_LINES: Final = 3
"""Lines that stand in a reason: the last one is often the end of a traceback, or a hint."""
_LONGEST: Final = 300
_LOGGED: Final = 100
_WHILE_S: Final = 10.0
"""So many lines go to the log in so long a while: a traceback or two, and 260 MB a day at most."""
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class LastWords:
    """Listens to a stderr: lines go to the log, the last ones are remembered.

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
        self._until_s = -math.inf
        self._logged = 0
        self._left = 0
        self._left_size = 0

    @property
    def text(self) -> str:
        """The last lines, as one."""
        return "; ".join(self._lines)

    async def listen(self, stream: trio.abc.ReceiveStream) -> None:
        """Listen until the end of the stream.

        Cancellation: no effect.
        """
        rest, cut = b"", 0
        while data := await self._more(stream):
            *lines, rest = (rest + data).split(b"\n")
            self._take(lines, cut)
            cut = (0 if lines else cut) + max(len(rest) - _READ, 0)
            rest = rest[:_READ]
        self._take([rest], cut)
        self._tell()
        self.ended.set()

    async def _more(self, stream: trio.abc.ReceiveStream) -> bytes:
        """What is said next; what was left out before is told in time, though nothing be said."""
        while True:
            with trio.move_on_at(self._until_s if self._left else math.inf):
                return bytes(await stream.receive_some(_READ))
            self._tell()

    def _take(self, lines: Sequence[bytes], cut: int) -> None:
        """Log as much as may be, and remember the last lines.

        Args:
            lines: what was said.
            cut: how many bytes of the first line are gone already.
        """
        now = trio.current_time()
        if now >= self._until_s:
            self._tell()
            self._until_s, self._logged = now + _WHILE_S, 0
        texts = [(line, 0 if number else cut) for number, line in enumerate(lines) if line.strip()]
        room = _LOGGED - self._logged
        left = texts[room:]
        for line, gone in texts[:room]:
            text = self._note(line, gone)
            if text:
                self._logged += 1
                _LOG.info("transport.plugin.said %s: %s", self._scheme, text)
        # A reason has the last words, whether the log has them or not. Of a flood that is all that
        # is looked at: it must not keep anybody waiting.
        for line, gone in left[-_LINES:]:
            self._note(line, gone)
        self._left += len(left)
        self._left_size += sum(len(line) + gone for line, gone in left)

    def _note(self, line: bytes, gone: int) -> str:
        """Remember a line; what may be shown of it."""
        text = _UNPRINTABLE.sub(" ", line.decode("utf-8", "replace")).strip()
        text = redacted(text, self._urls())
        more = len(text) + gone - _LONGEST
        shown = text if more <= 0 else f"{text[:_LONGEST]}… ({more} more)"
        if shown:
            self._lines.append(shown)
        return shown

    def _tell(self) -> None:
        """Tell how much was left out."""
        if self._left:
            _LOG.info(
                "transport.plugin.left_out %s: %d lines, %d bytes",
                self._scheme,
                self._left,
                self._left_size,
            )
            self._left = self._left_size = 0
