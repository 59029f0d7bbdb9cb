"""Measuring: how much of a store each ref has, alone or together with others.

What counts is what the store counts against its quota: blobs by the disk blocks that they fill,
streams by the bytes that are present.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from cafs.model.digest import Digest
from cafs.model.item import Item
from cafs.model.resolved import Resolved
from cafs.store.space.parts import Parts
from cafs.store.tables.references import source_of


@dataclass(frozen=True, slots=True)
class Owner:
    """A ref that is to be measured.

    ``source`` is the hash of its source key, ``name`` is for people. ``digests`` are those that it
    insists on. ``resolved`` is what it meant last, None when that is not known.
    """

    name: str
    source: bytes
    resolved: Resolved | None
    digests: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What the store has for a ref, in bytes: all of it, and what other refs have too."""

    owner: Owner
    total: int
    shared: int

    @property
    def unique(self) -> int:
        """What nobody else has."""
        return self.total - self.shared


class Measurement(msgspec.Struct, frozen=True):
    """What the store has, in bytes: for each ref, for all of these together, and at all."""

    refs: tuple[Measured, ...]
    listed: int
    total: int

    @property
    def other(self) -> int:
        """What none of these refs has."""
        return max(0, self.total - self.listed)


class Measurer:
    """Measures one store. Everything here blocks; it belongs in worker threads.

    Concurrency: any number of threads and processes; what changes meanwhile is in or not.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def known(self) -> Iterator[Owner]:
        """Every ref that the store knows, by what it meant last."""
        last: tuple[bytes, Resolved] | None = None
        for place, resolved in self._parts.references.all():
            if last is not None and source_of(last[0]) != source_of(place):
                yield Owner("", source_of(last[0]), last[1])
            last = (place, resolved)
        if last is not None:
            yield Owner("", source_of(last[0]), last[1])

    def measure(self, owners: Sequence[Owner]) -> Measurement:
        """Measure refs; what any other ref of the store has too counts as shared."""
        had = [self._items(owner) for owner in owners]
        counts = Counter(item for items in had for item in items)
        listed = {owner.source for owner in owners}
        for owner in self.known():
            if owner.source not in listed:
                counts.update(item for item in self._items(owner) if item in counts)
        sizes = {item: self._parts.belongings.taken(item) for item in counts}
        refs = tuple(
            Measured(
                owner,
                sum(sizes[item] for item in items),
                sum(sizes[item] for item in items if counts[item] > 1),
            )
            for owner, items in zip(owners, had, strict=True)
        )
        return Measurement(refs, sum(sizes.values()), self._parts.room.usage().total)

    def alone(self, owners: Sequence[Owner]) -> tuple[set[Item], set[Item]]:
        """What only these refs have, and what others have too."""
        mine = {item for owner in owners for item in self._items(owner)}
        sources = {owner.source for owner in owners}
        others = self.having(mine, sources)
        return mine - others, others

    def having(self, items: Iterable[Item], without: set[bytes]) -> set[Item]:
        """Those of some items that refs have, but for some refs, by their sources."""
        wanted = set(items)
        return {
            item
            for owner in self.known()
            if owner.source not in without
            for item in self._items(owner) & wanted
        }

    def _items(self, owner: Owner) -> set[Item]:
        if owner.resolved is None:
            return self._parts.belongings.named(owner.digests)
        return self._parts.belongings.items(owner.resolved, owner.digests)
