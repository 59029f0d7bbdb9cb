"""Members: content inside archives, found by its digest.

A first pass hashes each file that it reads, and what a zip holds is hashed when it is decoded. The
digests are ours, so whoever has an archive has its members, by their digests, without keeping them
twice. Only trees count whose raw content was checked as a whole: what stands in an index that
somebody else made says nothing here.

``members`` has a row for each: the digest's first 8 bytes and the tree's number, with the number of
the entry, or, for what was decoded by itself, with where it lies. ``contents`` has the digests of
the latter by where they lie; those of entries stand in the entries. ``numbers`` has the identity of
each tree by its number. Rows of a tree go with it; until then those of one that is not published
any more lead nowhere.
"""

import logging
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec
import trio

from cafs.errors import StorageError
from cafs.model.digest import CANONICAL, Digest
from cafs.model.member import Entry, Kind, Piece
from cafs.model.record import Segment, TreeRecord
from cafs.store.db.transactions import Batch, Snapshot, after
from cafs.store.tables.records import unpack_entry
from cafs.store.tables.tree_tables import (
    LEAD,
    TreeTables,
    content_key,
    entry_key,
    member_key,
    number_key,
    tree_in,
    unpack_number,
)

_PLACE: Final = struct.Struct(">BQQ")
_LOG: Final = logging.getLogger("cafs.store")
_PERIOD_S: Final = 1.0
_Learnt = tuple[int, int, Segment, bytes]
"""The tree, the stream, the segment in it, and the raw digest of that."""
_PAGE: Final = 64
"""Rows looked at in one transaction."""
_SPREAD: Final = 16
"""Trees that are looked at for one content: one is enough, and the others are for when it went."""


class MemberPlace(msgspec.Struct, frozen=True):
    """Where a member's bytes are: in the stream of that number of a tree, from ``offset`` on.

    ``size`` is that of the member in bytes; ``sparse`` as in ``Entry``.
    """

    tree: TreeRecord
    stream: int
    offset: int
    size: int
    sparse: tuple[Piece, ...] | None = None


class Members:
    """The members of all archives whose digests are known.

    Concurrency: any number of tasks, threads and processes.
    """

    def __init__(self, tables: TreeTables) -> None:
        self._tables = tables
        self._index = tables.index
        self._learnt: list[_Learnt] = []
        self._waiting = trio.Event()

    def find(self, digest: Digest) -> list[MemberPlace]:
        """Where content with a canonical digest is, in trees that are published; some of them."""
        if not digest.canonical:
            return []
        lead = digest.raw[:LEAD]
        found: list[MemberPlace] = []
        with self._index.read() as snapshot:
            rows = snapshot.scan(self._tables.members, lead, after(lead))
            for key, raw in islice(rows, _PAGE):
                place = self._place(snapshot, key, raw, digest.raw)
                if place is not None:
                    found.append(place)
                if len(found) == _SPREAD:
                    break
        return found

    def beginning(self, digits: str) -> Iterator[Digest]:
        """The digests of members that begin with some hex digits, ascending, each once."""
        even = len(digits) + len(digits) % 2
        start = bytes.fromhex(digits.ljust(even, "0"))[:LEAD]
        stop = after(bytes.fromhex(digits.ljust(even, "f"))[:LEAD])
        last = b""
        while True:
            with self._index.read() as snapshot:
                rows = list(islice(snapshot.scan(self._tables.members, start, stop), _PAGE))
                known = [
                    self._digest(snapshot, key, raw)
                    for key, raw in rows
                    if self._published(snapshot, tree_in(key)) is not None
                ]
            for raw in sorted(each for each in known if each):
                if raw > last and raw.hex().startswith(digits):
                    last = raw
                    yield Digest(CANONICAL, raw)
            if len(rows) < _PAGE:
                return
            start = rows[-1][0] + b"\0"

    def digest_at(self, tree: int, stream: int, offset: int) -> bytes:
        """The raw digest of what was decoded by itself there; empty while it is not known."""
        tables = self._tables
        return self._index.get(tables.contents, content_key(tree, stream, offset)) or b""

    def learn(self, tree: int, stream: int, segment: Segment, digest: bytes) -> None:
        """Note the digest of what was decoded from a tree's verified raw content.

        It is on record in a second: a reader of many small members would wait for a commit each.
        In the trio thread only.
        """
        self._learnt.append((tree, stream, segment, digest))
        self._waiting.set()

    async def keep(self) -> None:
        """Record what was learnt, again and again. It never returns.

        Cancellation: what was learnt and is not on record waits for ``flush``.
        """
        while True:
            await self._waiting.wait()
            self._waiting = trio.Event()
            await trio.sleep(_PERIOD_S)
            await self.flush()

    async def flush(self) -> None:
        """Record what was learnt. Where that fails it is forgotten: those are not found by digest.

        Cancellation: all or nothing.
        """
        learnt, self._learnt = self._learnt, []
        if not learnt:
            return
        try:
            await self._index.commit(lambda batch: self._record(batch, learnt))
        except StorageError as error:
            _LOG.info("store.members.unrecorded error=%s", error.line)

    def _record(self, batch: Batch, learnt: Sequence[_Learnt]) -> None:
        tables = self._tables
        for tree, stream, segment, digest in learnt:
            # Not for a tree that is going: nobody would remove it then.
            if batch.get(tables.numbers, number_key(tree)) is not None:
                place = _PLACE.pack(stream, segment.start, segment.length)
                batch.put(tables.contents, content_key(tree, stream, segment.start), digest)
                batch.put(tables.members, member_key(digest, tree), place)

    def _place(
        self, snapshot: Snapshot, key: bytes, raw: bytes, wanted: bytes
    ) -> MemberPlace | None:
        record = self._published(snapshot, tree_in(key))
        if record is None or self._digest(snapshot, key, raw) != wanted:
            return None
        if len(raw) == _PLACE.size:
            return MemberPlace(record, *_PLACE.unpack(raw))
        entry = self._entry(snapshot, key, raw)
        if entry is None or entry.kind is not Kind.FILE:
            return None
        return MemberPlace(record, entry.stream, entry.offset, entry.size, entry.sparse)

    def _published(self, snapshot: Snapshot, number: int) -> TreeRecord | None:
        """The tree of a number, if it is what its identity means, and was checked as a whole."""
        tables = self._tables
        identity = snapshot.get(tables.numbers, number_key(number))
        if identity is None:
            return None
        record = tables.records.unpack(snapshot.get(tables.trees, identity))
        checked = record is not None and record.number == number and record.digest is not None
        return record if checked else None

    def _digest(self, snapshot: Snapshot, key: bytes, raw: bytes) -> bytes:
        """The whole digest of the member that a row is of."""
        if len(raw) == _PLACE.size:
            stream, offset, _ = _PLACE.unpack(raw)
            where = content_key(tree_in(key), stream, offset)
            return snapshot.get(self._tables.contents, where) or b""
        entry = self._entry(snapshot, key, raw)
        return b"" if entry is None else entry.sha256

    def _entry(self, snapshot: Snapshot, key: bytes, raw: bytes) -> Entry | None:
        number = unpack_number(raw)
        packed = snapshot.get(self._tables.entries, entry_key(tree_in(key), number))
        return None if packed is None else unpack_entry(packed)
