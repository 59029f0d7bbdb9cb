"""Counting anew what counters say, where a disk has damaged a record, or nobody has counted yet.

Others go on meanwhile: what a counter lacks is the same before and after their changes, so that it
is enough to learn it from one snapshot. A counter that is not there says zero from the beginning,
so that it follows their changes; a mark says for so long that it is not to be believed, also when
whoever counts is killed.
"""

from collections.abc import Callable, Sequence
from typing import Final

from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, Snapshot
from cafs.store.tables.counters import Counter

_MARK: Final = b"being counted"


class Count:
    """Counts one environment anew.

    Args:
        environment: which.
        counters: its counters, each with what looks at every record for it.

    Concurrency: ``run`` is for one at a time, in a worker thread, of all processes.
    """

    def __init__(
        self,
        environment: Environment,
        counters: Sequence[tuple[Counter, Callable[[Snapshot], int]]],
    ) -> None:
        self._environment = environment
        self._table = environment.table("counters")
        self._counters = counters

    def known(self, snapshot: Snapshot) -> bool:
        """Whether all counters can be believed."""
        said = (counter.get(snapshot) is not None for counter, _ in self._counters)
        return all(said) and snapshot.get(self._table, _MARK) is None

    def run(self) -> int:
        """Count, and correct the counters; by how many bytes they were wrong.

        Raises:
            StorageError: the records cannot be read or changed.
        """
        with self._environment.read() as snapshot:
            known = self.known(snapshot)
        if not known:
            self._environment.apply(self._begin, urgent=True)
        with self._environment.read() as snapshot:
            lacking = [
                total(snapshot) - (counter.get(snapshot) or 0) for counter, total in self._counters
            ]

        def correct(batch: Batch) -> None:
            for (counter, _), count in zip(self._counters, lacking, strict=True):
                counter.add(batch, count)
            batch.delete(self._table, _MARK)

        if any(lacking) or not known:
            self._environment.apply(correct, urgent=True)
        return sum(map(abs, lacking))

    def _begin(self, batch: Batch) -> None:
        batch.put(self._table, _MARK, b"")
        for counter, _ in self._counters:
            if counter.get(batch) is None:
                counter.put(batch, 0)
