"""First passes: what an archive without a tree goes through, once.

All of it runs in one worker thread that pulls raw bytes, parses, writes and plants; the trio thread
only brings bytes. Nothing is visible before the content has passed its gate (``publishing``). A
pass that ends early leaves the raw bytes, so that the next one fetches only the rest.
"""

import math
from contextlib import suppress
from functools import partial
from typing import Final

import trio
from typing_extensions import override

from cafs.codec.sniffing import HEAD, Compression, Format, expected_by_name
from cafs.errors import (
    DigestMismatchError,
    MalformedError,
    StorageFullError,
    UnsupportedError,
)
from cafs.fetch.content.bridging import Intake
from cafs.fetch.flights.shortage import Shortage
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Feed, Feeder
from cafs.fetch.passes.file_pass import plant_file
from cafs.fetch.passes.kinds import Kind, kind_of
from cafs.fetch.passes.little_room import LittleRoom
from cafs.fetch.passes.making import Making
from cafs.fetch.passes.publishing import Plant, Publishing
from cafs.fetch.passes.tar_pass import PlantSlices, plant_compressed, plant_plain, raw_stream_of
from cafs.fetch.passes.zip_pass import plant_zip
from cafs.fetch.pulse import Pulse
from cafs.labour import Threads
from cafs.model.identity import StreamKey, TreeIdentity, decoded_stream
from cafs.model.limits import Limits
from cafs.model.record import TreeRecord, TreeStream
from cafs.model.span import Span
from cafs.model.trust import Need
from cafs.store.disk.locking import SpanLock
from cafs.store.store import Store
from cafs.store.streams.stream import Stream
from cafs.store.trees.tree_writing import TreeWriter

LINGER_S: Final = 300.0
"""How long a pass goes on without anybody waiting: who gave up will ask again."""
PASSES: Final = 256
"""Threads of passes at once. They wait for bytes, so they must not be those that everything else
needs, of which there are 40: resolving a name takes one, and the bytes may wait for that."""
_POLL_S: Final = 0.1
_LOCK: Final = Span(0, 1)


class _Signs(Pulse):
    """Tells those who wait for a pass in other processes that it goes on.

    Each sign is a change on the disk, which may be busy: one at a time is left, in a thread of its
    own, and nothing waits for it.
    """

    def __init__(self, lock: SpanLock) -> None:
        super().__init__()
        self._lock = lock
        self._signed = -math.inf
        self._signing = False
        self._limiter = trio.CapacityLimiter(1)

    @override
    def beat(self, count: int = 0) -> None:
        super().beat(count)
        if not self._signing and self.moved - self._signed >= _POLL_S:
            self._signed = self.moved
            self._signing = True
            trio.lowlevel.spawn_system_task(self._sign)

    async def _sign(self) -> None:
        try:
            with suppress(RuntimeError):  # no thread is to be had: the next beat tries again
                await self._lock.sign(self._limiter)
        finally:
            self._signing = False


