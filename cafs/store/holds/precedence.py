"""Precedence: readers go first, in all processes that use one store.

A file of the store is locked, shared, for as long as a reader of this process waits for bytes that
are fetched. Who prefetches looks whether anybody holds it. The lock ends with its process.

Source: fcntl_locking(2), "Open file description locks".
"""

import fcntl
import logging
import os
import struct
from pathlib import Path
from typing import Final

_FLOCK: Final = struct.Struct("@hhqqi4x")
_LOG: Final = logging.getLogger("cafs.store")


class Precedence:
    """Says to other processes that readers wait here, and hears it of them.

    Concurrency: one thread. Every call takes microseconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._broken = False

    def claim(self) -> None:
        """Readers wait here; a second call does nothing."""
        self._set(fcntl.F_RDLCK)

    def release(self) -> None:
        """None wait any more."""
        if self._descriptor is not None:
            self._set(fcntl.F_UNLCK)

    def claimed(self) -> bool:
        """Whether readers of another process wait."""
        answer = self._call(fcntl.F_OFD_GETLK, fcntl.F_WRLCK)
        return answer is not None and _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK

    def close(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _set(self, kind: int) -> None:
        self._call(fcntl.F_OFD_SETLK, kind)

    def _call(self, command: int, kind: int) -> bytes | None:
        """The kernel's answer; None when the file cannot be had, which is told once.

        Without it readers wait a little longer, and everything is right all the same.
        """
        if self._broken:
            return None
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return fcntl.fcntl(self._descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, 0, 1, 0))
        except OSError as error:
            self._broken = True
            _LOG.info("store.precedence.unavailable error=%s", error)
            return None
