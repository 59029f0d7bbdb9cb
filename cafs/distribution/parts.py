"""Parts at URLs: found by asking for one byte, opened as content.

With a pin nothing but the size has to be known, and any of the URLs will do; without one the
version that was located is the one that is read, from the URL where it was located. A source
without byte ranges answers the question with everything: that answer is read, not thrown away.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from cafs.distribution.interfaces import Note
from cafs.distribution.trying import first_answer
from cafs.errors import CafsError, NotFoundError, OfflineError
from cafs.fetch.contents import UNSIZED_LIMIT
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Patience, Source
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest
from cafs.model.document import CacheDocument
from cafs.model.mapping import Route, straight
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.model.spec import Pull, Verify
from cafs.model.validator import Validator
from cafs.store.store import Store
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.revalidating import PROBE, Locator

_LOG = logging.getLogger(__name__)
Place = tuple[str, str]
"""A URL, and where it is asked for."""
_OPINION_S: Final = 1.0
"""How long a second source may take to tell a size that is known already."""
_UNTOLD: Final = 'W/"located at '
"""How the version begins that is made up where a source tells none; weak, so never assembled."""


class UrlParts:
    """Finds and opens content at URLs.

    Args:
        store: knows what is there already.
        fetcher: opens content.
        sources: the transport that content is fetched by; the fetcher retries.
        asking: the transport that questions are asked by; it retries.
        locator: finds out what a URL is now.
        route: says which URLs to ask instead of a URL. Parts keep their own.
        probe: what is asked for to learn a size; more than a byte where all will be read anyway.

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
        route: Route = straight,
        probe: Span = PROBE,
    ) -> None:
        self._store = store
        self._first = probe
        self._fetcher = fetcher
        self._sources = sources
        self._asking = asking
        self._locator = locator
        self._route = route

    async def pinned(
        self,
        pin: Digest,
        urls: Sequence[str],
        *,
        name: str,
        pull: Pull,
        previous: Part | None,
        note: Note,
    ) -> Part:
        """The part with a digest. A source is asked only when nothing here knows its size.

        Raises:
            NotFoundError: the store does not have it, and there are no URLs.
            OfflineError: the size is not known, and ``pull`` is ``never``.
            CafsError: no URL answered; the error of the first.

        Cancellation: no effect.
        """
        known = await self._fetcher.find(pin)
        if known is not None:
            return Part(media_type=known.media_type, size=known.size, digest=pin, urls=tuple(urls))
        if previous is not None and previous.digest == pin and _believed(previous.size, pin):
            # Its order of URLs tells which one answered; the settings may name others by now.
            others = (url for url in urls if url not in previous.urls)
            return replace(previous, urls=(*previous.urls, *others))
        if pull == "never":
            raise OfflineError(f"{name}: {pin} is not in the store, and no source may be asked")
        if not urls:
            raise NotFoundError(
                f"{name}: {pin} is not in the store, and no URL is known for it",
                hint="name mirrors for it in the settings",
            )

        async def probe(place: Place, attempts: int | None) -> tuple[Place, Response]:
            # A pin needs no document.
            request = Request(place[1], span=self._first, attempts=attempts, failed=note)
            return place, await self._asking.open(request)

        places = [(url, target) for url in urls for target in self._route(url)]
        (url, target), response = await first_answer(places, probe)
        size = response.head.total if _believed(response.head.total, pin) else None
        try:
            rest = places[places.index((url, target)) + 1 :]
            if size is not None and rest:
                size = await self._agreed(size, rest[0][1], name)
        except BaseException:
            with trio.CancelScope(shield=True):
                await response.aclose()
            raise
        part = Part(
            media_type=response.head.content_type or OCTETS,
            size=size,
            digest=pin,
            urls=(url, *(each for each in urls if each != url)),
            ranges=response.head.ranges,
        )
        await self._lend(part, name, response, target)
        return part

    async def _agreed(self, size: int, target: str, name: str) -> int | None:
        """The size that one place told, when another does not say otherwise.

        An error page, or half a file, has a size too, and programs are told of it before the digest
        can tell. Where two places differ the size is not known: all is fetched, and the digest
        says whose it is. Of what is too much for that the larger size is taken.

        Cancellation: no effect.
        """
        other = None
        try:
            with trio.move_on_after(_OPINION_S):
                response = await self._asking.open(Request(target, span=Span(0, 1), attempts=1))
                other = response.head.total
                await response.aclose()
        except CafsError as error:
            _LOG.debug("parts.opinion.failed: %s", error.line)
        if other is None or other == size:
            return size
        _LOG.info("%s: one source tells %d bytes, and another %d", name, size, other)
        largest = max(size, other)
        return largest if largest > UNSIZED_LIMIT else None

    async def located(self, urls: Sequence[str], *, name: str, pull: Pull, note: Note) -> Part:
        """What is at the first URL now, or else at the next, as far as ``pull`` asks.

        Raises:
            OfflineError: ``pull`` is ``never``, and nothing is remembered of the URL.
            CafsError: as the source failed.

        Cancellation: no effect.
        """
        found = await self._locator.locate(*urls, pull=pull, failed=note)
        part = found.part
        if part.digest is None and not part.validator.text:
            part = replace(part, validator=self._located_at(part.urls[0]))
        if found.head_response is not None:
            lent = await self._lend(
                part, name, found.head_response, part.at or part.urls[0], found.unsaved
            )
            if not lent and found.unsaved is not None:
                await self._locator.keep(part.urls[0], found.unsaved)
        return part

    async def content(
        self, part: Part, patience: Patience, *, name: str, verify: Verify = "block"
    ) -> Content:
        """Open a part; ``verify`` says whether it may be read before it is checked.

        Raises:
            CafsError: its size had to be found out by fetching it, and that failed.

        Cancellation: no effect.
        """
        sources, learned = self._sources_of(part), self._learned(part)
        return await self._fetcher.content(
            part, sources, name=name, learned=learned, patience=patience, verify=verify
        )

    async def _lend(
        self,
        part: Part,
        name: str,
        response: Response,
        target: str,
        unsaved: CacheDocument | None = None,
    ) -> bool:
        """Let the content use a response that came from ``target``.

        Returns:
            Whether it sees to it that ``unsaved`` is kept.
        """
        sources, learned = self._sources_of(part), self._learned(part, unsaved)
        sources.sort(key=lambda source: source.url != target)
        unread = None if unsaved is None else partial(self._locator.keep, part.urls[0], unsaved)
        return await self._fetcher.lend(
            part, sources, response, name=name, learned=learned, unread=unread
        )

    def _located_at(self, url: str) -> Validator:
        """A version for content whose source tells none: that of the time when it was located.

        Otherwise what another mount read long ago would pass for what is there now.
        """
        document = self._store.documents.load(url)
        located_s = document.fetched_s if document is not None else 0
        return Validator(etag=f'{_UNTOLD}{located_s}"')

    def _sources_of(self, part: Part) -> list[Source]:
        """Where the part is asked for. Without a digest only where it was located will do."""
        targets = [target for url in part.urls for target in self._route(url)]
        if part.digest is None and part.at in targets:
            targets = [part.at]
        return [Source(self._sources, target) for target in targets]

    def _learned(
        self, part: Part, unsaved: CacheDocument | None = None
    ) -> Callable[[Descriptor], Awaitable[None]] | None:
        if part.digest is not None:
            return None
        told = not part.validator.etag.startswith(_UNTOLD)
        return partial(
            self._locator.learned,
            part.urls[0],
            validator=part.validator if told else None,
            unsaved=unsaved,
        )


def _believed(size: int | None, pin: Digest) -> bool:
    """Whether a size may be that of what has the digest; whoever says 0 says what the bytes are."""
    return size is not None and (size > 0 or pin.of_nothing)
