"""The tables of mounts, and how their keys are made.

All keys but those of ``counters`` begin with the mount's number, big-endian, so that a mount is a
contiguous run of each table: ``mounts`` (the mount's record), ``attachments`` (first inode ->
attachment), ``paths`` (path -> first inode), ``below`` (parent's path, path -> nothing),
``snapshots`` (path, first inode -> nothing), ``resolved`` (spec key -> meaning), ``settings`` (what
its workers serve with, in bytes that only they can read). Paths and spec keys are hashed.
``counters`` has the number of the last mount.

They are kept with the records of this boot, since no mount outlives one: handing out an inode costs
no disk access, and a new worker gives the answers of the one before.
"""

import struct
from dataclasses import dataclass
from typing import Final

from cafs.model.record import Attachment
from cafs.model.resolved import Resolved
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot, after
from cafs.store.tables.records import Packed

_ID: Final = struct.Struct(">Q")
_COUNTER: Final = b"mount"
_PURGE: Final = 10_000
"""Records removed in one transaction: about 20 ms."""


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A mount: what it is, for people, and the inode that is allocated next.

    ``key`` names it for whoever serves it; it is empty in what older versions wrote. ``view`` is
    what it shows at its root. ``spent`` counts the bytes fetched for it. ``ended`` says that its
    number means nothing any more, and that its records are to be removed.
    """

    description: str
    next_inode: int
    key: str = ""
    view: str = "/"
    spent: int = 0
    ended: bool = False


class MountTables:
    """Tables and keys; no state of its own.

    Concurrency: any number of threads and processes.
    """

    def __init__(self, recent: Environment) -> None:
        self.recent = recent
        self.attachments = recent.table("attachments")
        self.paths = recent.table("paths")
        self.below = recent.table("below")
        self.snapshots = recent.table("snapshots")
        self.resolved = recent.table("resolved")
        self.settings = recent.table("settings")
        self.attachment = Packed(Attachment)
        self.meaning = Packed(Resolved)
        self._mounts = recent.table("mounts")
        self._counters = recent.table("counters")
        self._record = Packed(MountRecord)

    def allocate(self, batch: Batch, record: MountRecord) -> int:
        """Write a new mount's record; returns its number, which no other gets."""
        last = batch.get(self._counters, _COUNTER)
        mount = 1 + (self._highest(batch) if last is None else number_in(last))
        batch.put(self._counters, _COUNTER, pack_number(mount))
        self.put(batch, mount, record)
        return mount

    def _highest(self, batch: Batch) -> int:
        """The highest number that any record has: the counter may be what a disk has damaged."""
        found = (batch.last_key(table) for table in (self._mounts, self.attachments, self.paths))
        return max(int(_ID.unpack(key[: _ID.size])[0]) if key else 0 for key in found)

    def get(self, snapshot: Snapshot, mount: int) -> MountRecord | None:
        """The record of a mount; None when it is not known, or has ended."""
        record = self._record.unpack(snapshot.get(self._mounts, pack_number(mount)))
        return None if record is None or record.ended else record

    def put(self, batch: Batch, mount: int, record: MountRecord) -> None:
        """Write a mount's record, over the one that may be there."""
        batch.put(self._mounts, pack_number(mount), self._record.pack(record))

    def all(self, snapshot: Snapshot) -> list[tuple[int, MountRecord]]:
        """Every mount that has a record, those that have ended included, by number."""
        found = (
            (number_in(key), self._record.unpack(raw))
            for key, raw in snapshot.scan(self._mounts, b"", after(b""))
        )
        return [(mount, record) for mount, record in found if record is not None]

    def purge(self, batch: Batch, mount: int) -> bool:
        """Remove some records of a mount that has ended, its own last; whether none are left."""
        prefix = pack_number(mount)
        room = _PURGE
        for table in (
            self.attachments,
            self.paths,
            self.below,
            self.snapshots,
            self.resolved,
            self.settings,
        ):
            room -= batch.clear(table, prefix, after(prefix), limit=room)
            if not room:
                return False
        batch.delete(self._mounts, prefix)
        return True


def pack_number(number: int) -> bytes:
    """The key of a mount's number, or of an inode's."""
    return _ID.pack(number)


def number_in(key: bytes) -> int:
    """The number at the end of a key."""
    return int(_ID.unpack(key[-_ID.size :])[0])
