"""Opening: a fetcher over a store, for as long as somebody has it open."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from cafs.fetch.content.exposing import Exposures
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.sources.budget import Account, Budget
from cafs.metrics import Metrics
from cafs.model.pacing import USUAL as PACING, Pacing
from cafs.store.store import Store
from cafs.transport.retrying import RetryPolicy

_POLICY: Final = RetryPolicy()


@asynccontextmanager
async def open_fetcher(
    store: Store,
    metrics: Metrics,
    *,
    budget: int | None = None,
    mount: int | None = None,
    offline: bool = False,
    policy: RetryPolicy = _POLICY,
    pacing: Pacing = PACING,
    look_in: Sequence[Path] = (),
) -> AsyncIterator[Fetcher]:
    """Open a fetcher over a store.

    Args:
        store: where everything goes.
        metrics: counts.
        budget: bytes that may be fetched; None for any number.
        mount: for whose life that is meant, by its number; None for this fetcher's own.
        offline: whether nothing may be fetched.
        policy: how failed requests are made again. Its transports should not retry by themselves:
            here it is known who waits for how long, and which source comes next.
        pacing: how many requests are made at once, and how much prefetches receive.
        look_in: other stores and OCI layouts, where content is looked for before it is fetched.

    Cancellation: everything under way ends; what has come stays.
    """
    account = None if mount is None else Account(store.mounts, mount)
    allowance = Budget(budget, offline=offline, account=account)
    exposures = None if mount is None else Exposures(store.attachments, mount)
    try:
        async with trio.open_nursery() as nursery:
            if account is not None:
                nursery.start_soon(allowance.keep)
            yield Fetcher(
                nursery,
                store,
                metrics,
                allowance,
                policy,
                pacing=pacing,
                look_in=look_in,
                exposures=exposures,
            )
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Nothing in the nursery raises but its body: what that raised goes out as it was.
        if len(group.exceptions) == 1:
            failure = group.exceptions[0]
            raise failure from failure.__cause__
        raise
