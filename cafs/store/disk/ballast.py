"""The ballast: space that is kept back, so that a store on a full disk can go on.

It is let go of for what removes things, and for what a mount cannot go on without. From then on,
until there is room to make it again, nothing else may take its room: it would be gone in a moment,
and bytes that are fetched are worth the least. The file stays while it is spent, without a byte, so
that all processes know.

Everything here blocks, but ``keep``.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

LARGEST: Final = 16 << 20
"""Bytes of it on a disk that is not small."""
_SHARE: Final = 16
"""The part of a small disk that it takes: of 64 MiB 4, enough for thousands of removals."""
_ROOM: Final = 4
"""How many times its size must be free for it to be made."""
_ROOM_AGAIN: Final = 2
"""The same for one that was spent."""
_MARGIN: Final = 1 << 20
"""Bytes that one write takes, about."""
_PERIOD_S: Final = 5.0
"""How often it is looked whether a ballast that is spent can be made again."""
_LOG: Final = logging.getLogger("cafs.store")


class Ballast:
    """The ballast of one store, at ``path``.

    ``heirs`` are called when it was let go of, in the thread that did it: they take what they need
    of its room, before others do.

    Concurrency: any number of threads and processes; one task keeps it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token: trio.lowlevel.TrioToken | None = None
        self._wanting = trio.Event()
        self.heirs: list[Callable[[], None]] = []

    def spent(self) -> bool:
        """Whether it was let go of, and could not be made again yet."""
        try:
            return not self._path.stat().st_size
        except OSError:
            return False

    def full(self) -> bool:
        """Whether no more is free than what it was, and is kept back still."""
        if not self.spent():
            return False
        length, free = self._disk()
        return free < length + _MARGIN

    def _disk(self) -> tuple[int, int]:
        """How long it is on this disk, and how much is free there; bytes."""
        disk = os.statvfs(self._path.parent)
        length = min(LARGEST, disk.f_blocks * disk.f_frsize // _SHARE)
        return length, disk.f_bavail * disk.f_frsize

    def drop(self) -> bool:
        """Let go of it; whether it was there."""
        try:
            if not self._path.stat().st_size:
                return False
            os.truncate(self._path, 0)
        except OSError:
            # It is not there; or this file system needs space even for that.
            with suppress(OSError):
                self._path.unlink()
                return True
            return False
        _LOG.info("store.ballast.spent path=%s", self._path)
        for heir in self.heirs:
            heir()
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._want)
        return True

    def _want(self) -> None:
        self._wanting.set()

    def fill(self) -> bool:
        """Make it, where there is room for it and more; whether it is there.

        Raises:
            OSError: the store has gone.
        """
        spent = self.spent()
        if not spent and self._path.exists():
            return True
        length, free = self._disk()
        if free < (_ROOM_AGAIN if spent else _ROOM) * length:
            return False
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, length)
        except OSError:
            # Somebody was faster.
            if spent:
                os.ftruncate(descriptor, 0)
            else:
                self._path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)
        return True

    async def keep(self) -> None:
        """Make it again each time that it was spent, as soon as there is room; until cancelled.

        Cancellation: the next who opens the store alone makes it.
        """
        self._token = trio.lowlevel.current_trio_token()
        while True:
            while not await trio.to_thread.run_sync(self._filled):  # noqa: ASYNC110 - no event tells
                await trio.sleep(_PERIOD_S)
            await self._wanting.wait()
            self._wanting = trio.Event()

    def _filled(self) -> bool:
        """Whether there is nothing to do: it is there, or was never made."""
        try:
            return not self.spent() or self.fill()
        except OSError as error:
            # The store was removed under us; whoever uses it is told so.
            _LOG.info("store.ballast.unmade path=%s error=%s", self._path, error)
            return False
