"""The records of pins, for what changes them together with other records."""

from dataclasses import dataclass, replace
from typing import Final

from cafs.model.item import Item
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.tables.records import Packed

ITEM: Final = b"i"
"""What the key of a pin of an item begins with."""
REF: Final = b"r"


@dataclass(frozen=True, slots=True)
class PinRecord:
    """What is pinned, for people; since when, in ns since the epoch.

    ``digests`` are, of a ref, those that its settings insist on, as text. ``streams`` are, of a
    blob, those that it has been since, when a disk had changed it.
    """

    name: str
    since_ns: int
    digests: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()


class PinTable:
    """The records of pins, by what is pinned.

    Concurrency: as that of the batches that it is given.
    """

    def __init__(self, index: Environment) -> None:
        self.pins = index.table("pins")
        self.packed = Packed(PinRecord)

    def follow(self, batch: Batch, blob: Item, stream: Item) -> None:
        """Let a pin of a blob, if there is one, be on the stream too that it becomes."""
        key = ITEM + blob.key
        record = self.packed.unpack(batch.get(self.pins, key))
        if record is not None and stream.stream_key is not None:
            streams = tuple(sorted({*record.streams, stream.stream_key}))
            batch.put(self.pins, key, self.packed.pack(replace(record, streams=streams)))
