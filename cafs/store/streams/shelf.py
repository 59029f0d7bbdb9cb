"""What all streams of one store share."""

from collections.abc import Callable
from typing import Final

import trio

from cafs.model.identity import StreamKey
from cafs.store.disk.door import remove
from cafs.store.disk.files import Files
from cafs.store.holds.holds import Holds
from cafs.store.streams.checkpointing import Checkpointer
from cafs.store.streams.demotion import Demotion
from cafs.store.streams.suspicion import Suspicion
from cafs.store.streams.witness import Share
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.uses import Uses

WRITES: Final = 4
"""Writes into stream files at one time; they copy into the page cache, which few threads fill."""


class Shelf:
    """What all streams of one store share. Everything in it may be called in worker threads."""

    def __init__(
        self,
        ledger: Ledger,
        files: Files,
        checkpointer: Checkpointer,
        demotion: Demotion,
        *,
        uses: Uses,
        holds: Holds,
    ) -> None:
        self.ledger = ledger
        self.demotion = demotion
        self.files = files
        self.checkpointer = checkpointer
        self.limiter = trio.CapacityLimiter(WRITES)
        self.uses = uses
        self.holds = holds
        self.suspicion = Suspicion()
        self.grown: Callable[[], None] = lambda: None
        """Called where the store has more than before."""
        self._written: dict[bytes, Share] = {}
        """What this process has put into each file. Several threads use it: each touches only the
        entry of a file whose gate, or whose last use, it has."""

    def filled(self, record: StreamRecord, count: int) -> None:
        """Count bytes that this process put into a file. Call it with the file's gate held."""
        self._written.setdefault(record.file, Share()).add(record, count)
        self.checkpointer.note(count)
        self.grown()

    def filled_alone(self, record: StreamRecord) -> bool:
        """Whether all bytes of the file came from this process, and none was ever taken out."""
        written = self._written.get(record.file)
        return written is not None and written.is_all(record)

    def forget(self, key: StreamKey, record: StreamRecord) -> None:
        """Let go of what is held in memory for a file that is no longer the stream's."""
        self._written.pop(record.file, None)
        self.suspicion.forget(key)
        self.files.forget(self.ledger.path(key, record))

    def discard(self, key: StreamKey, record: StreamRecord) -> None:
        """Forget the stream as the record has it, then remove its file. A blob stays a blob."""
        if self.ledger.remove(key, record):
            self.forget(key, record)
            if record.digest is None:
                remove(self.ledger.path(key, record))
