"""Prefixes: which digests of the store begin with some hex digits (R-23)."""

from collections.abc import Iterator
from itertools import islice

from cafs.model.digest import CANONICAL, SIZES, Digest
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import after

_PAGE = 64
"""Digests listed in one transaction."""


class Prefixes:
    """Finds digests by how they begin, by one look at their place in an ordered table.

    Concurrency: any number of tasks, threads and processes.
    """

    def __init__(self, index: Environment) -> None:
        self._index = index
        self._blobs = index.table("blobs")
        self._aliases = index.table("aliases")

    def blobs(self, algorithm: str, digits: str) -> Iterator[Digest]:
        """The digests of blobs on record that begin so, ascending, as they are when it is asked.

        Args:
            algorithm: one of ``SIZES``.
            digits: lower-case hex, at least one digit.
        """
        canonical = algorithm == CANONICAL
        table = self._blobs if canonical else self._aliases
        lead = b"" if canonical else algorithm.encode() + b":"
        even = len(digits) + len(digits) % 2
        start = lead + bytes.fromhex(digits.ljust(even, "0"))
        stop = after(lead + bytes.fromhex(digits.ljust(even, "f")))
        while True:
            with self._index.read() as snapshot:
                keys = [key for key, _ in islice(snapshot.scan(table, start, stop), _PAGE)]
            for key in keys:
                if len(key) == len(lead) + SIZES[algorithm]:
                    yield Digest(algorithm, key[len(lead) :])
            if len(keys) < _PAGE:
                return
            start = keys[-1] + b"\0"
