"""Choosing: what is let go of first when there is too much. Removes nothing, and locks nothing.

In this order (``uses.Rank``): raw bytes of which what was decoded is here; the rest, by last use;
what nobody knows how to fetch again. What somebody holds or has pinned is spared. Of a large
stream, and of one that is in use, ranges go, from its front: who reads it goes forward.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import msgspec
import trio

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.holds.holds import GRAIN, Holds
from cafs.store.space.removing import BATCH, Remover
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.counters import charge
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.sums import PIECE
from cafs.store.tables.uses import Rank, Uses

LARGE: Final = 64 << 20
"""Bytes of a stream of which ranges go, not the whole."""
RANGE: Final = 4 << 20
"""Bytes of a large stream that go together."""
PAGE: Final = 256
"""Items looked at in one transaction, and between two looks at whether anybody still waits."""
_SPARED: Final = 64
"""Items that are remembered to have been spared, those last found, for each reason."""


class Choice(msgspec.Struct):
    """What is to go: whole items, and ranges of streams. ``count`` is about how many bytes."""

    items: list[Item] = msgspec.field(default_factory=list)
    ranges: list[tuple[StreamKey, list[Span]]] = msgspec.field(default_factory=list)
    count: int = 0

    def is_full(self) -> bool:
        """Whether it is a batch."""
        return len(self.items) + len(self.ranges) >= BATCH


class Spared(msgspec.Struct):
    """Some of what might have gone, had nobody pinned or held it."""

    pinned: deque[Item] = msgspec.field(default_factory=lambda: deque(maxlen=_SPARED))
    held: deque[Item] = msgspec.field(default_factory=lambda: deque(maxlen=_SPARED))


class Chooser:
    """Chooses. Everything here blocks; for worker threads of a trio run.

    Concurrency: any number of threads. What is chosen may be in use a moment later: who removes it
    looks again.
    """

    def __init__(
        self,
        index: Environment,
        *,
        ledger: Ledger,
        records: BlobRecords,
        uses: Uses,
        holds: Holds,
        remover: Remover,
        pinned: Callable[[Item], bool],
    ) -> None:
        self._index = index
        self._ledger = ledger
        self._records = records
        self._uses = uses
        self._holds = holds
        self._remover = remover
        self._pinned = pinned

    def choose(self, place: bytes, count: int, spared: Spared) -> tuple[Choice, bytes]:
        """What of the items behind a place goes first, and where to go on; empty at the end.

        Args:
            place: where in the order to begin, empty for its front.
            count: bytes that are wanted.
            spared: gets what is in use.

        Raises:
            StorageError: the records are damaged.

        Cancellation: between two pages.
        """
        choice = Choice()
        while not choice.is_full() and choice.count < count:
            trio.from_thread.check_cancelled()
            with self._index.read() as snapshot:
                page = list(islice(self._uses.table.oldest(snapshot, place), PAGE))
            for here, item in page:
                place = here
                self._consider(item, here[0] == Rank.SPENT, choice, count, spared)
                if choice.is_full() or choice.count >= count:
                    return choice, place
            if len(page) < PAGE:
                return choice, b""
        return choice, place

    def still(self, choice: Choice) -> Choice:
        """A choice without what was pinned since; who removes finds out what is held."""
        items = [item for item in choice.items if not self._pinned(item)]
        ranges = [each for each in choice.ranges if not self._pinned(Item.stream(each[0]))]
        return Choice(items, ranges, choice.count)

    def any_may_go(self, spared: Spared) -> bool:
        """Whether any of what was spared is not in use any more."""
        return any(
            not self._pinned(item) and not self._in_use(item)
            for item in (*spared.held, *spared.pinned)
        )

    def _in_use(self, item: Item) -> bool:
        names = self._remover.names(item)
        return self._uses.reading(item) or any(map(self._holds.held, names))

    def _consider(
        self, item: Item, spent: bool, choice: Choice, count: int, spared: Spared
    ) -> None:
        """Choose an item, or ranges of it, if it may go."""
        if self._pinned(item):
            spared.pinned.append(item)
            return
        if spent and not self._is_spent(item):
            return
        in_use, before = self._in_use(item), choice.count
        if item.stream_key is not None:
            self._take_stream(item.stream_key, in_use, choice, count)
        elif not in_use and item.digest is not None:
            record = self._records.get(item.digest)
            if record is not None:
                choice.items.append(item)
                choice.count += charge(record.size)
        if in_use and choice.count == before:
            spared.held.append(item)

    def _take_stream(self, key: StreamKey, in_use: bool, choice: Choice, count: int) -> None:
        item, present = Item.stream(key), self._ledger.present(key)
        if not self._remover.holes or not (in_use or present.total > LARGE):
            if not in_use:
                choice.items.append(item)
                choice.count += present.total
            return
        ranges = list(self._ranges(item, present, count - choice.count))
        if ranges:
            choice.ranges.append((key, ranges))
            choice.count += sum(present.intersection(each).total for each in ranges)

    def _is_spent(self, item: Item) -> bool:
        """Whether what was decoded of an item is still whole; else it is as others from now on."""
        use = self._uses.last(item)
        if use is not None and use.decoded is not None:
            record = self._ledger.record(use.decoded)
            if record is not None and self._ledger.whole(use.decoded, record):
                return True
        self._uses.rank(item, Rank.USUAL)
        return False

    def _ranges(self, item: Item, present: SpanSet, count: int) -> Iterator[Span]:
        """Ranges of a stream that nobody holds, from its front, until they have ``count`` bytes."""
        last = max(present.bounds, default=0)
        for start in range(0, last, RANGE):
            whole = Span(start, min(start + RANGE, -(-last // PIECE) * PIECE))
            for each in [whole] if not self._holds.held(item, whole) else _grains(whole):
                here = present.intersection(each).total
                if here and not self._holds.held(item, each):
                    yield each
                    count -= here
                if count <= 0:
                    return


def _grains(span: Span) -> list[Span]:
    """The parts of a range that are held apart from each other."""
    return [
        Span(start, min(start + GRAIN, span.stop)) for start in range(span.start, span.stop, GRAIN)
    ]
