"""A store, and all that fetches into it over real sockets, but for the file system on top."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Source
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.descriptor import Descriptor
from cafs.model.digest import digest_of
from cafs.model.resolved import Part
from cafs.model.spec import Pull
from cafs.store.store import Store, open_store
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.metering import Metering
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from cafs.transport.retrying import Retrying, RetryPolicy
from cafs.transport.revalidating import Locator

NOW: Final = 1_800_000_000.0
QUICK: Final = RetryPolicy(retries=2, initial_s=0.01, jitter=False, retry_after_cap_s=0.01)
HURRY: Final = Patience(5.0)
CALM: Final = HttpLimits(connect_s=5.0, head_s=5.0, stall_s=5.0)
HASTY: Final = HttpLimits(connect_s=5.0, head_s=0.2, stall_s=0.2)


class Bench:
    """A store, and what fetches into it."""

    def __init__(self, store: Store, fetcher: Fetcher, transport: Redirecting, now: float) -> None:
        metrics = Metrics()
        self.fetcher = fetcher
        self.transport = transport
        self.seen_whole = trio.Event()
        asking = Retrying(transport, QUICK, metrics)
        self.locator = Locator(asking, store.documents, metrics, lambda: now)

    async def located(self, url: str, pull: Pull) -> Content:
        """The content at a URL, without a pin."""
        found = await self.locator.locate(url, pull=pull)
        part = found.part

        async def learned(descriptor: Descriptor) -> None:
            await self.locator.learned(url, descriptor)
            self.seen_whole.set()

        sources, first = [Source(self.transport, url)], found.head_response
        if first is not None:
            await self.fetcher.lend(part, sources, first, name=url, learned=learned)
        return await self.fetcher.content(part, sources, name=url, learned=learned, patience=HURRY)

    async def pinned(self, body: bytes, *urls: str) -> Content:
        """The content with the digest of these bytes, and mirrors."""
        part = Part(
            media_type="application/x-test", size=len(body), digest=digest_of(body), urls=urls
        )
        sources = [Source(self.transport, url) for url in urls]
        return await self.fetcher.content(part, sources, name=urls[0])


@asynccontextmanager
async def opened(path: Path, now: float = NOW, limits: HttpLimits = CALM) -> AsyncIterator[Bench]:
    metrics = Metrics()
    http = Redirecting(Metering(HttpTransport(limits=limits), metrics), RedirectPolicy())
    try:
        async with (
            open_store(path) as store,
            open_fetcher(store, metrics, policy=QUICK) as fetcher,
        ):
            yield Bench(store, fetcher, http, now)
    finally:
        await http.aclose()
