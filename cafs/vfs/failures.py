"""What went wrong lately: the lines behind ``user.cafs.error`` and ``.cafs/errors.json``."""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final

from cachetools import LRUCache, TTLCache

from cafs.errors import CafsError

_LOG: Final = logging.getLogger("cafs.vfs")
_RECENT: Final = 100
"""How many failures ``errors.json`` tells."""
_PLACES: Final = 4096
"""How many inodes and refs keep their last line; at some 300 bytes a line, about a megabyte."""
_LINES: Final = 100
"""How many failures are logged in a while, each path's with the same reason once."""
_LINES_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that failed as expected. ``time_s`` is seconds since the epoch."""

    time_s: float
    path: str
    code: str
    line: str


class Failures:
    """Remembers failures: the last one of each place, and the most recent ones of all.

    A failure is noted at the inode that was asked for and at the path of its ref. It is for people:
    nothing is decided by it, and a restart forgets it. The log gets each once a minute, and no more
    than a hundred.

    Concurrency: one trio run; nothing awaits.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._recent: deque[Failure] = deque(maxlen=_RECENT)
        self._logged: TTLCache[tuple[str, str], None] = TTLCache(_LINES, _LINES_S, timer)
        self._last: LRUCache[int | str, str] = LRUCache(_PLACES)

    @contextmanager
    def noting(
        self,
        inode: int,
        path: str,
        inside: Callable[[], str] | None = None,
        *,
        above: str | None = None,
    ) -> Iterator[None]:
        """Note a failure of the body, and let it go on.

        Args:
            inode: what was asked for.
            path: the path of the ref that it belongs to, or its own.
            inside: names it below that path; called only when something failed.
            above: the path of a directory that tells it too, since who may not stat a file may not
                read its extended attributes either.
        """
        try:
            yield
        except CafsError as error:
            line, place = error.line, path
            if inside is not None:
                name = inside()
                line, place = f"{name}: {line}", f"{path}/{name}"
            self._recent.append(Failure(time.time(), place, error.code, line))
            self._last[inode] = line
            self._last[path] = line
            if above is not None:
                self._last[above] = line
            if self._worth_logging(path, error):
                _LOG.info("vfs.request.failed path=%s code=%s: %s", place, error.code, line)
            raise

    def _worth_logging(self, path: str, error: CafsError) -> bool:
        """Whether the log gains by it: a program that asks again and again must not fill a disk."""
        key = path, error.line
        if key in self._logged or self._logged.currsize >= _LINES:
            return False
        self._logged[key] = None
        return True

    def last(self, place: int | str) -> str | None:
        """The last failure at an inode or a path, one line."""
        return self._last.get(place)

    def __iter__(self) -> Iterator[Failure]:
        """The most recent failures, newest first."""
        return reversed(tuple(self._recent))

    def as_json(self) -> bytes:
        """The most recent failures, newest first: an array of objects."""
        return json.dumps([asdict(each) for each in self], indent=1).encode() + b"\n"
