"""Uploads: blobs that are written from the front, and can be resumed until they are committed.

An upload is a stream under a key of its own, and a record that says since when (B-14). What is
written survives the process; what a power cut took is gone from the end, and a resumed writer says
how much there is. A writer holds a byte of a file of locks, so nobody else writes, or throws away
what is being written; and its stream, so that nobody makes room there. A process that dies holds
nothing.
"""

import time
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import trio

from cafs.errors import NotFoundError
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import after
from cafs.store.disk import locking
from cafs.store.disk.files import storage_error
from cafs.store.disk.locking import SpanLock
from cafs.store.holds.holds import Holds
from cafs.store.streams.stream import Stream
from cafs.store.streams.streams import Streams
from cafs.store.tables.records import Packed, hashed


class UploadRecord(msgspec.Struct, frozen=True):
    """Since when an upload exists, in ns since the epoch, and what it is going to be."""

    id: str
    started_ns: int
    media_type: str


class Upload(msgspec.Struct, frozen=True):
    """An upload that is under way, or was left.

    ``key`` is the stream that holds its bytes, ``size`` how many there are, ``started_ns`` since
    when it exists, since the epoch. ``active`` says that a writer has it, in whichever process.
    """

    id: str
    key: StreamKey
    started_ns: int
    media_type: str
    size: int
    active: bool


class Held:
    """An upload that this process alone has, until ``release``.

    ``stream`` holds its bytes.

    Concurrency: one task at a time.
    """

    def __init__(
        self, uploads: "Uploads", record: UploadRecord, stream: Stream, held: ExitStack
    ) -> None:
        self.id = record.id
        self.started_ns = record.started_ns
        self.media_type = record.media_type
        self.stream = stream
        self._uploads = uploads
        self._held = held

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        self._held.close()

    async def forget(self) -> None:
        """Remove its record, when something has become of its bytes.

        Cancellation: no effect; it is carried through.
        """
        with trio.CancelScope(shield=True):
            await self._uploads.forget(self.id)

    async def remove(self) -> None:
        """Remove its bytes, then its record.

        Cancellation: no effect; it is carried through.
        """
        with trio.CancelScope(shield=True):
            await self.stream.discard()
            await self._uploads.forget(self.id)

    async def remove_unheld(self) -> None:
        """Remove it after ``release``, unless somebody else has it now.

        Cancellation: no effect; it is carried through.
        """
        with trio.CancelScope(shield=True):
            await self._uploads.discard(self.id)


class Uploads:
    """The uploads that are under way.

    Concurrency: any number of tasks and processes; one writer an upload.
    """

    def __init__(self, index: Environment, streams: Streams, *, locks: Path, holds: Holds) -> None:
        self._index = index
        self._streams = streams
        self._locks = locks
        self._holds = holds
        self._table = index.table("uploads")
        self._packed = Packed(UploadRecord)

    async def create(self, media_type: str) -> Held:
        """Begin an upload: its record comes before its bytes."""
        record = UploadRecord(str(uuid.uuid4()), time.time_ns(), media_type)
        value = self._packed.pack(record)
        with await self._hold(record.id) as held:
            await self._index.commit(lambda batch: batch.put(self._table, _key(record.id), value))
            stream = await self._streams.open(_stream(record.id), None)
            return Held(self, record, stream, held.pop_all())

    async def resume(self, identity: str) -> Held:
        """An upload that was left.

        Raises:
            NotFoundError: no such upload.
            trio.BusyResourceError: somebody else is writing it.
        """
        with await self._hold(identity) as held:
            record = self._record(identity)
            stream = await self._streams.open(_stream(identity), None)
            return Held(self, record, stream, held.pop_all())

    def _record(self, identity: str) -> UploadRecord:
        record = self._packed.unpack(self._index.get(self._table, _key(identity)))
        if record is None:
            raise NotFoundError(f"no upload {identity}")
        return record

    def all(self) -> list[Upload]:
        """The uploads that there are, oldest first. Reads the disk; for worker threads.

        Raises:
            StorageError: the disk failed.
        """
        with self._index.read() as snapshot:
            rows = [raw for _, raw in snapshot.scan(self._table, b"", after(b""))]
        records = [record for raw in rows if (record := self._packed.unpack(raw)) is not None]
        return [self._told(each) for each in sorted(records, key=lambda each: each.started_ns)]

    def _told(self, record: UploadRecord) -> Upload:
        key = _stream(record.id)
        stream = self._streams.find(key)
        size = 0 if stream is None else sum(span.length for span in stream.present())
        active = self._is_held(record.id)
        return Upload(record.id, key, record.started_ns, record.media_type, size, active)

    def _is_held(self, identity: str) -> bool:
        try:
            with self._locks.open("r+b", buffering=0) as file:
                return locking.is_locked(file.fileno(), _place(identity))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_error(error, f"looking after upload {identity}") from error

    def unreadable(self) -> list[bytes]:
        """Where records lie that nobody can read, so that nobody can resume what they were of."""
        pages = self._index.pages(self._table)
        rows = [row for page in pages for row in page]
        return [place for place, raw in rows if self._packed.unpack(raw) is None]

    def strike(self, places: Iterable[bytes]) -> int:
        """Remove records by their places. Blocks; how many it were."""
        gone = tuple(places)
        return self._index.apply(
            lambda batch: sum(batch.delete(self._table, place) for place in gone), urgent=True
        )

    async def discard(self, identity: str) -> bool:
        """Throw away an upload that was left; whether there was one, and nobody is writing it.

        Raises:
            StorageError: the disk failed.

        Cancellation: all or nothing; once begun it is carried through.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        lock = self._try_hold(identity)
        if lock is None:
            return False
        removed = False
        with lock, trio.CancelScope(shield=True):
            if self._index.get(self._table, _key(identity)) is not None:
                stream = self._streams.find(_stream(identity))
                if stream is not None:
                    await stream.discard()
                await self.forget(identity)
                removed = True
        return removed

    async def forget(self, identity: str) -> None:
        """Remove the record of an upload that is over.

        Cancellation: all or nothing; once begun it is carried through.
        """
        await self._index.commit(
            lambda batch: batch.delete(self._table, _key(identity)), urgent=True
        )

    async def _hold(self, identity: str) -> ExitStack:
        """Keep others from an upload and its stream, until what is returned is closed."""
        lock = self._try_hold(identity)
        if lock is None:
            raise trio.BusyResourceError(f"upload {identity} is being written")
        with ExitStack() as held:
            held.callback(lock.release)
            hold = self._holds.hold_here(Item.stream(_stream(identity)))
            await trio.to_thread.run_sync(held.enter_context, hold)
            return held.pop_all()

    def _try_hold(self, identity: str) -> SpanLock | None:
        try:
            return locking.try_lock(self._locks, _place(identity), create=True)
        except OSError as error:
            raise storage_error(error, f"locking upload {identity}") from error


def _key(identity: str) -> bytes:
    return hashed(identity)


def _place(identity: str) -> Span:
    """The byte of the file of locks that is an upload's."""
    place = int.from_bytes(_key(identity)[:6], "big")
    return Span(place, place + 1)


def _stream(identity: str) -> StreamKey:
    return StreamKey(hashed(f"upload\n{identity}").hex())