class FirstPass:
    """One pass over one archive. ``threads`` limits those that passes run in.

    ``key`` is what the archive goes by in the tree, and in the names of what it is decoded to; the
    raw content may have another name by now.

    Concurrency: one task.
    """

    def __init__(
        self,
        raw: Feed,
        store: Store,
        *,
        making: Making,
        key: StreamKey,
        name: str,
        media_type: str,
        limits: Limits,
        threads: Threads,
        shortage: Shortage,
    ) -> None:
        self._raw = raw
        self._store = store
        self._making = making
        self._key = key
        self._identity = making.identity(key)
        self._name = name
        self._media_type = media_type
        self._limits = limits
        self._room = LittleRoom(shortage, raw, name)
        self._publishing = Publishing(raw, store, making.identity(key), name=name, threads=threads)

    async def run(self, work: Work[TreeRecord]) -> TreeRecord:
        """Make the tree, or find that another process has.

        Raises:
            ContentError, UnsupportedError: no archive, or a bad one.
            CafsError: as the raw content.

        Cancellation: nothing is visible; raw bytes that have come stay.
        """
        streams = self._store.streams
        async with streams.hold(self._raw.key), streams.hold(_pass_of(self._key)):
            lock = await self._locked(work)
            if isinstance(lock, TreeRecord):
                return lock
            with lock:
                work.pass_on(_Signs(lock))
                try:
                    return await self._run(work)
                finally:
                    work.pass_on(None)

    async def _run(self, work: Work[TreeRecord]) -> TreeRecord:
        try:
            return await self._make(work)
        except DigestMismatchError:
            if not self._raw.hopeful():
                raise
        except StorageFullError as error:
            unkept = partial(self._make, work, keeps=False)
            return await self._room.make(work, error, partial(self._make, work), unkept)
        except (MalformedError, UnsupportedError):
            if self._raw.digest() is not None or not self._raw.algorithms():
                raise
        # Wrong bytes are no archive either; then that is what is wrong, and another source may
        # have the right ones.
        await self._raw.ensure(Span(0, self._raw.size), work.patience())
        return await self._make(work)

    async def _locked(self, work: Work[TreeRecord]) -> SpanLock | TreeRecord:
        """Wait until no other process makes this tree; the tree if one has."""
        stream = await self._store.streams.open(_pass_of(self._key), None)
        seen = self._raw.present(), stream.signed()
        while True:
            lock = stream.try_lock(_LOCK)
            found = complete_tree(self._store, self._identity)
            if found is not None:
                if lock is not None:
                    lock.release()
                return found
            if lock is not None:
                return lock
            await trio.sleep(_POLL_S)
            now = self._raw.present(), stream.signed()
            if now != seen:
                seen = now
                work.beat()

    async def _make(self, work: Work[TreeRecord], *, keeps: bool = True) -> TreeRecord:
        self._room.decoding = False
        await self._raw.look_around(work.patience())
        self._publishing.begin()
        feeder = self._raw.feed()
        try:
            if self._making.opaque:
                return await self._make_plain(work, feeder, plant_file)
            kind = await self._kind(work, feeder)
            if kind.format is Format.ZIP:
                if not self._making.zips:
                    raise UnsupportedError(f"{self._name} is a zip, where only a tar will do")
                return await self._make_zip(work)
            if kind.compression is Compression.NONE:
                return await self._make_plain(work, feeder, plant_plain)
            self._room.decoding = True
            if not keeps:
                intake = self._publishing.intake(work, feeder)
                plant = self._unpacking(intake, kind.compression, None)
                return await self._publishing.publish(plant, work, intake)
            return await self._make_compressed(work, feeder, kind.compression)
        finally:
            feeder.release()

    async def _kind(self, work: Work[TreeRecord], feeder: Feeder) -> Kind:
        raw = self._raw
        expected = expected_by_name(self._name)
        if raw.lazy() and (expected is None or expected is Format.ZIP):
            # A zip may turn out to be it; then the rest of it is not wanted yet.
            head = await raw.read(0, HEAD, work.patience())
        else:
            head = await feeder.take(0, HEAD, work.patience())
        return kind_of(head, self._name, self._media_type)

    async def _make_plain(
        self, work: Work[TreeRecord], feeder: Feeder, cut: PlantSlices
    ) -> TreeRecord:
        intake = self._publishing.intake(work, feeder)
        streams = (raw_stream_of(self._key, self._raw.size),)

        def plant(writer: TreeWriter) -> tuple[TreeStream, ...]:
            cut(intake, self._making.planter, writer, name=self._name, limits=self._limits)
            return streams

        return await self._publishing.publish(plant, work, intake)

    async def _make_compressed(
        self, work: Work[TreeRecord], feeder: Feeder, compression: Compression
    ) -> TreeRecord:
        key = self._decoded(compression)
        stream = await self._fresh(await self._store.streams.open(key, None))
        intake = self._publishing.intake(work, feeder)
        plant = self._unpacking(intake, compression, stream)
        published = False
        try:
            async with self._store.streams.hold(key):
                record = await self._publishing.publish(plant, work, intake, stream)
            published = True
        finally:
            if not published:
                with trio.CancelScope(shield=True):
                    await stream.discard()
        return record

    def _unpacking(self, intake: Intake, compression: Compression, stream: Stream | None) -> Plant:
        """Plants, and writes what is decoded into a stream; without one it is read, and goes."""

        def plant(writer: TreeWriter) -> tuple[TreeStream, ...]:
            decoded = plant_compressed(
                intake,
                compression,
                stream,
                self._making.planter,
                writer,
                name=self._name,
                limits=self._limits,
            )
            size, several = decoded.size, decoded.segments > 1
            if not several and stream is None:
                self._room.whole = size
                raise StorageFullError(f"{self._name}: nothing of it can be decoded alone")
            # With one segment, what is missing is all of it: then the pass runs again.
            rules, key = "segments" if several else "tar", self._decoded(compression)
            return (TreeStream(key=key, size=size, raw=self._key, part=0, rules=rules),)

        return plant

    def _decoded(self, compression: Compression) -> StreamKey:
        """The name of what the content decodes to."""
        return decoded_stream(self._key, compression.value + self._making.mark)

    async def _fresh(self, stream: Stream) -> Stream:
        """The stream without what an earlier pass left in it, which may be of other bytes."""
        if not stream.present() and stream.size is None:
            return stream
        await stream.discard()
        return await self._store.streams.open(stream.key, None)

    async def _make_zip(self, work: Work[TreeRecord]) -> TreeRecord:
        raw = self._raw
        if not raw.lazy():
            await raw.ensure(Span(0, raw.size), work.patience())
        self._publishing.begin()
        key = decoded_stream(self._key, "zip")
        stream = self._store.streams.find(raw.key)
        before = None if stream is None else await stream.settled()

        async def pull(offset: int, length: int) -> bytes:
            with work.busy(""):
                data = await raw.read(offset, length, work.patience())
            work.beat()
            return data

        def plant(writer: TreeWriter) -> tuple[TreeStream, ...]:
            size = plant_zip(pull, raw.size, writer, name=self._name, limits=self._limits)
            return (TreeStream(key=key, size=size, raw=self._key, part=0, rules="zip"),)

        return await self._publishing.publish(plant, work, None, before=before)


def _pass_of(raw: StreamKey) -> StreamKey:
    """A stream without a byte, whose lock says that somebody makes what comes of ``raw``."""
    return decoded_stream(raw, "pass")


def complete_tree(store: Store, identity: TreeIdentity) -> TreeRecord | None:
    """The tree that a pass made, if the store has it with everything that it needs.

    Segments are decoded from the raw content when they are read; a decoded tar must be there.
    """
    record = store.trees.find(identity)
    if record is None:
        return None
    need = Need(source=record.digest)
    if not all(_readable(store, one, need) for one in record.streams):
        return None
    return record


def _readable(store: Store, stream: TreeStream, need: Need) -> bool:
    if stream.rules != "tar":
        return True
    found = store.streams.find(stream.key)
    if found is None or not need.met(found.behind()):
        return False
    return found.present().covers(Span(0, stream.size))
