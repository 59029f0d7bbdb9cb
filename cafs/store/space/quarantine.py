"""Quarantine: how much room what was put aside takes, so that it counts against the quota.

Nobody reads what is there, but a person who looks for a pattern: so its bytes are the first to go
when room is short, and their notes stay. Its files are put there whole and never written again, so
a directory that has not changed has what it had: looking at it once more costs a call of the
system.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cafs.store.disk.files import erase, storage_error
from cafs.store.tables.counters import charge

_SETTLED_NS: Final = 10**9
"""How long ago a directory must have changed for its time to tell the next change from that one."""
_LOG: Final = logging.getLogger("cafs.store")


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

    def shed(self, count: int) -> int:
        """Remove what was put aside, the oldest first, until so many bytes are free. Blocks.

        Returns:
            Bytes that were freed; fewer where there are no more. Notes stay, and say what it was.

        Raises:
            OSError: the disk failed.
        """
        freed = 0
        aside = [path for path in self._path.iterdir() if path.suffix != ".json"] if count else []
        for path in sorted(aside, key=_put_ns):
            if freed >= count:
                break
            if path.is_dir():
                size = sum(map(charge, _sizes(path)))
                shutil.rmtree(path, ignore_errors=True)  # two may do so at once
            else:
                size = sum(map(charge, _sizes_of([path])))
                erase(path)
            freed += size
            _LOG.info("store.quarantine.shed name=%s bytes=%d", path.name, size)
        return freed


def _put_ns(path: Path) -> int:
    """When a file was put aside; 0 when it has gone."""
    try:
        return path.lstat().st_ctime_ns
    except FileNotFoundError:
        return 0


def _sizes(folder: Path) -> Iterator[int]:
    """The sizes of all files below a directory; of those that go meanwhile, none."""
    for parent, _, names in os.walk(folder):
        yield from _sizes_of(Path(parent, name) for name in names)


def _sizes_of(paths: Iterable[Path]) -> Iterator[int]:
    for path in paths:
        try:
            yield path.lstat().st_size
        except FileNotFoundError:
            continue
