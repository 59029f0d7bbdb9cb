"""Blobs in memory: for tests of what stands on a store of blobs, and gone with the process.

It promises what a store on disk does: bytes are hashed before they are a blob, other digests of
them resolve, uploads can be resumed, and when it is full it says so. What disks do to bytes, and
other processes, it does not know.
"""

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import trio
from typing_extensions import override

from cafs.errors import DigestMismatchError, NotFoundError, SizeMismatchError, StorageFullError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, Digest, Hasher
from cafs.store.blobs.stages import Life
from cafs.store.interfaces import BlobStore, Writer


class _Upload(msgspec.Struct):
    """What was written of a blob so far; ``active`` while somebody writes it."""

    started_ns: int
    media_type: str
    data: bytearray = msgspec.field(default_factory=bytearray)
    active: bool = True


class MemoryBlobs(BlobStore):
    """Blobs and uploads of at most ``limit`` bytes together.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, limit: int = 64 << 20) -> None:
        self._limit = limit
        self._blobs: dict[Digest, tuple[Descriptor, bytes]] = {}
        self._aliases: dict[Digest, Digest] = {}
        self._uploads: dict[str, _Upload] = {}
        self._used = 0

    @property
    def used(self) -> int:
        """Bytes of all blobs and uploads."""
        return self._used

    @override
    def stat(self, digest: Digest) -> Descriptor | None:
        found = self._blobs.get(self._aliases.get(digest, digest))
        if found is None:
            return Descriptor(OCTETS, EMPTY, 0) if digest == EMPTY else None
        return found[0]

    @override
    def digests(self) -> Iterator[Digest]:
        return iter(sorted(self._blobs, key=lambda digest: digest.raw))

    @override
    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if offset < 0:
            raise ValueError(f"{digest}: offset {offset}")
        found = self.stat(digest)
        if found is None:
            raise NotFoundError(f"{digest}: not in the store")
        kept = self._blobs.get(found.digest)
        return b"" if kept is None else kept[1][offset : offset + max(0, length)]

    @override
    async def create(self, media_type: str = OCTETS) -> "MemoryWriter":
        await trio.lowlevel.checkpoint_if_cancelled()
        identity = str(uuid.uuid4())
        upload = self._uploads[identity] = _Upload(time.time_ns(), media_type or OCTETS)
        return MemoryWriter(self, identity, upload)

    @override
    async def resume(self, identity: str) -> "MemoryWriter":
        await trio.lowlevel.checkpoint_if_cancelled()
        upload = self._uploads.get(identity)
        if upload is None:
            raise NotFoundError(f"no upload {identity}")
        if upload.active:
            raise trio.BusyResourceError(f"upload {identity} is being written")
        upload.active = True
        return MemoryWriter(self, identity, upload)

    @override
    async def delete(self, digest: Digest) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        found = self.stat(digest)
        kept = None if found is None else self._blobs.pop(found.digest, None)
        if kept is not None:
            self._used -= len(kept[1])
            self._aliases = {
                alias: to for alias, to in self._aliases.items() if to != kept[0].digest
            }

    def append(self, upload: _Upload, data: bytes) -> None:
        """Add bytes to an upload.

        Raises:
            StorageFullError: they are too many; none was added.
        """
        if self._used + len(data) > self._limit:
            raise StorageFullError(f"{self._used} of {self._limit} bytes are in use")
        upload.data += data
        self._used += len(data)

    def admit(self, identity: str, hashed: Hasher, claim: Digest | None) -> Descriptor:
        """Make an upload a blob, whose bytes have these digests."""
        upload = self._uploads[identity]
        self.drop(identity)
        digest = hashed.digest()
        found = self._blobs.get(digest)
        if found is None:
            data = bytes(upload.data)
            self._used += len(data)
            found = Descriptor(upload.media_type, digest, len(data)), data
        elif found[0].media_type == OCTETS:
            found = replace(found[0], media_type=upload.media_type), found[1]
        self._blobs[digest] = found
        if claim is not None and not claim.weak and not claim.canonical:
            self._aliases[claim] = digest
        return found[0]

    def drop(self, identity: str) -> None:
        """Forget an upload, if there is such a one."""
        upload = self._uploads.pop(identity, None)
        if upload is not None:
            self._used -= len(upload.data)


class MemoryWriter(Writer):
    """Writes into a ``MemoryBlobs``."""

    def __init__(self, blobs: MemoryBlobs, identity: str, upload: _Upload) -> None:
        self.id = identity
        self.started_ns = upload.started_ns
        self._blobs = blobs
        self._upload = upload
        self._life = Life(f"upload {identity}")

    @property
    @override
    def size(self) -> int:
        return len(self._upload.data)

    @override
    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._life.check()
        try:
            self._blobs.append(self._upload, data)
        except StorageFullError:
            self._let_go()
            raise

    @override
    async def close(self) -> None:
        self._let_go()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _let_go(self) -> None:
        self._life.close()
        self._upload.active = False

    @override
    async def commit(self, digest: Digest | None, size: int | None) -> Descriptor:
        self._life.check()
        if size is not None and size != self.size:
            raise SizeMismatchError(self._life.name, expected=size, actual=self.size)
        hasher = Hasher(() if digest is None else (digest.algorithm,))
        await trio.to_thread.run_sync(hasher.update, self._upload.data)
        actual = None if digest is None else hasher.digest(digest.algorithm)
        if digest != actual:
            await self.cancel()
            raise DigestMismatchError(self._life.name, expected=digest, actual=actual)
        descriptor = self._blobs.admit(self.id, hasher, digest)
        self._life.commit()
        return descriptor

    @override
    async def cancel(self) -> None:
        if self._life.over:
            return
        if self._life.open or not self._upload.active:  # else it is somebody else's by now
            self._blobs.drop(self.id)
        self._life.cancel()
