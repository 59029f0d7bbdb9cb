"""Means: what all downloads of one fetcher share."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from cafs.fetch.flights.doubts import Doubts
from cafs.fetch.flights.overflow import Overflow
from cafs.fetch.flights.shortage import Shortage
from cafs.fetch.flights.turns import Turns
from cafs.fetch.sources.budget import Budget
from cafs.fetch.sources.rating import Ratings
from cafs.fetch.sources.slots import Slots
from cafs.labour import Threads
from cafs.metrics import Metrics
from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.store.streams.streams import Streams
from cafs.transport.retrying import RetryPolicy

LEAST_AHEAD: Final = 1 << 20
"""Bytes that may be fetched ahead of a reader, however small the store: what he asks for next."""
_SHARE: Final = 4
"""The part of the quota that is fetched ahead of one reader at most."""
_WAITING: Final = 8
"""Decoders that fetch their input as they go, at most: only where it has no room as a whole."""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """Where bytes go, who may fetch how much and when, and what is known of the hosts.

    Who decodes has threads of its own: what it waits for, from the store or from a source, needs
    those that all share. ``decoders`` have all of their input here; so none waits for long, and
    more than there are cores would only take memory. ``waiters`` fetch it as they go.
    """

    streams: Streams
    slots: Slots
    budget: Budget
    policy: RetryPolicy
    metrics: Metrics
    overflow: Overflow
    shortage: Shortage
    settled: Callable[[], Awaitable[None]]
    """Waits a moment where others make room."""
    bounds: Callable[[], Bounds] = lambda: UNBOUNDED
    """How much the store may have now."""
    ratings: Ratings = msgspec.field(default_factory=Ratings)
    doubts: Doubts = msgspec.field(default_factory=Doubts)
    turns: Turns = msgspec.field(default_factory=Turns)
    decoders: Threads = msgspec.field(default_factory=lambda: Threads(_cores() + 2))
    waiters: Threads = msgspec.field(default_factory=partial(Threads, _WAITING))

    def fits(self, size: int) -> bool:
        """Whether so many bytes may be in the store at once, whatever has to go for it."""
        quota = self.bounds().quota
        return quota is None or size <= quota

    def ahead(self) -> int | None:
        """Bytes that may be fetched ahead of one reader: a share of the quota; None for any."""
        quota = self.bounds().quota
        return None if quota is None else max(LEAST_AHEAD, quota // _SHARE)
