"""Pins: what a person has said is never to be removed.

A pin is on an item, or on a ref: then on everything that the store has of what the ref meant last,
whenever that came. Nothing that makes room takes what is pinned; only ``unpin`` ends a pin.
"""

import time
from collections.abc import Iterator, Sequence

import msgspec

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.item import Item
from cafs.store.db.environment import Environment
from cafs.store.space.belonging import Belongings
from cafs.store.tables.pin_table import ITEM, REF, PinRecord, PinTable
from cafs.store.tables.records import hashed
from cafs.store.tables.references import References


class Pin(msgspec.Struct, frozen=True):
    """A pin: of an item, or of the ref whose source key has the hash ``source``."""

    record: PinRecord
    item: Item | None = None
    source: bytes = b""


class Pins:
    """The pins of a store.

    Concurrency: any number of threads and processes.
    """

    def __init__(self, index: Environment, references: References, belongings: Belongings) -> None:
        self._index = index
        pins = PinTable(index)
        self._table = pins.pins
        self._packed = pins.packed
        self._references = references
        self._belongings = belongings
        self._known: tuple[int, frozenset[Item]] = (-1, frozenset())

    def pinned(self, item: Item) -> bool:
        """Whether an item is pinned now, by itself or as part of what a pinned ref meant last."""
        return item in self.items()

    def items(self) -> frozenset[Item]:
        """Every item that is pinned now. Blocks for microseconds while nothing is changed."""
        version = self._index.version()
        if self._known[0] != version:
            self._known = (version, frozenset(self._items()))
        return self._known[1]

    def _items(self) -> Iterator[Item]:
        for pin in self.all():
            yield from self.of(pin)
            if pin.item is not None and pin.item.digest is not None:
                # A blob in which the disk changed a byte is a stream until it is whole again.
                yield Item.stream(raw_stream(pin.item.digest))
                yield from (Item.stream(StreamKey(each)) for each in pin.record.streams)

    def of(self, pin: Pin) -> set[Item]:
        """What a pin is on, as far as it is in the store."""
        if pin.item is not None:
            return {pin.item}
        latest = self._references.latest_of(pin.source)
        if latest is None:
            return set()
        return self._belongings.items(latest, [Digest.parse(each) for each in pin.record.digests])

    def all(self) -> list[Pin]:
        """Every pin, in the order in which they were made."""
        found: list[Pin] = []
        for page in self._index.pages(self._table):
            for key, raw in page:
                record = self._packed.unpack(raw)
                if record is not None and key[:1] == ITEM:
                    found.append(Pin(record, item=Item(key[1:])))
                elif record is not None:
                    found.append(Pin(record, source=key[1:]))
        return sorted(found, key=lambda pin: pin.record.since_ns)

    def has_ref(self, source: bytes) -> bool:
        """Whether a ref is pinned, by the hash of its source key."""
        return self._index.get(self._table, REF + source) is not None

    async def pin(self, item: Item, name: str) -> None:
        """Pin an item; once pinned it stays so. ``name`` is for people.

        Cancellation: all or nothing.
        """
        await self._put(ITEM + item.key, PinRecord(name, time.time_ns()))

    async def pin_ref(self, source: str, name: str, digests: Sequence[Digest] = ()) -> None:
        """Pin what the ref of a source key means, now and later.

        Args:
            source: ``RefSpec.source``.
            name: for people, without secrets.
            digests: those that the ref insists on.

        Cancellation: all or nothing.
        """
        record = PinRecord(name, time.time_ns(), tuple(map(str, digests)))
        await self._put(REF + hashed(source), record)

    async def unpin(self, item: Item) -> bool:
        """End the pin of an item; whether there was one.

        Cancellation: all or nothing.
        """
        return await self._delete(ITEM + item.key)

    async def unpin_ref(self, source: str) -> bool:
        """End the pin of the ref of a source key; whether there was one.

        Cancellation: all or nothing.
        """
        return await self._delete(REF + hashed(source))

    async def end(self, pin: Pin) -> bool:
        """End a pin, as ``all`` tells it; whether it was there.

        Cancellation: all or nothing.
        """
        return await self._delete(REF + pin.source if pin.item is None else ITEM + pin.item.key)

    async def _put(self, key: bytes, record: PinRecord) -> None:
        value = self._packed.pack(record)
        await self._index.commit(lambda batch: batch.put(self._table, key, value), urgent=True)

    async def _delete(self, key: bytes) -> bool:
        return await self._index.commit(lambda batch: batch.delete(self._table, key), urgent=True)
