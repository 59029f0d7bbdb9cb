"""Means: what all downloads of one fetcher share."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cafs.fetch.budget import Budget
from cafs.fetch.overflow import Overflow
from cafs.fetch.rating import Ratings
from cafs.fetch.shortage import Shortage
from cafs.fetch.slots import Slots
from cafs.metrics import Metrics
from cafs.store.streams import Streams
from cafs.transport.retrying import RetryPolicy


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
    ratings: Ratings = field(default_factory=Ratings)
