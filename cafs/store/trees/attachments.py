"""What a mount has shown so far: which inodes stand for what, kept for the mount's life."""

from collections.abc import Container, Iterator
from dataclasses import replace
from typing import Final

import trio

from cafs.errors import NotFoundError
from cafs.model.record import Attachment
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot, after
from cafs.store.tables.mount_tables import MountTables, number_in, pack_number
from cafs.store.tables.records import hashed

SNAPSHOTS: Final = 64
"""Snapshots kept of one path; the inodes of older ones mean nothing any more."""


class Attachments:
    """The inode ranges of all mounts of this boot.

    Concurrency: any number of tasks and processes; all of one mount see the same inodes.
    """

    def __init__(self, recent: Environment) -> None:
        self._recent = recent
        self._tables = MountTables(recent)

    def find(self, mount: int, inode: int) -> Attachment | None:
        """The attachment whose range has the inode, None when none has."""
        prefix = pack_number(mount)
        with self._recent.read() as snapshot:
            found = snapshot.floor(self._tables.attachments, prefix + pack_number(inode))
        if found is None or not found[0].startswith(prefix):
            return None
        attachment = self._tables.attachment.unpack(found[1])
        if attachment is None or inode >= attachment.first + attachment.count:
            return None
        return attachment

    def at(self, mount: int, path: str) -> Attachment | None:
        """What is attached at a path now, None when nothing is."""
        with self._recent.read() as snapshot:
            return self._at(snapshot, mount, path)

    def _at(self, snapshot: Snapshot, mount: int, path: str) -> Attachment | None:
        prefix = pack_number(mount)
        first = snapshot.get(self._tables.paths, prefix + hashed(path))
        if first is None:
            return None
        return self._tables.attachment.unpack(
            snapshot.get(self._tables.attachments, prefix + first)
        )

    def under(self, mount: int, prefix: str) -> list[Attachment]:
        """What is attached directly below a path, by path."""
        key = pack_number(mount) + hashed(prefix)
        with self._recent.read() as snapshot:
            paths = [raw.decode() for _, raw in snapshot.scan(self._tables.below, key, after(key))]
            found = [self._at(snapshot, mount, path) for path in sorted(paths)]
        return [each for each in found if each is not None]

    def trees(self, mounts: Container[int] | None = None) -> set[int]:
        """The numbers of all trees that are attached in mounts, or were; None for all mounts."""
        found: set[int] = set()
        for page in self._recent.pages(self._tables.attachments):
            for key, raw in page:
                each = self._tables.attachment.unpack(raw)
                if each is None or each.tree is None:
                    continue
                if mounts is None or number_in(key[: -len(pack_number(0))]) in mounts:
                    found.add(each.tree)
        return found

    def all(self, mount: int) -> Iterator[Attachment]:
        """Everything that a mount has attached, or had, by inode."""
        prefix = pack_number(mount)
        for page in self._recent.pages(self._tables.attachments, prefix, after(prefix)):
            for _, raw in page:
                found = self._tables.attachment.unpack(raw)
                if found is not None:
                    yield found

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
            )
            self._put(batch, mount, attachment)
            return attachment

        known = None if replace else self.at(mount, path)
        if known is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            return known
        # Without it nothing that is new to the kernel can be looked up, be it all here.
        return await self._recent.commit(change, urgent=True)

    def _allocate(self, batch: Batch, mount: int, count: int) -> int:
        record = self._tables.get(batch, mount)
        if record is None:
            raise NotFoundError(f"mount {mount} is not known to the store")
        self._tables.put(batch, mount, replace(record, next_inode=record.next_inode + count))
        return record.next_inode

    def _put(self, batch: Batch, mount: int, attachment: Attachment) -> None:
        prefix = pack_number(mount)
        first = pack_number(attachment.first)
        path = attachment.path
        batch.put(
            self._tables.attachments, prefix + first, self._tables.attachment.pack(attachment)
        )
        batch.put(self._tables.paths, prefix + hashed(path), first)
        if path:
            parent = path.rpartition("/")[0]
            batch.put(self._tables.below, prefix + hashed(parent) + hashed(path), path.encode())
        if attachment.content is not None:
            self._forget_old(batch, prefix, prefix + hashed(path), first)

    def _forget_old(self, batch: Batch, mount: bytes, path: bytes, first: bytes) -> None:
        batch.put(self._tables.snapshots, path + first, b"")
        kept = [key for key, _ in batch.scan(self._tables.snapshots, path, after(path))]
        for key in kept[:-SNAPSHOTS]:
            batch.delete(self._tables.snapshots, key)
            batch.delete(self._tables.attachments, mount + pack_number(number_in(key)))
