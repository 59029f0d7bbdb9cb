"""Drafts as records: what lies in streams' files, and is no part of them yet, so that it counts.

Who writes a draft notes it, once it lies there; who makes it part of the stream, or gives its space
back, forgets it. What a killed process has noted counts until somebody gives that space back. After
a power cut nothing is known of it: then it counts no more, and goes with the next gc all the same.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot
from cafs.store.tables import spans
from cafs.store.tables.counters import DRAFTS, Counter
from cafs.store.tables.presence import OWNER, owner_of
from cafs.store.tables.records import StreamRecord

_ALL: Final = Span(0, 1 << 62)


class Drafts:
    """The drafts of all streams, of this boot.

    Concurrency: any number of threads and processes; with a batch or a snapshot, as that of it.
    """

    def __init__(self, recent: Environment) -> None:
        self._recent = recent
        self._spans = recent.table("drafted")
        self.counter = Counter(recent, DRAFTS)
        """Counts their bytes; what two have drafted counts once."""

    def note(self, key: StreamKey, record: StreamRecord, span: Span) -> None:
        """Bytes lie in the stream's file. Call it with the file's gate held.

        Raises:
            StorageFullError: there is no room to note it.
            StorageError: it cannot be noted.
        """
        owner = owner_of(key, record)

        def change(batch: Batch) -> None:
            self.counter.add(batch, spans.add(batch, self._spans, owner, span))

        self._recent.apply(change)

    def forget(self, key: StreamKey, record: StreamRecord, gone: Iterable[Span] = (_ALL,)) -> None:
        """Bytes have gone from the stream's file, or all; or they are others' by now."""
        owner, each = owner_of(key, record), tuple(gone)
        self._recent.apply(lambda batch: self.remove(batch, owner, each), urgent=True)

    def remove(self, batch: Batch, owner: bytes, gone: Iterable[Span] = (_ALL,)) -> None:
        """``forget`` within a transaction, by the owner of the spans."""
        for span in gone:
            self.counter.add(batch, -spans.remove(batch, self._spans, owner, span))

    def of(self, key: StreamKey, record: StreamRecord) -> SpanSet:
        """Those of one stream's file."""
        with self._recent.read() as snapshot:
            return spans.recorded(snapshot, self._spans, owner_of(key, record))

    def owners(self, snapshot: Snapshot) -> Iterator[bytes]:
        """Whose files have any."""
        yield from spans.by_prefix(snapshot, self._spans, OWNER)

    def total(self, snapshot: Snapshot) -> int:
        """Their bytes, as the counter should say; looks at each."""
        return spans.total(snapshot, self._spans)
