"""What a store of blobs is: small verbs, and what each of them promises (B-3).

``Blobs`` keeps them on disk, ``MemoryBlobs`` in memory; both pass one suite of tests. Who uses a
store asks for the narrowest of these that will do.

- A digest of any algorithm may be asked for. Answers have the canonical one, and both resolve once
  the bytes were verified (B-5); weak ones (md5, sha1) are checked and resolve to nothing.
- What a writer is told (digest, size, media type) is a claim. Bytes become a blob when no claim is
  wrong, as a whole, and never change afterwards.
- Absence is an answer of ``stat``, and an error of what would need the bytes.

Sizes and offsets are bytes.
"""

import os
from abc import abstractmethod
from collections.abc import Iterator
from typing import Final, Protocol

from cafs.errors import NotFoundError, UnsupportedError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest

GET_LIMIT: Final = 4 << 20
"""Bytes of a blob that ``get`` hands out at most (B-20): as many as a manifest may have."""


class Statter(Protocol):
    """Knows of blobs.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    def stat(self, digest: Digest) -> Descriptor | None:
        """The blob's descriptor, under its canonical digest; None when it is not here.

        The empty blob is always here (B-17). It waits for nobody.
        """


class Provider(Statter, Protocol):
    """Hands out the bytes of blobs.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    async def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """Read a span of a blob; short, or empty, only at its end.

        Raises:
            NotFoundError: it is not here, or not all of it any more: bytes that should be there and
                are not are never the end (B-19).
            StorageError: the disk failed.
            ValueError: a negative offset.

        Cancellation: no effect.
        """

    async def get(self, digest: Digest) -> bytes:
        """All bytes of a small blob.

        Raises:
            UnsupportedError: it is larger than ``GET_LIMIT``; ``open`` it (B-20).
            NotFoundError, StorageError: as for ``read``.

        Cancellation: no effect.
        """
        found = _known(self, digest)
        if found.size > GET_LIMIT:
            raise UnsupportedError(
                f"{digest}: {found.size} bytes are too many to be taken at once",
                hint=f"at most {GET_LIMIT}; read it piece by piece",
            )
        return await self.read(found.digest, 0, found.size)

    def open(self, digest: Digest) -> "BlobReader":
        """A reader at the blob's beginning.

        Raises:
            NotFoundError: it is not here.
        """
        return BlobReader(self, _known(self, digest))


