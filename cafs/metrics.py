"""Counters: declared here once, counted anywhere, shown by ``cafs status``.

A counter is a plain integer that one trio run adds to; reading them is a dict. Names are
``band.thing`` and stable.
"""

from collections import Counter
from typing import Final

DECLARED: Final = {
    "fetch.bytes": "bytes received from sources",
    "fetch.found": "bytes copied from other stores on this machine, and not fetched",
    "fetch.requests": "requests sent to sources",
    "fetch.retries": "requests sent again after a failure",
    "fetch.joined": "reads that waited for a fetch that was under way",
    "fetch.hits": "reads answered from the store",
    "fetch.misses": "reads that had to wait for bytes",
    "fetch.verified": "bytes checked against a digest",
    "transport.fresh": "URLs used within their max-age, without a request",
    "transport.revalidated": "URLs found unchanged (304)",
    "vfs.errors": "requests answered with an error that was expected",
    "fuse.bugs": "requests answered EIO because of an unexpected exception",
}
"""Every counter but ``fuse.<operation>`` (requests of that kind that reached the worker)."""


class Metrics:
    """Counts by name; a name that is not declared is an error.

    Concurrency: one trio run; ``add`` never awaits.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        """Add to a counter.

        Raises:
            KeyError: the counter is not declared.
        """
        if name not in DECLARED and not name.startswith("fuse."):
            raise KeyError(name)
        self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def snapshot(self) -> dict[str, int]:
        """All declared counters and those of the operations, sorted by name."""
        return {name: self._counts[name] for name in sorted({*DECLARED, *self._counts})}
