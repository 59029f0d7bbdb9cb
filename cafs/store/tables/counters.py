"""Counters: how many bytes an environment's records stand for, kept in their own transactions.

A counter changes with what it counts or not at all, so it is right whenever anybody looks, whoever
was killed. A record that a disk has damaged is no longer counted by who removes it: the difference
is found, in one snapshot, by who counts everything again (``counting``). A counter that is damaged
itself, or was never begun, stays unknown until then: one that began with the next change would say
that there is next to nothing.
"""

import struct
from typing import Final

from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot

BLOBS: Final = b"bytes of blobs"
SPANS: Final = b"bytes of spans"
DRAFTS: Final = b"bytes of drafts"
BLOCK: Final = 4 << 10
"""What a file takes on the disk is a multiple of this: of small blobs, most of it."""
_VALUE: Final = struct.Struct(">q")


def charge(size: int) -> int:
    """The bytes that a blob of ``size`` takes."""
    return -(-size // BLOCK) * BLOCK


class Counter:
    """A counter of one environment.

    Concurrency: as that of the snapshots and batches that it is given.
    """

    __slots__ = ("_key", "_table")

    def __init__(self, environment: Environment, key: bytes) -> None:
        self._table = environment.table("counters")
        self._key = key

    def get(self, snapshot: Snapshot) -> int | None:
        """What was counted; None when nobody has counted yet."""
        raw = snapshot.get(self._table, self._key)
        return None if raw is None else int(_VALUE.unpack(raw)[0])

    def add(self, batch: Batch, count: int) -> None:
        """Count more, or fewer where ``count`` is negative; nothing while it is unknown."""
        known = self.get(batch) if count else None
        if known is not None:
            self.put(batch, known + count)

    def put(self, batch: Batch, count: int) -> None:
        """Say how many there are."""
        batch.put(self._table, self._key, _VALUE.pack(count))
