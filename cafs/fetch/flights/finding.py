"""Finding: content that another store on this machine has is copied, and not fetched.

The user's settings name where to look. It is looked there before any source is asked, by the digest
that is wanted; what is found is checked like what is fetched, and counts as found. A neighbour that
cannot be read, lies or does not answer costs one line in the log, and then the next one is tried,
and at last the sources.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import trio
from cachetools import LRUCache

from cafs.errors import StorageError
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Patience
from cafs.metrics import Metrics
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.store.blobs.neighbours import Copied, Copying
from cafs.store.store import Store

SILENCE_S: Final = 10.0
"""How long a neighbour may give no byte: it lies on this machine, or it is left alone."""
REST_S: Final = 60.0
"""For how long it is left alone then; its disk may be one that answers again."""
LINGER_S: Final = 300.0
"""How long a copy goes on without anybody waiting: who gave up will ask again."""
_THREADS: Final = 8
"""Copies at once, those included that hang in a disk that does not answer."""
_KNOWN: Final = 4096
"""What is remembered of a neighbour not to have, or to have wrong."""
_LOG: Final = logging.getLogger("cafs.fetch")


class Finding:
    """Looks for content in other stores on this machine. ``folders`` are asked in their order.

    Concurrency: any number of tasks of one trio run; those who want the same share one copy.
    """

    def __init__(
        self, store: Store, folders: Sequence[Path], works: Works[None], metrics: Metrics
    ) -> None:
        self._store = store
        self._folders = tuple(folders)
        self._works = works
        self._metrics = metrics
        self._threads = trio.CapacityLimiter(_THREADS)
        self._queue: set[Callable[[], None]] = set()
        """What tells those who wait for a thread that some copy gives bytes."""
        self._said: dict[Path, str] = {}
        self._resting: dict[Path, float] = {}
        self._wrong: LRUCache[tuple[Path, Digest], bool] = LRUCache(_KNOWN)

    async def find(
        self, digest: Digest, patience: Patience, *, size: int | None = None, media_type: str = ""
    ) -> Descriptor | None:
        """Make content a blob of the store if a neighbour has it.

        Args:
            digest: what it must be; a weak one is not looked for.
            patience: that of who waits.
            size: bytes, if anybody said.
            media_type: of the content, if anybody said.

        Returns:
            Its canonical descriptor, if the store has it now.

        Raises:
            CrowdedError: too many wait already.
            DeadlineError: no progress for as long as this waiter waits.

        Cancellation: the copy goes on for a while, or for others.
        """
        if self._folders and not digest.weak and self._store.blobs.stat(digest) is None:
            run = partial(self._find, digest, size, media_type)
            key = ("found", digest)
            await self._works.join(key, str(digest), run, patience, linger_s=LINGER_S)
        return self._store.blobs.stat(digest)

    async def _find(
        self, digest: Digest, size: int | None, media_type: str, work: Work[None]
    ) -> None:
        for folder in self._folders:
            if (folder, digest) in self._wrong:
                continue
            if trio.current_time() < self._resting.get(folder, 0.0):
                continue
            if self._store.blobs.stat(digest) is not None:
                return
            try:
                copied = await self._copy(folder, digest, size, media_type, work)
                if copied is not None:
                    await self._admit(folder, copied)
                    return
            except StorageError as error:
                # The way from a source knows what to do when there is no room.
                _LOG.warning("fetch.found.failed digest=%s error=%s", digest, error.line)
                return

    async def _copy(
        self, folder: Path, digest: Digest, size: int | None, media_type: str, work: Work[None]
    ) -> Copied | None:
        """Copy from one neighbour, while it gives bytes; None when nothing came of it.

        To wait for a thread is no silence of the neighbour's: that lasts as long as any copy gives
        bytes. When all threads hang, this neighbour is passed over, and not blamed.
        """
        begun = ended = False

        def stay(count: int = 0) -> None:
            scope.deadline = trio.current_time() + SILENCE_S
            work.beat(count)

        def begin() -> None:
            nonlocal begun
            begun = True
            self._queue.discard(stay)
            stay()

        def beat(count: int) -> None:
            stay(count)
            for each in self._queue:
                each()

        def told(count: int) -> None:
            with suppress(trio.RunFinishedError):
                trio.from_thread.run_sync(beat, count)

        copying = self._store.neighbours.copying(folder, digest, told)
        self._queue.add(stay)
        try:
            with trio.move_on_after(SILENCE_S) as scope:
                copied = await self._run(copying, folder, size, media_type, begin)
                ended = True
                if copying.wrong:
                    self._wrong[folder, digest] = True
                return copied
        finally:
            self._queue.discard(stay)
            if not ended:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(copying.give_up)
        if begun:
            self._resting[folder] = trio.current_time() + REST_S
            self._say(folder, f"no answer for {SILENCE_S:g} s; it is not asked for {REST_S:g} s")
        return None

    async def _run(
        self,
        copying: Copying,
        folder: Path,
        size: int | None,
        media_type: str,
        begin: Callable[[], None],
    ) -> Copied | None:
        def run() -> Copied | None:
            with suppress(trio.RunFinishedError):
                trio.from_thread.run_sync(begin)
            if not self._said.get(folder) and not folder.is_dir():
                raise FileNotFoundError(2, "no such directory")
            return None if neighbours.is_own(folder) else copying.run(size, media_type)

        neighbours = self._store.neighbours
        try:
            return await trio.to_thread.run_sync(run, limiter=self._threads, abandon_on_cancel=True)
        except StorageError:
            raise
        except OSError as error:
            self._say(folder, error.strerror or str(error))
            return None

    async def _admit(self, folder: Path, copied: Copied) -> None:
        try:
            found = await trio.to_thread.run_sync(self._store.neighbours.admit, copied)
        except BaseException:
            # Cancelled before it began; what it does itself, it ends with the file gone.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(copied.discard)
            raise
        self._metrics.add("fetch.found", found.size)
        self._metrics.add("fetch.verified", found.size)
        _LOG.info("fetch.found digest=%s size=%d path=%s", found.digest, found.size, folder)

    def _say(self, folder: Path, what: str) -> None:
        """Say it once: of a neighbour that stays as it is, every content would tell the same."""
        if self._said.get(folder) != what:
            self._said[folder] = what
            _LOG.warning("fetch.neighbour.skipped path=%s error=%s", folder, what)