class Writer(Protocol):
    """Writes one blob from front to back (B-4).

    Close it, commit it or cancel it; one that is closed can be resumed by its ``id``.
    ``started_ns`` is since when there is its upload, since the epoch.

    Concurrency: one task at a time.
    """

    id: str
    started_ns: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes written so far, by all writers of this upload."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            StorageFullError: no space. Nothing was appended and the writer is closed; the upload
                can be resumed.
            StorageError: the disk failed; likewise, and a resumed writer says what is left.
            trio.ClosedResourceError: closed, committed or cancelled, or a commit was begun.

        Cancellation: all or nothing.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of the upload, which stays resumable. Twice is once.

        Raises:
            trio.ClosedResourceError: it was committed.

        Cancellation: it is closed all the same.
        """

    @abstractmethod
    async def commit(self, digest: Digest | None, size: int | None) -> Descriptor:
        """Verify what was written, and make it a blob (B-5, B-16).

        Args:
            digest: what it must be, of any algorithm; None when nobody said.
            size: bytes that there must be; None when nobody said.

        Returns:
            Its canonical descriptor. The media type is that of the first who knew one.

        Raises:
            SizeMismatchError: there are more or fewer; the upload goes on.
            DigestMismatchError: other bytes; the upload is gone.
            StorageError: the disk failed; the writer is closed, the upload can be resumed.
            trio.ClosedResourceError: closed, committed or cancelled.

        Cancellation: all or nothing; an upload that remains can be committed again, no more.
        """

    @abstractmethod
    async def cancel(self) -> None:
        """Throw the upload away; what was committed stays. Any number of times.

        Cancellation: no effect; it is carried through, so that it can clean up after one.
        """


class Ingester(Protocol):
    """Takes blobs in.

    Concurrency: any number of tasks; one writer an upload.
    """

    @abstractmethod
    async def create(self, media_type: str = OCTETS) -> Writer:
        """Begin a new blob (B-14). An empty media type is ``OCTETS`` (B-18).

        Raises:
            StorageError: the disk failed, or is full.

        Cancellation: an empty upload may remain.
        """

    @abstractmethod
    async def resume(self, identity: str) -> Writer:
        """Go on with an upload that was closed, or whose process died, where its bytes end.

        Raises:
            NotFoundError: no such upload, or it was committed or cancelled.
            trio.BusyResourceError: somebody else is writing it.
            StorageError: the disk failed.

        Cancellation: no effect.
        """

    async def put(self, media_type: str, data: bytes, digest: Digest | None = None) -> Descriptor:
        """Make bytes in memory a blob.

        Args:
            media_type: as for ``create``.
            data: all of it.
            digest: as for ``Writer.commit``.

        Returns:
            Its canonical descriptor.

        Raises:
            DigestMismatchError: other bytes.
            StorageError: the disk failed, or is full.

        Cancellation: all or nothing.
        """
        writer = await self.create(media_type)
        try:
            await writer.write(data)
            return await writer.commit(digest, len(data))
        finally:
            await writer.cancel()


class Deleter(Protocol):
    """Removes blobs.

    Concurrency: any number of tasks.
    """

    @abstractmethod
    async def delete(self, digest: Digest) -> None:
        """Remove a blob and all its names. Nothing happens when it is not here.

        The empty blob is here afterwards too, as one that nobody has put.

        Raises:
            StorageError: the disk failed.

        Cancellation: all or nothing; once begun it is carried through.
        """


class Enumerator(Protocol):
    """Lists blobs.

    Concurrency: any number of tasks; what comes and goes meanwhile may be listed or not.
    """

    @abstractmethod
    def digests(self) -> Iterator[Digest]:
        """The canonical digests of all blobs that were put, ascending, each once."""


class BlobStore(Provider, Ingester, Deleter, Enumerator, Protocol):
    """All of it."""


class BlobReader:
    """Reads one blob from front to back, or from where ``seek`` leads (B-19).

    Concurrency: one task at a time.
    """

    def __init__(self, provider: Provider, descriptor: Descriptor) -> None:
        self._provider = provider
        self.descriptor = descriptor
        self.offset = 0

    @property
    def size(self) -> int:
        """Bytes of the whole blob."""
        return self.descriptor.size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Say where the next read begins; behind the end it is empty.

        Args:
            offset: bytes, relative to ``whence``.
            whence: ``os.SEEK_SET``, ``os.SEEK_CUR`` or ``os.SEEK_END``.

        Returns:
            The offset from the beginning.

        Raises:
            ValueError: before the beginning, or relative to nothing; the offset stays.
        """
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self.offset, os.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"{self.descriptor.digest}: seek relative to {whence}")
        if bases[whence] + offset < 0:
            raise ValueError(f"{self.descriptor.digest}: seek before its beginning")
        self.offset = bases[whence] + offset
        return self.offset

    async def read(self, length: int) -> bytes:
        """The next bytes, at most ``length``; empty at the end.

        Raises:
            NotFoundError, StorageError: as for ``Provider.read``; the offset stays.

        Cancellation: no effect; the offset stays.
        """
        data = await self._provider.read(self.descriptor.digest, self.offset, length)
        self.offset += len(data)
        return data


def _known(statter: Statter, digest: Digest) -> Descriptor:
    found = statter.stat(digest)
    if found is None:
        raise NotFoundError(f"{digest}: not in the store")
    return found
