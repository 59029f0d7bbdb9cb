"""Doubts: whether an index is wrong, or the bytes that it is held against.

What does not decode to what an index says is thrown away, and fetched again: it may have been
damaged on its way. Where the same bytes come each time, the index is the likelier culprit. Then
they stay: others have a use for them, and who sent them need not be asked at every read. But he may
have had a damaged copy, and have another by now; so he is asked again, each time later.
"""

import math
from collections import OrderedDict
from typing import Final

import msgspec
import trio

from cafs.model.identity import StreamKey

FIRST_S: Final = 60.0
"""For how long the bytes stay, the first time."""
_LONGEST_S: Final = 6 * 3600.0
_MOST: Final = 4096


class _Doubt(msgspec.Struct):
    """``digest`` is that of the bytes; they came again and were the same once there is a pause."""

    digest: bytes
    pause_s: float = 0.0
    until: float = -math.inf
    asked: bool = True


class Doubts:
    """What came for segments that did not decode to what an index says.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[StreamKey, int], _Doubt] = OrderedDict()

    def blame(self, key: StreamKey, start: int, digest: bytes, *, first: bool) -> bool:
        """Whether it is the index that is wrong; else the bytes are to be fetched again.

        Args:
            key: the stream that the index is of.
            start: where in it the segment begins.
            digest: of its input, which was found to be wrong just now.
            first: whether that is the first try of a read; the last one ended with fetching anew.
        """
        doubt = self._kept.get((key, start))
        if doubt is None or doubt.digest != digest:
            self._kept[(key, start)] = _Doubt(digest)
            self._kept.move_to_end((key, start))
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            return False
        now = trio.current_time()
        if doubt.asked:
            if not doubt.pause_s and not first:
                return False  # other sources have not been asked yet
            doubt.pause_s = min(max(FIRST_S, 2 * doubt.pause_s), _LONGEST_S)
            doubt.until = now + doubt.pause_s
            doubt.asked = False
            return True
        doubt.asked = now >= doubt.until
        return not doubt.asked
