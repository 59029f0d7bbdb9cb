"""Dropping: what a person wants out of the store now, whatever its age.

In this order, so that who is killed in between can begin again: bytes, trees, documents, and last
what says that they were ever there.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.resolved import Resolved
from cafs.store.space.measuring import Measurer, Owner
from cafs.store.space.parts import Parts
from cafs.store.space.removing import BATCH
from cafs.store.tables.documents import place_of

_SECOND_NS: Final = 10**9


class Dropped(msgspec.Struct, frozen=True):
    """What dropping came to, in bytes as they count against the quota.

    ``freed`` have gone. ``shared`` stay, because other refs have them, ``pinned`` and ``busy``
    because somebody has pinned them, or uses them now.
    """

    freed: int
    shared: int
    pinned: int
    busy: int


class Dropper:
    """Drops refs and items of one store. Everything here blocks; it belongs in worker threads.

    Concurrency: any number of threads and processes.
    """

    def __init__(self, parts: Parts, measurer: Measurer) -> None:
        self._parts = parts
        self._measurer = measurer

    def drop(self, owners: Sequence[Owner], items: Sequence[Item], *, force: bool) -> Dropped:
        """Drop what refs have, and items, but what other refs have too.

        Args:
            owners: the refs, with all that they ever meant.
            items: single ones.
            force: also what other refs have; never what is pinned or in use.

        Raises:
            StorageError: the store cannot be changed; what has gone is gone.
            OSError: the disk failed; likewise.
        """
        parts = self._parts
        sources = {owner.source for owner in owners}
        meanings = [each for source in sources for each in self._meanings(source)]
        wanted = {*items}.union(*(parts.belongings.items(each) for each in meanings))
        wanted = wanted.union(*(self._insisted(owner) for owner in owners))
        sizes = {item: parts.belongings.taken(item) for item in wanted}
        shared = set() if force else self._measurer.having(wanted, sources)
        pinned = (wanted - shared) & parts.pins.items()
        going = sorted(wanted - shared - pinned)
        for start in range(0, len(going), BATCH):
            parts.remover.remove(going[start : start + BATCH])
        busy = {item for item in going if parts.belongings.present(item)}
        if not busy and not pinned:
            self._forget(sources, meanings)
        gone = set(going) - busy
        freed, others, kept, used = (
            sum(sizes[item] for item in some) for some in (gone, shared, pinned, busy)
        )
        return Dropped(freed, others, kept, used)

    def _meanings(self, source: bytes) -> list[Resolved]:
        return [resolved for _, resolved in self._parts.references.places(source)]

    def _insisted(self, owner: Owner) -> set[Item]:
        if owner.resolved is None:
            return set()
        return self._parts.belongings.items(owner.resolved, owner.digests)

    def _forget(self, sources: set[bytes], meanings: Sequence[Resolved]) -> None:
        """Forget refs, and what only they led to. A live mount keeps what it shows."""
        parts = self._parts
        keys = set(self._keys(meanings))
        others = [owner.resolved for owner in self._measurer.known() if owner.source not in sources]
        still = [each for each in others if each is not None]
        meant = keys.intersection(self._keys(still))
        shown = parts.attachments.trees(parts.mounts.live())
        for tree in list(parts.trees.all()):
            raws = {stream.raw for stream in tree.streams}
            if raws and raws <= keys and not raws <= meant and tree.number not in shown:
                parts.trees.withdraw(tree)
                parts.trees.clear(tree.number)
        urls = {place_of(url) for each in meanings for part in each.parts for url in part.urls}
        urls -= {place_of(url) for each in still for part in each.parts for url in part.urls}
        now_ns = time.time_ns() + _SECOND_NS
        parts.documents.forget(urls, now_ns / 1e9)
        places = [place for source in sources for place, _ in parts.references.places(source)]
        parts.references.forget(places, now_ns)

    def _keys(self, meanings: Sequence[Resolved]) -> Iterator[StreamKey]:
        for each in meanings:
            for part in each.parts:
                yield from self._parts.belongings.keys(part)
