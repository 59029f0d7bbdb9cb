"""Parts at URLs: found by asking for one byte, opened as content.

With a pin nothing but the size has to be known, and any of the URLs will do; without one the
version that was located is the one that is read, from the URL where it was located. A source
without byte ranges answers the question with everything: that answer is read, not thrown away.
"""

from collections.abc import Sequence
from functools import partial

from cafs.distribution.trying import first_answer
from cafs.errors import NotFoundError, OfflineError
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Source
from cafs.model.descriptor import OCTETS
from cafs.model.digest import Digest
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.model.spec import Pull
from cafs.store.store import Store
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.revalidating import Locator


class UrlParts:
    """Finds and opens content at URLs.

    Args:
        store: knows what is there already.
        fetcher: opens content.
        sources: the transport that content is fetched by; the fetcher retries.
        asking: the transport that questions are asked by; it retries.
        locator: finds out what a URL is now.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        *,
        store: Store,
        fetcher: Fetcher,
        sources: Transport,
        asking: Transport,
        locator: Locator,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._sources = sources
        self._asking = asking
        self._locator = locator

    async def pinned(
        self, pin: Digest, urls: Sequence[str], *, name: str, pull: Pull, previous: Part | None
    ) -> Part:
        """The part with a digest. A source is asked only when nothing here knows its size.

        Raises:
            NotFoundError: the store does not have it, and there are no URLs.
            OfflineError: the size is not known, and ``pull`` is ``never``.
            CafsError: no URL answered; the error of the first.

        Cancellation: no effect.
        """
        known = self._store.blobs.stat(pin)
        if known is not None:
            return Part(media_type=known.media_type, size=known.size, digest=pin, urls=tuple(urls))
        if previous is not None and previous.digest == pin and previous.size is not None:
            return previous
        if pull == "never":
            raise OfflineError(f"{name}: {pin} is not in the store, and no source may be asked")
        if not urls:
            raise NotFoundError(
                f"{name}: {pin} is not in the store, and no URL is known for it",
                hint="name mirrors for it in the settings",
            )
        return await first_answer(urls, lambda url: self._probe(pin, url, urls, name))

    async def _probe(self, pin: Digest, url: str, urls: Sequence[str], name: str) -> Part:
        """Ask one URL for its size. A pin needs no cache document (R-5)."""
        response = await self._asking.open(Request(url, span=Span(0, 1)))
        head = response.head
        part = Part(
            media_type=head.content_type or OCTETS,
            size=head.total,
            digest=pin,
            urls=(url, *(each for each in urls if each != url)),
            ranges=head.ranges,
        )
        await self._open(part, name, response)
        return part

    async def located(self, url: str, mirrors: Sequence[str], *, name: str, pull: Pull) -> Part:
        """What is at a URL now, as far as ``pull`` asks.

        Raises:
            OfflineError: ``pull`` is ``never``, and nothing is remembered of the URL.
            CafsError: as the source failed.

        Cancellation: no effect.
        """
        found = await self._locator.locate(url, *mirrors, pull=pull)
        if found.head_response is not None:
            await self._open(found.part, name, found.head_response)
        return found.part

    async def content(self, part: Part, *, name: str) -> Content:
        """Open a part.

        Raises:
            CafsError: its size had to be found out by fetching it, and that failed.

        Cancellation: no effect.
        """
        return await self._open(part, name, None)

    async def _open(self, part: Part, name: str, first: Response | None) -> Content:
        learned = None
        if part.digest is None:
            learned = partial(self._locator.learned, part.urls[0], validator=part.validator)
        sources = [Source(self._sources, url) for url in part.urls]
        return await self._fetcher.content(part, sources, name=name, first=first, learned=learned)
