"""References: what each ref meant, and when (R-6); apart from what URLs answered."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from cafs.model.resolved import Resolved
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot, after
from cafs.store.tables.records import Packed, hashed

_SERIAL: Final = struct.Struct(">Q")
KEPT: Final = 64
"""Meanings kept of one ref; older ones are forgotten."""


class References:
    """Resolutions by the spec's key, the latest and those before.

    Concurrency: any number of tasks and processes; the last to record is the latest.
    """

    def __init__(self, index: Environment) -> None:
        self._index = index
        self._table = index.table("references")
        self._packed = Packed(Resolved)

    def latest(self, key: str) -> Resolved | None:
        """What the ref meant last, None when it has never been resolved."""
        return self.latest_of(hashed(key))

    def latest_of(self, source: bytes) -> Resolved | None:
        """``latest``, by the hash of the key."""
        with self._index.read() as snapshot:
            last = self._last(snapshot, source)
        return None if last is None else self._packed.unpack(last[1])

    def _last(self, snapshot: Snapshot, prefix: bytes) -> tuple[bytes, bytes] | None:
        last = snapshot.floor(self._table, prefix + b"\xff" * _SERIAL.size)
        return last if last is not None and last[0].startswith(prefix) else None

    def history(self, key: str) -> list[Resolved]:
        """Everything that the ref meant, oldest first, at most ``KEPT``."""
        prefix = hashed(key)
        with self._index.read() as snapshot:
            raws = [raw for _, raw in snapshot.scan(self._table, prefix, after(prefix))]
        return [each for raw in raws if (each := self._packed.unpack(raw)) is not None]

    def all(self) -> Iterator[tuple[bytes, Resolved]]:
        """Every meaning on record with its place, of which ``source_of`` says whose it is.

        Refs come in any order, the meanings of one from the oldest to the latest.
        """
        for page in self._index.pages(self._table):
            for place, raw in page:
                resolved = self._packed.unpack(raw)
                if resolved is not None:
                    yield place, resolved

    def forget(self, places: Iterable[bytes], before_ns: int) -> set[bytes]:
        """Forget meanings by their places, but those that were found again later. Blocks.

        Returns:
            The places of those that stay.
        """
        gone = tuple(places)

        def change(batch: Batch) -> set[bytes]:
            kept: set[bytes] = set()
            for place in gone:
                known = self._packed.unpack(batch.get(self._table, place))
                if known is None or known.resolved_ns <= before_ns:
                    batch.delete(self._table, place)
                else:
                    kept.add(place)
            return kept

        return self._index.apply(change, urgent=True)

    def places(self, source: bytes) -> list[tuple[bytes, Resolved]]:
        """What a ref meant, by the hash of its key, with the places; the latest last."""
        with self._index.read() as snapshot:
            found = list(snapshot.scan(self._table, source, after(source)))
        return [(at, each) for at, raw in found if (each := self._packed.unpack(raw)) is not None]

    async def record(self, key: str, resolved: Resolved) -> None:
        """Record what the ref means now. The same meaning again only moves its time on.

        Cancellation: all or nothing.
        """
        prefix = hashed(key)
        value = self._packed.pack(resolved)

        def change(batch: Batch) -> None:
            serial = 0
            last = self._last(batch, prefix)
            if last is not None:
                serial = int(_SERIAL.unpack(last[0][-_SERIAL.size :])[0])
                old = self._packed.unpack(last[1])
                same = old is not None and (
                    replace(old, resolved_ns=resolved.resolved_ns) == resolved
                )
                serial += 0 if same else 1
            batch.put(self._table, prefix + _SERIAL.pack(serial), value)
            oldest = prefix + _SERIAL.pack(max(0, serial + 1 - KEPT))
            batch.clear(self._table, prefix, oldest, KEPT)

        await self._index.commit(change)


def source_of(place: bytes) -> bytes:
    """Whose meaning lies at a place: the hash of the spec's key."""
    return place[: -_SERIAL.size]
