"""The mounts of this boot: their numbers and settings, what their refs mean, what they have spent.

A mount is found by its key, so that the next worker of a mount goes on where the last one stopped.
Whoever keeps a mount holds its lease; ``sweep`` removes the mounts whose lease nobody holds, for
nobody is left who could. A lease is taken before there is a record, and who sweeps sees both or
neither.
"""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import trio

from cafs.errors import MountError, StorageFullError
from cafs.model.resolved import Resolved
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.disk.files import storage_error
from cafs.store.holds.leases import Lease, Leases
from cafs.store.tables.mount_tables import MountRecord, MountTables, pack_number
from cafs.store.tables.records import hashed

_LOG: Final = logging.getLogger("cafs.store")
_FIRST: Final = 2
"""The first inode that is allocated; 1 is the root's."""
_KEY: Final = re.compile(r"[0-9a-f]{32}")


def new_key() -> str:
    """A key that no other mount has: 32 hexadecimal digits."""
    return secrets.token_hex(16)


def is_key(text: str) -> bool:
    """Whether a text has the form of a key."""
    return _KEY.fullmatch(text) is not None


class Mounts:
    """The records and leases of mounts.

    Concurrency: any number of tasks and processes. Leases that ``open`` took are this process's
    until ``close``.
    """

    def __init__(self, recent: Environment, leases: Leases) -> None:
        self._recent = recent
        self._leases = leases
        self._tables = MountTables(recent)
        self._held: dict[int, Lease] = {}
        self._unkept: dict[bytes, Resolved] = {}

    async def open(self, key: str, description: str, *, view: str = "/") -> int:
        """Find a mount by its key, or make it; returns its number, which no other gets.

        Its lease is taken when nobody holds it.

        Args:
            key: as ``is_key`` has it.
            description: what the mount is, for people.
            view: what it shows at its root.

        Raises:
            MountError: it shows something else at its root; or somebody keeps it whose mount the
                store has forgotten: another file might get a number that the kernel knows.
            StorageError: the store cannot be written.

        Cancellation: no effect; once begun it is carried through.
        """
        if not is_key(key):
            raise ValueError(f"{key!r} is no key of a mount")
        return await trio.to_thread.run_sync(self._open, key, description, view)

    def _open(self, key: str, description: str, view: str) -> int:
        try:
            with self._leases.deciding():
                lease = self._leases.take(key)
                with ExitStack() as undo:
                    if lease is not None:
                        undo.callback(lease.release)
                    mount = self._recent.apply(
                        lambda batch: self._find_or_make(
                            batch, MountRecord(description, _FIRST, key, view), made=lease is None
                        ),
                        urgent=True,
                    )
                    undo.pop_all()
        except OSError as error:
            raise storage_error(error, f"{description}: its lease cannot be taken") from error
        if lease is not None:
            self._held[mount] = lease
        return mount

    def _find_or_make(self, batch: Batch, wanted: MountRecord, *, made: bool) -> int:
        for mount, record in self._tables.all(batch):
            if record.key == wanted.key and not record.ended:
                if record.view != wanted.view:
                    raise MountError(
                        f"{wanted.description}: is mounted with the view {record.view!r}, and the "
                        f"settings now say {wanted.view!r}",
                        hint="unmount it and mount it again, or set the view back",
                    )
                return mount
        if made:
            raise MountError(
                f"{wanted.description}: the store has forgotten what this mount has shown",
                hint="unmount it, and mount it again",
            )
        return self._tables.allocate(batch, wanted)

    def number(self, key: str) -> int | None:
        """The number of the mount with a key; None when there is none."""
        with self._recent.read() as snapshot:
            for mount, record in self._tables.all(snapshot):
                if record.key == key and not record.ended:
                    return mount
        return None

    def lease(self, mount: int) -> Lease | None:
        """The lease of a mount, to be lent; None when this process did not take it."""
        return self._held.get(mount)

    async def remove(self, mount: int) -> None:
        """Forget a mount and all that was attached in it. Nothing happens when it is not known.

        Raises:
            StorageError: the store cannot be written; what is left goes with the next ``sweep``.

        Cancellation: it has ended or not; what is left of it goes with the next ``sweep``.
        """
        await trio.to_thread.run_sync(self._end, mount)
        await self._purge(mount)

    def _end(self, mount: int) -> None:
        try:
            with self._leases.deciding():
                with self._recent.read() as snapshot:
                    record = self._tables.get(snapshot, mount)
                if record is None:
                    return
                self._mark({mount: record})
                self._leases.forget(record.key)
        except OSError as error:
            raise storage_error(error, f"mount {mount}: its lease cannot be removed") from error
        lease = self._held.pop(mount, None)
        if lease is not None:
            lease.release()

    async def sweep(self) -> int:
        """Remove the mounts that nobody keeps any more, and those half removed; how many it were.

        In short transactions: others write between them.

        Raises:
            StorageError: the store cannot be written.

        Cancellation: the rest goes the next time.
        """
        dead = await trio.to_thread.run_sync(self._condemn)
        for mount in dead:
            await self._purge(mount)
        return len(dead)

    def live(self) -> set[int]:
        """The numbers of the mounts that somebody keeps. Blocks, while others decide.

        Raises:
            StorageError: the leases cannot be looked at.
        """
        try:
            with self._leases.deciding():
                with self._recent.read() as snapshot:
                    known = self._tables.all(snapshot)
                return {mount for mount, record in known if self._kept(record)}
        except OSError as error:
            raise storage_error(error, "leases of mounts cannot be looked at") from error

    def _kept(self, record: MountRecord) -> bool:
        return not record.ended and (not record.key or self._leases.held(record.key))

    def meanings(self) -> Iterator[Resolved]:
        """What refs mean in the mounts that there are."""
        for page in self._recent.pages(self._tables.resolved):
            for _, raw in page:
                resolved = self._tables.meaning.unpack(raw)
                if resolved is not None:
                    yield resolved

    def _condemn(self) -> list[int]:
        """Mark as ended what nobody keeps, and return all that is to be removed."""
        try:
            with self._leases.deciding():
                with self._recent.read() as snapshot:
                    known = dict(self._tables.all(snapshot))
                kept = {mount: record for mount, record in known.items() if self._kept(record)}
                dead = {mount: known[mount] for mount in known.keys() - kept.keys()}
                self._mark({mount: each for mount, each in dead.items() if not each.ended})
                used = {record.key for record in kept.values()}
                for key in set(self._leases.keys()) - used:
                    if not self._leases.held(key):
                        self._leases.forget(key)
        except OSError as error:
            raise storage_error(error, "leases of mounts cannot be looked at") from error
        return sorted(dead)

    def _mark(self, ending: dict[int, MountRecord]) -> None:
        def change(batch: Batch) -> None:
            for mount, record in ending.items():
                self._tables.put(batch, mount, replace(record, ended=True))

        if ending:
            self._recent.apply(change, urgent=True)

    async def _purge(self, mount: int) -> None:
        while not await self._recent.commit(
            lambda batch: self._tables.purge(batch, mount), urgent=True
        ):
            pass

    def spent(self, mount: int) -> int:
        """Bytes that were fetched for a mount, as ``spend`` was told; 0 once it has ended."""
        with self._recent.read() as snapshot:
            record = self._tables.get(snapshot, mount)
        return 0 if record is None else record.spent

    async def spend(self, mount: int, count: int) -> int:
        """Count bytes that were fetched for a mount; returns all that were, by whomever.

        Of a mount that has ended nothing is counted.

        Cancellation: all or nothing.
        """

        def change(batch: Batch) -> int:
            record = self._tables.get(batch, mount)
            if record is None:
                return 0
            self._tables.put(batch, mount, replace(record, spent=record.spent + count))
            return record.spent + count

        return await self._recent.commit(change)

    def settings(self, mount: int) -> bytes | None:
        """What ``set_settings`` was given for a mount last.

        None when that was nothing, when it was damaged, or when the mount has ended.
        """
        with self._recent.read() as snapshot:
            if self._tables.get(snapshot, mount) is None:
                return None
            return snapshot.get(self._tables.settings, pack_number(mount))

    async def set_settings(self, mount: int, settings: bytes) -> None:
        """Say which settings a mount has from now on, for the workers to come.

        Of a mount that has ended nothing is kept.

        Raises:
            StorageError: the store cannot be written; what was said before holds.

        Cancellation: all or nothing.
        """

        def change(batch: Batch) -> None:
            if self._tables.get(batch, mount) is not None:
                batch.put(self._tables.settings, pack_number(mount), settings)

        await self._recent.commit(change, urgent=True)

    def resolved(self, mount: int, key: str) -> Resolved | None:
        """What a ref means for the life of a mount, None when it has not been resolved in it."""
        place = pack_number(mount) + hashed(key)
        raw = self._recent.get(self._tables.resolved, place)
        return self._tables.meaning.unpack(raw) or self._unkept.get(place)

    async def resolve(self, mount: int, key: str, resolved: Resolved) -> Resolved:
        """Say what a ref means in a mount, unless that is settled; returns what it means.

        In a mount that has ended nothing is settled. Where the disk is so full that not even that
        can be written, it is settled for this process.

        Cancellation: all or nothing.
        """
        place = pack_number(mount) + hashed(key)
        value = self._tables.meaning.pack(resolved)

        def change(batch: Batch) -> Resolved:
            known = self._tables.meaning.unpack(batch.get(self._tables.resolved, place))
            if known is not None:
                return known
            if self._tables.get(batch, mount) is not None:
                batch.put(self._tables.resolved, place, value)
            return resolved

        try:
            return await self._recent.commit(change, urgent=True)
        except StorageFullError as error:
            _LOG.warning("store.mount.unsettled mount=%d error=%s", mount, error.line)
            return self._unkept.setdefault(place, resolved)

    def close(self) -> None:
        """Let go of the leases that this process took."""
        while self._held:
            self._held.popitem()[1].release()
