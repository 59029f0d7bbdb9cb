"""Failures that are kept for a moment, so that asking again at once does not try again at once.

The kernel asks twice for a read that failed, and tools try every file of a directory.
"""

import math
from collections.abc import Hashable
from typing import Final

import msgspec
import trio

from cafs.errors import CafsError, ContentError
from cafs.fetch.interfaces import Patience
from cafs.model.span import Span

MEMORY_S: Final = 1.0
"""For any failure: longer than the kernel needs to ask again."""
CONTENT_MEMORY_S: Final = 30.0
"""For content that is wrong: finding that out took the whole of it."""
_WHOLE: Final = Span(0, 1 << 62)
"""The span of a failure of the whole."""
_MOST: Final = 256


class _Failure(msgspec.Struct, frozen=True):
    key: Hashable
    span: Span
    error: CafsError
    until: float
    deadline_s: float


class Failures:
    """The last failures, by what was asked for.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._kept: list[_Failure] = []

    def remember(
        self,
        key: Hashable,
        error: CafsError,
        *,
        span: Span = _WHOLE,
        deadline_s: float = math.inf,
    ) -> None:
        """Keep a failure; ``deadline_s`` is how long was waited, when that was what failed.

        ``span`` is what of the key it was; the default stands for the whole.
        """
        seconds = CONTENT_MEMORY_S if isinstance(error, ContentError) else MEMORY_S
        until = trio.current_time() + seconds
        self._kept.append(_Failure(key, span, error, until, deadline_s))
        del self._kept[:-_MOST]

    def check(self, key: Hashable, patience: Patience, *, span: Span = _WHOLE) -> None:
        """Fail as it failed a moment ago.

        A failure that time might have mended counts only for those who wait no longer than the one
        that gave up.

        Raises:
            CafsError: the failure that is remembered.
        """
        if not self._kept:
            return
        now = trio.current_time()
        self._kept = [one for one in self._kept if one.until > now]
        waits_s = math.inf if patience.deadline_s is None else patience.deadline_s
        for one in self._kept:
            same = one.key == key and one.span.overlaps(span)
            if same and (waits_s <= one.deadline_s or not one.error.transient):
                raise one.error.with_traceback(None)
