"""Blobs: immutable, verified bytes by digest.

Nothing gets here but through the gate of ``admission``. A blob whose file has gone is absent,
whatever its record says.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import trio
from typing_extensions import override

from cafs.errors import NotFoundError
from cafs.labour import Threads
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.blobs.admission import Admission, Claim
from cafs.store.blobs.intake import Intake
from cafs.store.blobs.uploads import Uploads
from cafs.store.blobs.writing import BlobWriter
from cafs.store.disk.door import CLOSED, file_size, remove
from cafs.store.disk.files import Files, storage_error
from cafs.store.disk.layout import Layout
from cafs.store.interfaces import BlobStore
from cafs.store.streams.demotion import Demotion
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.witness import Seen
from cafs.store.tables import sums
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.sums import Piece

ADMISSIONS = 2
"""Streams hashed at one time; more would only slow each other and the reads."""


class Blobs(BlobStore):
    """The blobs of a store.

    Concurrency: any number of tasks and processes.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        files: Files,
        records: BlobRecords,
        admission: Admission,
        uploads: Uploads,
        demotion: Demotion,
        shelf: Shelf,
    ) -> None:
        self._layout = layout
        self._files = files
        self._records = records
        self._admission = admission
        self._uploads = uploads
        self._demotion = demotion
        self._uses = shelf.uses
        self._holds = shelf.holds
        self._intake = Intake(layout, records, admission.retire, shelf)
        self._threads = Threads(ADMISSIONS)

    def hold(self, digest: Digest) -> AbstractAsyncContextManager[None]:
        """Keep the blob of a canonical digest from being removed to make room; as ``Holds.hold``.

        It may be deleted all the same.
        """
        return self._holds.hold(Item.blob(digest))

    @override
    def stat(self, digest: Digest) -> Descriptor | None:
        found = self._recorded(digest)
        if found is None or found.digest == EMPTY:
            return found
        return found if _has_size(self._layout.blob(found.digest), found.size) else None

    def _recorded(self, digest: Digest) -> Descriptor | None:
        """What the records say of a blob; its file has not been looked at."""
        canonical = self._records.canonical(digest)
        if canonical is None:
            return None
        record = self._records.get(canonical)
        if record is None:
            return Descriptor(OCTETS, EMPTY, 0) if canonical == EMPTY else None
        return Descriptor(record.media_type, canonical, record.size)

    @override
    def digests(self) -> Iterator[Digest]:
        """The canonical digests on record, ascending; also of blobs whose files have gone."""
        return self._records.digests()

    @override
    async def read(
        self, digest: Digest, offset: int, length: int, key: StreamKey | None = None
    ) -> bytes:
        """Read a span of a blob; short at its end.

        ``key`` is the stream that the reader can fill, if the blob turns out to be damaged.

        Raises:
            NotFoundError: it is not here, or the disk has changed what is read: then it is a stream
                again, and what is missing of it can be fetched.
            StorageError: the disk failed.

        Cancellation: no effect.
        """
        found = self._recorded(digest)
        if found is None:
            raise NotFoundError(f"{digest}: not in the store")
        length = max(0, min(length, found.size - offset))
        if not length:
            await trio.lowlevel.checkpoint_if_cancelled()
            return b""
        pieces = self._records.pieces(found.digest, Span(offset, offset + length))
        wider = sums.around(Span(offset, offset + length), pieces)
        data, bad = await self._read(found, wider, pieces)
        if len(data) < wider.length or bad is not None:
            # Others may have removed it, and brought it anew: then it was the former that was open.
            self._files.forget(self._layout.blob(found.digest))
            data, bad = await self._read(found, wider, pieces)
        if len(data) < wider.length:
            raise NotFoundError(f"{digest}: its file was cut short")
        self._uses.touch(Item.blob(found.digest))
        if bad is not None:
            await self._lose(found.digest, bad, key)
            raise NotFoundError(f"{digest}: the disk has changed its bytes {bad.span}")
        return data[offset - wider.start :][:length]

    async def _read(
        self, found: Descriptor, span: Span, pieces: Sequence[Piece]
    ) -> tuple[bytes, Piece | None]:
        """What the file has of a span, and the first of its pieces that is not what it was.

        Raises:
            NotFoundError: there is no file, or it may not be read.
            StorageError: the disk failed.
        """
        path = self._layout.blob(found.digest)
        try:
            if not _has_size(path, found.size):
                raise NotFoundError(f"{found.digest}: its file is not in the store any more")
            data = await self._files.read(path, span.start, span.length)
        except FileNotFoundError as error:
            raise NotFoundError(f"{found.digest}: not in the store any more") from error
        except OSError as error:
            if error.errno not in CLOSED:
                raise storage_error(error, f"reading {found.digest}") from error
            await self._give_up(found, error)
            raise NotFoundError(f"{found.digest}: its file cannot be read") from error
        return data, sums.damaged(span.start, data, pieces)

    async def _lose(self, digest: Digest, bad: Piece, key: StreamKey | None) -> None:
        try:
            await trio.to_thread.run_sync(
                self._demotion.demote, digest, [bad.span], key, limiter=self._threads.limiter
            )
        except OSError as error:
            raise storage_error(error, f"{digest}: damaged, and cannot be put aside") from error

    async def _give_up(self, found: Descriptor, failure: OSError) -> None:
        what = f"it cannot be read: {failure.strerror}"
        change = partial(self._demotion.put_aside, found.digest, found.size, what)
        try:
            await trio.to_thread.run_sync(change, limiter=self._threads.limiter)
        except OSError as error:
            what = f"{found.digest}: cannot be read, nor put aside"
            raise storage_error(error, what) from error

    async def admit(
        self,
        key: StreamKey,
        *,
        media_type: str,
        claims: Sequence[Digest] = (),
        size: int | None = None,
        name: str,
        hashed: Seen | None = None,
        lasting: bool = True,
    ) -> Descriptor:
        """Verify a whole stream and make it a blob: the one gate for bytes.

        Args:
            key: the stream; all of it must be present.
            media_type: of the content; kept when nothing better is known.
            claims: digests that the bytes must have. Each that is not weak resolves afterwards.
            size: bytes that it must have, if anybody said.
            name: what the content is, for errors.
            hashed: hashes of all bytes of the stream, in order, by a caller who saw them; used
                instead of another reading when this process wrote all of the stream, and nothing
                was taken out of it since the caller saw the first.
            lasting: whether the stream's key is a name of the bytes from now on; else it is gone.

        Returns:
            The canonical descriptor (B-5).

        Raises:
            DigestMismatchError, SizeMismatchError: a claim is wrong; the bytes are in quarantine,
                and the stream is gone.
            StorageError: the disk failed; the stream is as it was, or void when the disk could not
                write what it had taken.
            NotWholeError: the stream is not whole, or not any more.

        Cancellation: all or nothing.
        """
        claim = Claim(name, media_type or OCTETS, tuple(claims), size, lasting)
        return await self._threads.run(partial(self._admission.admit, key, claim, hashed))

    async def take(
        self, key: StreamKey, data: bytes, *, media_type: str, claims: Sequence[Digest], name: str
    ) -> Descriptor | None:
        """Make small content that came whole a blob, through the same gate, without a stream.

        Args:
            key: the stream that it would be; nobody may have begun it.
            data: all of it, at most ``intake.LARGEST`` bytes.
            media_type: as for ``admit``.
            claims: as for ``admit``.
            name: as for ``admit``.

        Returns:
            The canonical descriptor. None when nothing has happened: a claim is wrong, the stream
            has been begun, or the disk failed; written as a stream and admitted, it tells.

        Cancellation: all or nothing; once begun it is carried through.
        """
        claim = Claim(name, media_type or OCTETS, tuple(claims), len(data))
        return await self._intake.take(key, data, claim)

    async def take_back(self, key: StreamKey, spans: SpanSet, size: int | None) -> SpanSet:
        """Take spans of a stream back from where it was put when a claim was wrong.

        Args:
            key: the stream, which begins anew.
            spans: what is still worth something.
            size: of the stream, as far as it is known.

        Returns:
            What was there to be taken, and is in the stream now.

        Raises:
            StorageError: the disk failed.

        Cancellation: between two pieces; those that were taken are in the stream.
        """
        return await self._threads.run(partial(self._admission.aside.take_back, key, spans, size))

    def file(self, digest: Digest) -> Path | None:
        """The file of a blob, for who opens it at once and can do without: it may be removed."""
        known = self.stat(digest)
        return None if known is None else self._layout.blob(known.digest)

    @override
    async def create(self, media_type: str = OCTETS) -> BlobWriter:
        return BlobWriter(await self._uploads.create(media_type or OCTETS), self)

    @override
    async def resume(self, identity: str) -> BlobWriter:
        upload = await self._uploads.resume(identity)
        writer = BlobWriter(upload, self)
        try:
            await writer.catch_up()
        except BaseException:
            upload.release()
            raise
        return writer

    @override
    async def delete(self, digest: Digest) -> None:
        await trio.to_thread.run_sync(self._delete, digest, limiter=self._threads.limiter)

    def _delete(self, digest: Digest) -> None:
        canonical = self._records.canonical(digest)
        if canonical is None:
            return
        path = self._layout.blob(canonical)
        try:
            # Others may read it, and so hold it; who brings it anew at this moment waits.
            with self._holds.naming([canonical]):
                self._records.delete(canonical)
                self._files.forget(path)
                remove(path)
        except OSError as error:
            raise storage_error(error, f"{digest}: cannot be deleted") from error


def _has_size(path: Path, size: int) -> bool:
    """Whether it is a file of that size; a directory is none (B-13)."""
    return file_size(path) == size
