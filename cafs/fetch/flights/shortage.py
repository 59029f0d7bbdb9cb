"""Shortages: what is done about a disk that is full, in which order, and how often.

What is only read ahead is not fetched. For readers and prefetches, something that is used less is
evicted. Where that does not help, prefetches stop; what comes for readers is kept in memory
(``overflow``), and in the end a reader is told that the disk is full. All of that is about one
shortage, not about one request: while it lasts nobody tries the disk, and eviction, more than now
and then.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from cafs.errors import StorageError, StorageFullError
from cafs.fetch.interfaces import Priority

MakeRoom = Callable[[int], Awaitable[object]]
"""Evicts so many bytes; returns something true when that has made room."""
AGAIN_S: Final = 1.0
"""For how long a disk that was full is taken for full: it costs nobody much to try then."""
FRUITLESS_S: Final = 5.0
"""How long after an eviction that made no room another is tried."""
_LONGEST_S: Final = 5.0
"""How long readers wait for an eviction; it goes on without them."""
_LEAST: Final = 16 << 20
"""Bytes that are evicted at least: the next write is near."""
_MIB: Final = 1 << 20
_LOG: Final = logging.getLogger("cafs.fetch")


class _Eviction(msgspec.Struct):
    """One that is under way since a time, and in the end whether it made room."""

    since: float
    made: bool = False
    ended: trio.Event = msgspec.field(default_factory=trio.Event)


class Shortage:
    """Whether the store's disk is full, as the writes of one process find it.

    Args:
        nursery: where it is evicted.
        make_room: evicts.
        free: bytes that may still be written.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, nursery: trio.Nursery, make_room: MakeRoom, free: Callable[[], int]) -> None:
        self._nursery = nursery
        self._make_room = make_room
        self._free = free
        self._until = 0.0
        self._next = 0.0
        self._eviction: _Eviction | None = None

    def lasting(self) -> bool:
        """Whether it need not be tried to write anything: that failed a moment ago."""
        return trio.current_time() < self._until

    def found(self) -> None:
        """A write failed for want of space."""
        if not self.lasting():
            _LOG.info("fetch.shortage free=%d", self._free())
        self._until = trio.current_time() + AGAIN_S

    async def relieve(self, count: int, priority: Priority = Priority.DEMAND) -> bool:
        """Evict, unless that was of no use a moment ago; whether it is worth writing again.

        Those who ask meanwhile wait for the same eviction. Readers do so for its first 5 s, and it
        goes on without them; a prefetch waits for its end, which its own patience bounds. Nothing
        is evicted for what is only read ahead.

        Cancellation: it goes on; so do the others who wait.
        """
        if priority is Priority.READAHEAD:
            return False
        if self._eviction is None:
            if trio.current_time() < self._next:
                return False
            self._eviction = _Eviction(trio.current_time())
            self._nursery.start_soon(self._evict, self._eviction, max(count, _LEAST))
        eviction = self._eviction
        patient = priority is Priority.PREFETCH
        with trio.move_on_at(math.inf if patient else eviction.since + _LONGEST_S):
            await eviction.ended.wait()
        if not eviction.ended.is_set():
            self.found()
        return eviction.made and not self.lasting()

    async def _evict(self, eviction: _Eviction, count: int) -> None:
        try:
            eviction.made = bool(await self._make_room(count))
        except StorageError as error:
            _LOG.info("fetch.shortage.unrelieved: %s", error.line)
        except Exception:  # noqa: BLE001 - who waits is told that there is no room
            _LOG.exception("fetch.shortage.broke")
        finally:
            self._eviction = None
            if eviction.made:
                self._until = 0.0
            else:
                self.fruitless()
            eviction.ended.set()

    def fruitless(self) -> None:
        """An eviction was of no use: what it freed, if anything, others have taken."""
        self._next = trio.current_time() + FRUITLESS_S
        self.found()

    def error(self, name: str, asked: int) -> StorageFullError:
        """What a reader is told who can be given nothing."""
        return StorageFullError(
            f"{name}: no space for {asked} bytes: {self._left()}", hint="free space there"
        )

    def stopped(self, name: str, asked: int) -> StorageFullError:
        """What a prefetch is told; ``asked`` is what of the content is not in the store."""
        return StorageFullError(
            f"{name}: {-(-asked // _MIB)} MiB of it are missing, and {self._left()}",
            hint="`cafs gc --older-than 0s` frees what nobody uses, also what was begun and is not "
            "whole; else lower store.quota, or use a store with more room",
        )

    def unopened(self, name: str, size: int, decoded: int | None) -> StorageFullError:
        """What a reader is told of an archive that must be read whole, once, to be opened.

        ``decoded`` is what of it is kept beside its ``size``, where that is known.
        """
        more = "" if decoded is None else f", and decodes to {decoded / _MIB:.1f} MiB"
        return StorageFullError(
            f"{name}: no space to open it: it has {size / _MIB:.1f} MiB{more}: {self._left()}",
            hint="free space there",
        )

    def _left(self) -> str:
        return f"the store's disk has {self._free() / _MIB:.1f} MiB free"
