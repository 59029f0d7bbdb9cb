"""A fetcher over a real store, and content at a real origin."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Source
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.model.record import TreeRecord
from cafs.model.resolved import Part
from cafs.model.spec import Verify
from cafs.store.store import Store, open_store
from cafs.store.tenancy import lasting
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.metering import Metering
from cafs.transport.retrying import RetryPolicy
from cafs.transport.revalidating import Locator

QUICK = RetryPolicy(retries=4, initial_s=0.01, cap_s=0.05, jitter=False)
USUAL = Patience(60.0)


@dataclass
class Rig:
    """One process's worth: a store, a fetcher, a transport."""

    origin: Origin
    store: Store
    metrics: Metrics
    fetcher: Fetcher
    transport: Metering
    locator: Locator

    async def located(self, url: str, locator: Locator | None = None) -> Content:
        """The content at a URL, without a pin; it uses what came with the answer."""
        found = await (locator or self.locator).locate(url, pull="update")
        part, sources, first = found.part, [Source(self.transport, url)], found.head_response

        async def learned(descriptor: Descriptor) -> None:
            await self.locator.learned(url, descriptor)

        if first is not None:
            await self.fetcher.lend(part, sources, first, name=url, learned=learned)
        return await self.fetcher.content(part, sources, name=url, learned=learned)

    async def pinned(
        self,
        digest: Digest,
        size: int | None,
        *urls: str,
        ranges: bool = True,
        verify: Verify = "block",
    ) -> Content:
        """The content with a digest."""
        part = Part(
            media_type="application/x-test", size=size, digest=digest, urls=urls, ranges=ranges
        )
        sources = [Source(self.transport, url) for url in urls]
        name = urls[0] if urls else str(digest)
        return await self.fetcher.content(part, sources, name=name, verify=verify)

    async def plant(self, raw: Content, patience: Patience = USUAL) -> TreeRecord:
        """The archive's tree."""
        return await self.fetcher.plant(
            raw, name=raw.name, media_type="application/x-test", patience=patience
        )


@asynccontextmanager
async def open_rig(
    origin: Origin,
    path: Path,
    *,
    budget: int | None = None,
    offline: bool = False,
    stall_s: float = 20.0,
    policy: RetryPolicy = QUICK,
    look_in: Sequence[Path] = (),
    bounds: Bounds = UNBOUNDED,
    mount: str | None = None,
) -> AsyncIterator[Rig]:
    """A rig over the store at a path; ``mount`` is the key of the one that it is a worker of."""
    metrics = Metrics()
    limits = HttpLimits(connect_s=20.0, head_s=stall_s, stall_s=stall_s)
    transport = Metering(HttpTransport(limits=limits), metrics)
    try:
        async with (
            open_store(path, bounds=bounds) as store,
            _mounted(store, mount) as number,
            open_fetcher(
                store,
                metrics,
                budget=budget,
                mount=number,
                offline=offline,
                policy=policy,
                look_in=look_in,
            ) as fetcher,
        ):
            locator = Locator(transport, store.documents, metrics)
            yield Rig(origin, store, metrics, fetcher, transport, locator)
    finally:
        await transport.aclose()


@asynccontextmanager
async def _mounted(store: Store, key: str | None) -> AsyncIterator[int | None]:
    if key is None:
        yield None
        return
    async with lasting(store, description=key, key=key, view="/") as number:
        yield number


@pytest.fixture
async def rig(origin: Origin, tmp_path: Path) -> AsyncIterator[Rig]:
    """The usual one."""
    async with open_rig(origin, tmp_path / "store") as one:
        yield one


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what another thread or task brings about."""
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 - the origin's thread cannot set a trio event
            await trio.sleep(0.003)


async def read_all(content: Content, step: int = 128 << 10) -> bytes:
    """Everything, front to back."""
    return b"".join(
        [await content.read(offset, step, USUAL) for offset in range(0, content.size, step)]
    )
