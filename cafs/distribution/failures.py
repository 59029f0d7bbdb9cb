"""What failed lately: a short memory, so that a question asked twice is not a request sent twice.

The kernel asks again at once after an error, and a build asks for the same name from a hundred
compilers. Wrong content stays wrong for longer than a network stays away.
"""

from typing import Final

import msgspec
import trio
from cachetools import LRUCache

from cafs.errors import CafsError, ContentError

_KEPT_S: Final = 1.0
_CONTENT_KEPT_S: Final = 30.0
_LIMIT: Final = 1024
"""Keys that are remembered at most; each holds an exception."""


class _Failure(msgspec.Struct, frozen=True):
    error: CafsError
    until: float


class Failures:
    """The last failure of each key.

    Concurrency: tasks of one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._failures: LRUCache[str, _Failure] = LRUCache(_LIMIT)

    def remember(self, key: str, error: CafsError) -> None:
        """Keep a failure: to be raised again for 1 s (30 s for wrong content), then to be told."""
        kept_s = _CONTENT_KEPT_S if isinstance(error, ContentError) else _KEPT_S
        self._failures[key] = _Failure(error, trio.current_time() + kept_s)

    def forget(self, key: str) -> None:
        """The key has succeeded."""
        self._failures.pop(key, None)

    def check(self, key: str, *, transient: bool) -> None:
        """Raise the failure of the key again, if it is recent.

        Args:
            key: what is asked for.
            transient: also a failure that asking again may better.

        Raises:
            CafsError: the one that was remembered.
        """
        failure = self._failures.get(key)
        if failure is None or (failure.error.transient and not transient):
            return
        if trio.current_time() < failure.until:
            # Without its old traceback, which would grow by a frame with each raise.
            raise failure.error.with_traceback(None)

    def line(self, key: str) -> str | None:
        """The last failure on one line, until the key succeeds."""
        failure = self._failures.get(key)
        return None if failure is None else failure.error.line
