"""Uploads: blobs that are written from the front, and can be resumed until they are committed.

An upload is a stream under a key of its own, and a record that says since when (B-14). What is
written survives the process; what a power cut took is gone from the end, and a resumed writer says
how much there is.
"""

import enum
import time
import uuid
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from cafs.errors import DigestMismatchError, NotFoundError, SizeMismatchError
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.environment import Environment
from cafs.store.records import Packed, hashed
from cafs.store.streams import Stream, Streams

_CHUNK: Final = 1 << 20
"""Bytes read at once when a partial is hashed again."""


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """Since when an upload exists, in ns since the epoch, and what it is going to be."""

    started_ns: int
    media_type: str


class Gate(Protocol):
    """What a writer hands its stream to."""

    @abstractmethod
    async def admit(
        self,
        key: StreamKey,
        *,
        media_type: str,
        claims: Sequence[Digest] = (),
        size: int | None = None,
        name: str,
        hashed: Hasher | None = None,
    ) -> Descriptor:
        """Verify a whole stream and make it a blob."""


class _State(enum.Enum):
    OPEN = enum.auto()
    CLOSED = enum.auto()
    COMMITTED = enum.auto()
    CANCELLED = enum.auto()


class BlobWriter:
    """Writes one blob from front to back (B-4).

    Close it, commit it or cancel it. A closed one can be resumed by its ``id``.

    Concurrency: one task at a time.
    """

    def __init__(
        self, uploads: "Uploads", gate: Gate, identity: str, record: UploadRecord, stream: Stream
    ) -> None:
        self.id = identity
        self.started_ns = record.started_ns
        self._uploads = uploads
        self._gate = gate
        self._media_type = record.media_type
        self._stream = stream
        self._hasher = Hasher()
        self._state = _State.OPEN

    @property
    def size(self) -> int:
        """Bytes written so far, by all writers of this upload."""
        return self._hasher.size

    async def catch_up(self, size: int) -> None:
        """Hash what an earlier writer wrote (B-15): hashes cannot be put down and taken up again.

        Cancellation: the writer is useless.
        """
        while self.size < size:
            data = await self._stream.read(self.size, min(_CHUNK, size - self.size))
            if not data:
                raise NotFoundError(f"upload {self.id}: its bytes have vanished")
            await trio.to_thread.run_sync(self._hasher.update, data)

    async def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            trio.ClosedResourceError: closed, committed or cancelled.
            StorageFullError: the disk is full; close the writer, and resume it later.

        Cancellation: all or nothing.
        """
        self._check_open()
        await trio.to_thread.run_sync(self._write, data)

    def _write(self, data: bytes) -> None:
        self._stream.write_sync(self.size, data)
        self._hasher.update(data)

    async def close(self) -> None:
        """Let go of the upload, which stays resumable. Twice is once.

        Raises:
            trio.ClosedResourceError: it was committed.

        Cancellation: no effect.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._state is _State.COMMITTED:
            raise trio.ClosedResourceError(f"upload {self.id} is committed")
        if self._state is _State.OPEN:
            self._state = _State.CLOSED

    async def commit(self, digest: Digest | None, size: int | None) -> Descriptor:
        """Verify what was written, and make it a blob (B-5, B-16).

        Args:
            digest: what it must be, of any algorithm; None when nobody said.
            size: bytes that there must be; None when nobody said.

        Raises:
            SizeMismatchError: there are more or fewer; the upload goes on.
            DigestMismatchError: other bytes; they are in quarantine, the upload is gone.
            trio.ClosedResourceError: closed, committed or cancelled.

        Cancellation: all or nothing; an upload that remains can be committed again.
        """
        self._check_open()
        if size is not None and size != self.size:
            raise SizeMismatchError(f"upload {self.id}", expected=size, actual=self.size)
        await self._stream.set_size(self.size)
        try:
            descriptor = await self._gate.admit(
                self._stream.key,
                media_type=self._media_type,
                claims=() if digest is None else (digest,),
                name=f"upload {self.id}",
                hashed=self._hasher,
            )
        except DigestMismatchError:
            self._state = _State.CANCELLED
            await self._uploads.forget(self.id)
            raise
        self._state = _State.COMMITTED
        await self._uploads.forget(self.id)
        return descriptor

    async def cancel(self) -> None:
        """Throw the upload away; what was committed stays. Any number of times.

        Cancellation: no effect; it is carried through, so that it can clean up after one.
        """
        if self._state in {_State.COMMITTED, _State.CANCELLED}:
            return
        with trio.CancelScope(shield=True):
            await self._stream.discard()
            await self._uploads.forget(self.id)
        self._state = _State.CANCELLED

    def _check_open(self) -> None:
        if self._state is not _State.OPEN:
            raise trio.ClosedResourceError(f"upload {self.id} is {self._state.name.lower()}")


class Uploads:
    """The uploads that are under way.

    Concurrency: any number of tasks and processes; one writer an upload.
    """

    def __init__(self, index: Environment, streams: Streams) -> None:
        self._index = index
        self._streams = streams
        self._table = index.table("uploads")
        self._packed = Packed(UploadRecord)

    async def create(self, gate: Gate, media_type: str) -> BlobWriter:
        """Begin an upload: its record comes before its bytes."""
        identity = str(uuid.uuid4())
        record = UploadRecord(time.time_ns(), media_type)
        value = self._packed.pack(record)
        await self._index.commit(lambda batch: batch.put(self._table, _key(identity), value))
        stream = await self._streams.open(_stream(identity), None)
        return BlobWriter(self, gate, identity, record, stream)

    async def resume(self, gate: Gate, identity: str) -> BlobWriter:
        """Go on with an upload where its bytes end.

        Raises:
            NotFoundError: no such upload.
        """
        record = self._packed.unpack(self._index.get(self._table, _key(identity)))
        if record is None:
            raise NotFoundError(f"no upload {identity}")
        stream = await self._streams.open(_stream(identity), None)
        writer = BlobWriter(self, gate, identity, record, stream)
        first = next(iter(stream.present()), Span(0, 0))
        await writer.catch_up(first.stop if first.start == 0 else 0)
        return writer

    async def forget(self, identity: str) -> None:
        """Remove the record of an upload that is over.

        Cancellation: no effect; it is carried through.
        """
        with trio.CancelScope(shield=True):
            await self._index.commit(
                lambda batch: batch.delete(self._table, _key(identity)), urgent=True
            )


def _key(identity: str) -> bytes:
    return hashed(identity)


def _stream(identity: str) -> StreamKey:
    return StreamKey(hashed(f"upload\n{identity}").hex())
