"""Leases: files that say that somebody is there, for as long as he keeps them flocked.

A lock on a file belongs to the open file, not to the process: who is lent the descriptor holds the
lease too, and it ends with the last of them, however they end. Nobody has to be asked whether he
lives.

Who takes a lease, looks at one or removes one does so while ``deciding``; so nobody takes a look
for a holder, and no file is removed under somebody who has just taken it. Holders wait for nobody.

Everything here blocks; it belongs in a thread.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cafs.store.disk.locking import flock

_GATE: Final = "mounts"
"""The file that is locked while somebody decides."""
_PREFIX: Final = "mount-"


class Lease:
    """A lease that this process holds until ``release``, and others to whom it was lent.

    Concurrency: any thread; to be released once.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor, to be lent; it stays this object's."""
        return self._descriptor

    def release(self) -> None:
        """Let go; the lease goes on when somebody else has been lent it."""
        # Closed, never unlocked: that would unlock it for all.
        os.close(self._descriptor)


class Leases:
    """The leases of mounts in one store, by the mounts' keys.

    Concurrency: any number of threads and processes; all but ``deciding`` are to be called by who
    decides.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Be the only one that takes, looks at or removes leases. Waits for who does so now.

        Raises:
            OSError: the store's directory cannot be used.
        """
        descriptor = os.open(
            self._folder / _GATE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600
        )
        try:
            flock(descriptor, exclusive=True, wait=True)
            yield
        finally:
            os.close(descriptor)

    def take(self, key: str) -> Lease | None:
        """Hold the lease of a mount; None when somebody else holds it.

        Raises:
            OSError: its file cannot be made.
        """
        descriptor = os.open(self._path(key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
        try:
            held = flock(descriptor, exclusive=True, wait=False)
        except BaseException:
            os.close(descriptor)
            raise
        if held:
            return Lease(descriptor)
        os.close(descriptor)
        return None

    def held(self, key: str) -> bool:
        """Whether anybody holds the lease of a mount, this process included.

        Raises:
            OSError: its file cannot be opened.
        """
        try:
            descriptor = os.open(self._path(key), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not flock(descriptor, exclusive=True, wait=False)
        finally:
            os.close(descriptor)

    def forget(self, key: str) -> None:
        """Remove the file of a lease. Who holds it goes on to hold what nobody can find.

        Raises:
            OSError: it cannot be removed.
        """
        self._path(key).unlink(missing_ok=True)

    def keys(self) -> list[str]:
        """The keys of all leases that have a file."""
        return [path.name.removeprefix(_PREFIX) for path in self._folder.glob(f"{_PREFIX}*")]

    def _path(self, key: str) -> Path:
        return self._folder / f"{_PREFIX}{key}"
