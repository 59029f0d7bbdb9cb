"""Quarantine: how much room what was put aside takes, so that it counts against the quota.

Nobody reads what is there, but a person who looks for a pattern. Its files are put there whole and
never written again, so a directory that has not changed has what it had: looking at it once more
costs a call of the system.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cafs.store.counters import charge
from cafs.store.files import storage_error

_SETTLED_NS: Final = 10**9
"""How long ago a directory must have changed for its time to tell the next change from that one."""


class Quarantine:
    """What was put aside in one store.

    Concurrency: any number of threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: tuple[int, int] | None = None

    def total(self) -> int:
        """Bytes that all of it takes, notes too. Blocks for microseconds while nothing changes.

        Raises:
            StorageError: it cannot be looked at.
        """
        try:
            now = time.time_ns()
            changed = self._path.stat().st_mtime_ns
            with self._lock:
                if self._known is not None and self._known[0] == changed:
                    return self._known[1]
            count = sum(map(charge, _sizes(self._path)))
        except FileNotFoundError:
            return 0  # somebody has removed the store
        except OSError as error:
            raise storage_error(error, f"{self._path}: cannot be looked at") from error
        with self._lock:
            self._known = (changed, count) if changed + _SETTLED_NS < now else None
        return count


def _sizes(folder: Path) -> Iterator[int]:
    """The sizes of all files below a directory; of those that go meanwhile, none."""
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(parent, name).lstat().st_size
            except FileNotFoundError:
                continue
