"""The records of blobs: which digests are verified, and by which other names they are known.

A blob has one record, under its canonical digest. Other digests of the same bytes are aliases
(B-5, B-10); streams that turned out to be these bytes are listed with it.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import CANONICAL, Digest
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot
from cafs.store.tables.counters import BLOBS, Counter, charge
from cafs.store.tables.pin_table import PinTable
from cafs.store.tables.presence import Presence, blob_owner, owner_of
from cafs.store.tables.records import BlobRecord, Packed, StreamRecord, unpack_stream
from cafs.store.tables.sums import Piece
from cafs.store.tables.uses import Rank, Use, UseTable

_PAGE: Final = 1024
"""Digests listed in one transaction."""


class Admitted(msgspec.Struct, frozen=True):
    """A verified blob that is to be recorded.

    ``descriptor`` has the canonical digest. ``claims`` are verified digests of the same bytes; weak
    ones become no alias, since others might rely on it. ``key`` is the stream that the bytes came
    as, ``record`` what must be on file of it; None for nothing. ``pieces`` say what its bytes are,
    beside those that the index has of that stream. ``lasting`` says that the stream is to be the
    blob; one that is not is gone.
    """

    descriptor: Descriptor
    claims: tuple[Digest, ...]
    key: StreamKey
    record: StreamRecord | None
    pieces: Sequence[Piece] = ()
    lasting: bool = True


class BlobRecords:
    """Records of blobs, their aliases, and the streams that became them.

    Concurrency: any number of threads and processes; changes belong in worker threads.
    """

    def __init__(self, index: Environment) -> None:
        self._index = index
        self._blobs = index.table("blobs")
        self._aliases = index.table("aliases")
        self._streams = index.table("streams")
        self._presence = Presence(index)
        self._packed = Packed(BlobRecord)
        self._uses = UseTable(index)
        self._pins = PinTable(index)
        self.counter = Counter(index, BLOBS)
        """Counts the bytes that all blobs take."""

    def canonical(self, digest: Digest) -> Digest | None:
        """The canonical digest of the same bytes, None while nothing says which that is."""
        if digest.canonical:
            return digest
        raw = self._index.get(self._aliases, _alias(digest))
        return None if raw is None else Digest(CANONICAL, raw)

    def get(self, digest: Digest) -> BlobRecord | None:
        """The record of a canonical digest."""
        return self._packed.unpack(self._index.get(self._blobs, digest.raw))

    def has(self, snapshot: Snapshot, digest: Digest) -> bool:
        """Whether a snapshot has a record of a canonical digest."""
        return snapshot.get(self._blobs, digest.raw) is not None

    def recorded(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those of some canonical digests that have a record."""
        with self._index.read() as snapshot:
            return {digest for digest in digests if self.has(snapshot, digest)}

    def sizes(self, snapshot: Snapshot) -> Iterator[int]:
        """The sizes of all blobs that a snapshot has."""
        for _, raw in snapshot.scan(self._blobs, b"", b"\xff" * 33):
            record = self._packed.unpack(raw)
            if record is not None:
                yield record.size

    def items(self, digest: Digest) -> list[Item]:
        """A canonical blob, and the streams that it came as: who holds one of them holds it."""
        record = self.get(digest)
        names = () if record is None else record.streams
        return [Item.blob(digest), *(Item.stream(StreamKey(name)) for name in names)]

    def size_in(self, snapshot: Snapshot, digest: Digest) -> int:
        """The size of a canonical blob as a snapshot has it; 0 when it has none."""
        record = self._packed.unpack(snapshot.get(self._blobs, digest.raw))
        return 0 if record is None else record.size

    def digests(self) -> Iterator[Digest]:
        """All canonical digests, ascending, as they are when each page of them is read."""
        start = b""
        while True:
            page: list[bytes] = []
            with self._index.read() as snapshot:
                for key, _ in snapshot.scan(self._blobs, start, b"\xff" * 33):
                    page.append(key)
                    if len(page) == _PAGE:
                        break
            for raw in page:
                yield Digest(CANONICAL, raw)
            if len(page) < _PAGE:
                return
            start = page[-1] + b"\0"

    def admit(
        self, admitted: Iterable[Admitted]
    ) -> list[list[tuple[StreamKey, StreamRecord]] | None]:
        """Record verified blobs, their aliases, and the streams that are them, in one transaction.

        Returns:
            For each, the streams as they were, to remove their files. None when its stream is not
            on file as it was said to be; then nothing was recorded of it.
        """
        todo = tuple(admitted)
        return self._index.apply(lambda batch: [self._admit(batch, each) for each in todo])

    def _admit(
        self, batch: Batch, admitted: Admitted
    ) -> list[tuple[StreamKey, StreamRecord]] | None:
        record = None if admitted.record is None else admitted.record.pack()
        if batch.get(self._streams, bytes.fromhex(admitted.key)) != record:
            return None
        descriptor = admitted.descriptor
        strong = [claim for claim in admitted.claims if not claim.weak]
        names = [raw_stream(descriptor.digest), *map(raw_stream, strong)]
        if admitted.lasting:
            names.insert(0, admitted.key)
        if admitted.record is not None:
            source = owner_of(admitted.key, admitted.record)
            self._presence.copy(batch, source, blob_owner(descriptor.digest))
        pointed = [self._point(batch, name, descriptor) for name in dict.fromkeys(names)]
        if not admitted.lasting:
            pointed.append(self._drop(batch, admitted.key))
        self._record(batch, descriptor, strong, names)
        self._presence.describe(batch, blob_owner(descriptor.digest), admitted.pieces)
        return [each for each in pointed if each is not None]

    def restore(self, descriptor: Descriptor, pieces: Iterable[Piece] = ()) -> None:
        """Record a blob that was found and verified, with its canonical digest, and its pieces."""
        name = raw_stream(descriptor.digest)

        def change(batch: Batch) -> None:
            self._point(batch, name, descriptor)
            self._record(batch, descriptor, (), (name,))
            self._presence.describe(batch, blob_owner(descriptor.digest), pieces)

        self._index.apply(change)

    def _point(
        self, batch: Batch, name: StreamKey, descriptor: Descriptor
    ) -> tuple[StreamKey, StreamRecord] | None:
        """Make a stream be the blob; what it was, None when it was nothing or that blob."""
        raw_key = bytes.fromhex(name)
        raw = batch.get(self._streams, raw_key)
        old = None if raw is None else unpack_stream(raw)
        if old is not None and old.digest == descriptor.digest:
            return None
        file = descriptor.digest.raw[:8] if old is None else old.file
        generation = 0 if old is None else old.generation + 1
        new = StreamRecord(file, generation, descriptor.size, descriptor.digest)
        batch.put(self._streams, raw_key, new.pack())
        if old is None or old.digest is not None:
            return None
        self._presence.clear(batch, raw_key + old.file)
        self._uses.drop(batch, Item.stream(name))
        return name, old

    def _drop(self, batch: Batch, name: StreamKey) -> tuple[StreamKey, StreamRecord] | None:
        """Forget a stream; what it was, None when it was nothing or a blob."""
        raw_key = bytes.fromhex(name)
        raw = batch.get(self._streams, raw_key)
        old = None if raw is None else unpack_stream(raw)
        batch.delete(self._streams, raw_key)
        if old is None or old.digest is not None:
            return None
        self._presence.clear(batch, raw_key + old.file)
        self._uses.drop(batch, Item.stream(name))
        return name, old

    def _record(
        self,
        batch: Batch,
        descriptor: Descriptor,
        strong: Iterable[Digest],
        names: Iterable[StreamKey],
    ) -> None:
        old = self._packed.unpack(batch.get(self._blobs, descriptor.digest.raw))
        if old is None:
            old = BlobRecord(media_type=OCTETS, size=descriptor.size, admitted_ns=time.time_ns())
            self.counter.add(batch, charge(descriptor.size))
            self._uses.begin(batch, Item.blob(descriptor.digest))
        others = {str(claim) for claim in strong if not claim.canonical}
        new = replace(
            old,
            media_type=descriptor.media_type if old.media_type == OCTETS else old.media_type,
            aliases=tuple(sorted({*old.aliases, *others})),
            streams=tuple(dict.fromkeys((*old.streams, *names))),
        )
        batch.put(self._blobs, descriptor.digest.raw, self._packed.pack(new))
        for text in others:
            batch.put(self._aliases, _alias(Digest.parse(text)), descriptor.digest.raw)

    def delete(self, digest: Digest) -> bool:
        """Forget a blob, its aliases, and the streams that are it; whether there was one."""
        return self._index.apply(lambda batch: self.take_out(batch, digest), urgent=True)

    def take_out(self, batch: Batch, digest: Digest) -> bool:
        """``delete`` within a transaction of the index."""
        self._presence.clear(batch, blob_owner(digest))
        self._uses.drop(batch, Item.blob(digest))
        record = self._packed.unpack(batch.get(self._blobs, digest.raw))
        if record is None:
            return batch.delete(self._blobs, digest.raw)
        self.counter.add(batch, -charge(record.size))
        for text in record.aliases:
            batch.delete(self._aliases, _alias(Digest.parse(text)))
        for name in record.streams:
            raw = batch.get(self._streams, bytes.fromhex(name))
            if raw is not None and unpack_stream(raw).digest == digest:
                batch.delete(self._streams, bytes.fromhex(name))
        return batch.delete(self._blobs, digest.raw)

    def describe(self, digest: Digest, pieces: Iterable[Piece]) -> None:
        """Record what bytes of a canonical blob are; some at a time."""
        self._index.apply(lambda batch: self._presence.describe(batch, blob_owner(digest), pieces))

    def pieces(self, digest: Digest, span: Span) -> list[Piece]:
        """What the bytes of a canonical blob are that share a piece with a span."""
        with self._index.read() as snapshot:
            return self._presence.pieces(snapshot, blob_owner(digest), span)

    def demote(
        self, digest: Digest, key: StreamKey, record: StreamRecord, lost: Iterable[Span]
    ) -> bool:
        """Make a canonical blob a stream, without what it has lost; False when it is none any more.

        Args:
            digest: the blob's; its aliases, and the other streams that are it, are forgotten. What
                keeps it from being removed keeps the stream.
            key: the stream.
            record: what the stream is to be; its file has all the bytes.
            lost: spans of it that nothing may be read from.
        """
        owner, blob = owner_of(key, record), Item.blob(digest)

        def change(batch: Batch) -> bool:
            if batch.get(self._blobs, digest.raw) is None:
                return False
            self._presence.copy(batch, blob_owner(digest), owner)
            use = self._uses.get(batch, blob)
            self.take_out(batch, digest)
            whole = Span(0, record.size or 0)
            former = batch.get(self._streams, bytes.fromhex(key))
            if former is not None and unpack_stream(former).digest is None:
                # It was begun anew while the blob was away; its file goes when nothing names it.
                self._presence.clear(batch, owner_of(key, unpack_stream(former)))
            batch.put(self._streams, bytes.fromhex(key), record.pack())
            self._follow(batch, use, blob, Item.stream(key))
            self._presence.add(batch, owner, [whole], ())
            for span in lost:
                self._presence.remove(batch, owner, span)
            return True

        return self._index.apply(change, urgent=True)

    def _follow(self, batch: Batch, use: Use | None, blob: Item, stream: Item) -> None:
        """Keep a stream as the blob was kept that it is made of: pins, holds, its turn to go."""
        use = use or Use(stream, Rank.USUAL, time.time_ns())
        self._uses.put(batch, replace(use, item=stream, former=blob.digest))
        self._pins.follow(batch, blob, stream)


def _alias(digest: Digest) -> bytes:
    return digest.algorithm.encode() + b":" + digest.raw
