"""What a mount has shown so far: inode ranges, and what its refs mean for its life.

Kept with the records of this boot, since no mount outlives one: handing out an inode costs no disk
access, and a new worker gives the answers of the one before.

Tables: ``mounts`` (mount -> next inode), ``attachments`` (mount, first inode -> attachment),
``paths`` (mount, path -> first inode), ``below`` (mount, parent's path, path -> nothing),
``snapshots`` (mount, path, first inode -> nothing), ``resolved`` (mount, spec key -> meaning),
``counters`` (the number of the last mount). Paths and keys are hashed.
"""

import struct
import time
from dataclasses import dataclass
from typing import Final

import trio

from cafs.errors import NotFoundError
from cafs.model.record import Attachment
from cafs.model.resolved import Resolved
from cafs.store.environment import Batch, Environment, Snapshot, after
from cafs.store.records import Packed, hashed

_ID: Final = struct.Struct(">Q")
_COUNTER: Final = b"mount"
SNAPSHOTS: Final = 64
"""Snapshots kept of one path; the inodes of older ones mean nothing any more."""
_FIRST: Final = 2
"""The first inode that is allocated; 1 is the root's."""


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A mount: what it is, for people, and the inode that is allocated next."""

    description: str
    next_inode: int


class Mounts:
    """The mounts of this boot.

    Concurrency: any number of tasks and processes; all of one mount see the same inodes.
    """

    def __init__(self, recent: Environment) -> None:
        self._recent = recent
        self._mounts = recent.table("mounts")
        self._attachments = recent.table("attachments")
        self._paths = recent.table("paths")
        self._below = recent.table("below")
        self._snapshots = recent.table("snapshots")
        self._resolved = recent.table("resolved")
        self._counters = recent.table("counters")
        self._tables = (
            self._attachments,
            self._paths,
            self._below,
            self._snapshots,
            self._resolved,
        )
        self._mount = Packed(MountRecord)
        self._attachment = Packed(Attachment)
        self._meaning = Packed(Resolved)

    async def create(self, description: str) -> int:
        """Begin a mount; returns its number, which no other gets.

        Cancellation: all or nothing.
        """

        def change(batch: Batch) -> int:
            last = batch.get(self._counters, _COUNTER)
            mount = 1 if last is None else int(_ID.unpack(last)[0]) + 1
            batch.put(self._counters, _COUNTER, _ID.pack(mount))
            record = MountRecord(description, _FIRST)
            batch.put(self._mounts, _ID.pack(mount), self._mount.pack(record))
            return mount

        return await self._recent.commit(change)

    async def remove(self, mount: int) -> None:
        """Forget a mount and all that was attached in it. Nothing happens when it is not known.

        Cancellation: all or nothing.
        """
        prefix = _ID.pack(mount)

        def change(batch: Batch) -> None:
            for table in self._tables:
                batch.clear(table, prefix, after(prefix), limit=1 << 62)
            batch.delete(self._mounts, prefix)

        await self._recent.commit(change, urgent=True)

    def find(self, mount: int, inode: int) -> Attachment | None:
        """The attachment whose range has the inode, None when none has."""
        prefix = _ID.pack(mount)
        with self._recent.read() as snapshot:
            found = snapshot.floor(self._attachments, prefix + _ID.pack(inode))
        if found is None or not found[0].startswith(prefix):
            return None
        attachment = self._attachment.unpack(found[1])
        if attachment is None or inode >= attachment.first + attachment.count:
            return None
        return attachment

    def at(self, mount: int, path: str) -> Attachment | None:
        """What is attached at a path now, None when nothing is."""
        with self._recent.read() as snapshot:
            return self._at(snapshot, mount, path)

    def _at(self, snapshot: Snapshot, mount: int, path: str) -> Attachment | None:
        prefix = _ID.pack(mount)
        first = snapshot.get(self._paths, prefix + hashed(path))
        if first is None:
            return None
        return self._attachment.unpack(snapshot.get(self._attachments, prefix + first))

    def under(self, mount: int, prefix: str) -> list[Attachment]:
        """What is attached directly below a path, by path."""
        key = _ID.pack(mount) + hashed(prefix)
        with self._recent.read() as snapshot:
            paths = [raw.decode() for _, raw in snapshot.scan(self._below, key, after(key))]
            found = [self._at(snapshot, mount, path) for path in sorted(paths)]
        return [each for each in found if each is not None]

    async def attach(
        self,
        mount: int,
        path: str,
        *,
        count: int = 1,
        tree: int | None = None,
        root: int = 0,
        content: bytes | None = None,
        replace: bool = False,
    ) -> Attachment:
        """Give a path a range of inodes, unless it has one.

        Args:
            mount: the mount's number.
            path: below the mount, without a leading slash, as Unicode text; "" is its root.
            count: inodes in the range.
            tree: the tree that is attached, None for a node of the namespace itself.
            root: the entry of the tree that the path shows.
            content: the bytes of a snapshot.
            replace: take a fresh range even if the path has one, which stays readable by inode
                (of snapshots, the last ``SNAPSHOTS`` do).

        Raises:
            NotFoundError: no such mount.

        Cancellation: all or nothing.
        """

        def change(batch: Batch) -> Attachment:
            known = None if replace else self._at(batch, mount, path)
            if known is not None:
                return known
            first = self._allocate(batch, mount, count)
            attachment = Attachment(
                first=first,
                count=count,
                path=path,
                tree=tree,
                root=root,
                content=content,
                created_ns=time.time_ns(),
            )
            self._put(batch, mount, attachment)
            return attachment

        known = None if replace else self.at(mount, path)
        if known is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return known
        return await self._recent.commit(change)

    def _allocate(self, batch: Batch, mount: int, count: int) -> int:
        key = _ID.pack(mount)
        record = self._mount.unpack(batch.get(self._mounts, key))
        if record is None:
            raise NotFoundError(f"mount {mount} is not known to the store")
        moved_on = MountRecord(record.description, record.next_inode + count)
        batch.put(self._mounts, key, self._mount.pack(moved_on))
        return record.next_inode

    def _put(self, batch: Batch, mount: int, attachment: Attachment) -> None:
        prefix = _ID.pack(mount)
        first = _ID.pack(attachment.first)
        path = attachment.path
        batch.put(self._attachments, prefix + first, self._attachment.pack(attachment))
        batch.put(self._paths, prefix + hashed(path), first)
        if path:
            parent = path.rpartition("/")[0]
            batch.put(self._below, prefix + hashed(parent) + hashed(path), path.encode())
        if attachment.content is not None:
            self._forget_old(batch, prefix, prefix + hashed(path), first)

    def _forget_old(self, batch: Batch, mount: bytes, path: bytes, first: bytes) -> None:
        batch.put(self._snapshots, path + first, b"")
        kept = [key for key, _ in batch.scan(self._snapshots, path, after(path))]
        for key in kept[:-SNAPSHOTS]:
            batch.delete(self._snapshots, key)
            batch.delete(self._attachments, mount + key[-_ID.size :])

    def resolved(self, mount: int, key: str) -> Resolved | None:
        """What a ref means for the life of a mount, None when it has not been resolved in it."""
        raw = self._recent.get(self._resolved, _ID.pack(mount) + hashed(key))
        return self._meaning.unpack(raw)

    async def resolve(self, mount: int, key: str, resolved: Resolved) -> None:
        """Say what a ref means in a mount from now on.

        Cancellation: all or nothing.
        """
        value = self._meaning.pack(resolved)
        await self._recent.commit(
            lambda batch: batch.put(self._resolved, _ID.pack(mount) + hashed(key), value)
        )
