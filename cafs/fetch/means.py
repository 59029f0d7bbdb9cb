"""Means: what all downloads of one fetcher share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from cafs.fetch.budget import Budget
from cafs.fetch.overflow import Overflow
from cafs.fetch.rating import Ratings
from cafs.fetch.shortage import Shortage
from cafs.fetch.slots import Slots
from cafs.metrics import Metrics
from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.store.streams import Streams
from cafs.transport.retrying import RetryPolicy

LEAST_AHEAD: Final = 1 << 20
"""Bytes that may be fetched ahead of a reader, however small the store: what he asks for next."""
_SHARE: Final = 4
"""The part of the quota that is fetched ahead of one reader at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Where bytes go, who may fetch how much and when, and what is known of the hosts."""

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
    ratings: Ratings = field(default_factory=Ratings)

    def fits(self, size: int) -> bool:
        """Whether so many bytes may be in the store at once, whatever has to go for it."""
        quota = self.bounds().quota
        return quota is None or size <= quota

    def ahead(self) -> int | None:
        """Bytes that may be fetched ahead of one reader: a share of the quota; None for any."""
        quota = self.bounds().quota
        return None if quota is None else max(LEAST_AHEAD, quota // _SHARE)
