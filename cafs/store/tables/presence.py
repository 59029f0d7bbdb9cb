"""Presence: which bytes of a stream one environment vouches for, and what they were.

Spans say what is there (``spans``), pieces what it was (``sums``); they change together. A blob is
there as a whole, so it has pieces alone.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot
from cafs.store.tables import spans, sums
from cafs.store.tables.counters import SPANS, Counter
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import Piece

OWNER: Final = 40
"""Length of an owner: a stream's key and its file's name, or a digest and as many zeros."""


def owner_of(key: StreamKey, record: StreamRecord) -> bytes:
    """Whose the spans and pieces are of a stream, or of the blob that it has become."""
    if record.digest is not None:
        return blob_owner(record.digest)
    return bytes.fromhex(key) + record.file


def blob_owner(digest: Digest) -> bytes:
    """Whose the pieces of a blob are, by its canonical digest."""
    return digest.raw + bytes(OWNER - len(digest.raw))


class Presence:
    """What one environment has of all streams.

    Concurrency: as that of the snapshots and batches that it is given.
    """

    def __init__(self, environment: Environment) -> None:
        self._spans = environment.table("spans")
        self._sums = environment.table("sums")
        self.counter = Counter(environment, SPANS)
        """Counts the bytes of all spans."""

    def covers(self, snapshot: Snapshot, owner: bytes, span: Span) -> bool:
        """Whether one recorded span has all of ``span``."""
        return spans.covers(snapshot, self._spans, owner, span)

    def touching(self, snapshot: Snapshot, owner: bytes, span: Span) -> list[Span]:
        """The recorded spans that share a byte with ``span`` or lie against it, ascending."""
        return spans.touching(snapshot, self._spans, owner, span)

    def recorded(self, snapshot: Snapshot, owner: bytes) -> SpanSet:
        """All spans of an owner."""
        return spans.recorded(snapshot, self._spans, owner)

    def by_owner(self, snapshot: Snapshot) -> dict[bytes, SpanSet]:
        """All spans that there are."""
        return spans.by_prefix(snapshot, self._spans, OWNER)

    def total(self, snapshot: Snapshot) -> int:
        """The bytes of all spans, as the counter should say; looks at each."""
        return spans.total(snapshot, self._spans)

    def shared(self, snapshot: Snapshot, other: "Presence", theirs: Snapshot) -> int:
        """How many bytes of all spans another environment has too."""
        return sum(
            SpanSet(other.touching(theirs, owner, span)).intersection(span).total
            for owner, each in self.by_owner(snapshot).items()
            for span in each
        )

    def pieces(self, snapshot: Snapshot, owner: bytes, span: Span) -> list[Piece]:
        """The pieces that share a byte with ``span``, ascending."""
        return sums.touching(snapshot, self._sums, owner, span)

    def all_pieces(self, snapshot: Snapshot, owner: bytes) -> Iterator[Piece]:
        """All pieces of an owner, ascending; of a large one there are very many."""
        return sums.recorded(snapshot, self._sums, owner)

    def add(self, batch: Batch, owner: bytes, new: Iterable[Span], pieces: Iterable[Piece]) -> None:
        """Record spans, and what their bytes are."""
        self.counter.add(batch, sum(spans.add(batch, self._spans, owner, span) for span in new))
        sums.add(batch, self._sums, owner, pieces)

    def describe(self, batch: Batch, owner: bytes, pieces: Iterable[Piece]) -> None:
        """Record what bytes are that are there already."""
        sums.add(batch, self._sums, owner, pieces)

    def copy(self, batch: Batch, source: bytes, target: bytes) -> None:
        """Record of one owner's bytes what is recorded of another's."""
        sums.copy(batch, self._sums, source, target)

    def remove(self, batch: Batch, owner: bytes, span: Span) -> None:
        """Forget a span, and every piece that shares a byte with it."""
        self.counter.add(batch, -spans.remove(batch, self._spans, owner, span))
        sums.remove(batch, self._sums, owner, span)

    def hand_on(self, batch: Batch, owner: bytes, span: Span) -> None:
        """Forget a span that another environment has now, and the pieces that lie inside.

        A piece that reaches beyond has been joined with one that was written since.
        """
        self.counter.add(batch, -spans.remove(batch, self._spans, owner, span))
        sums.remove(batch, self._sums, owner, span, inside=True)

    def clear(self, batch: Batch, owner: bytes) -> None:
        """Forget everything of an owner."""
        self.counter.add(batch, -spans.clear(batch, self._spans, owner))
        sums.clear(batch, self._sums, owner)
