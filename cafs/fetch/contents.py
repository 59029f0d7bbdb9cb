"""Contents: one for each part, made when it is first asked for, and the lane that feeds it.

What kind of content a part has is decided here, once (docs/architecture.md has the table).
"""

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from weakref import WeakValueDictionary

import trio
from cachetools import LRUCache

from cafs.errors import CafsError, DigestMismatchError, SizeMismatchError
from cafs.fetch.content.blob import BlobContent
from cafs.fetch.content.exposing import Exposures
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.content.provisional import ProvisionalContent, suits
from cafs.fetch.content.ranged import RangedContent
from cafs.fetch.flights.downloading import Downloader
from cafs.fetch.flights.finding import Finding
from cafs.fetch.flights.judging import Terms
from cafs.fetch.flights.lane import Lane
from cafs.fetch.flights.means import Means
from cafs.fetch.flights.sealing import Learned, Seal
from cafs.fetch.flights.work import Works
from cafs.fetch.interfaces import Feed, Source
from cafs.fetch.sources.failures import Failures
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey, located_stream
from cafs.model.item import Item
from cafs.model.resolved import Part
from cafs.store.store import Store
from cafs.transport.interfaces import Head, Response

UNSIZED_LIMIT: Final = 1 << 30
"""Bytes that are fetched at most to find out a size that no source tells."""
_FIRST_S: Final = 5.0
"""How long a response that is open already waits for its first reader."""
_KEPT: Final = 256
"""Contents that are kept though nobody holds them: the next read of them is soon."""
_WHOLE: Final = 200
_PARTIAL: Final = 206
_LOG = logging.getLogger(__name__)
Unread = Callable[[], Awaitable[None]]
"""Told of a response that was lent, and that nobody has used."""
_TOLD: Final = 1
"""Bytes that are asked for to be told a size; they are not worth a request's place."""


class Contents:
    """The contents of parts, and their lanes, for as long as anybody has them or they were used.

    Args:
        nursery: where everything is fetched.
        store: where everything goes.
        means: what all downloads share.
        failures: what failed a moment ago.
        works: where whole contents are checked.
        finding: looks for content on this machine before it is fetched.
        exposures: what was handed out before it was checked.

    Concurrency: any number of tasks of one trio run; nothing here awaits.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        means: Means,
        failures: Failures,
        works: Works[None],
        *,
        finding: Finding,
        exposures: Exposures,
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._means = means
        self._failures = failures
        self._works = works
        self._finding = finding
        self._exposures = exposures
        self._provisional: WeakValueDictionary[StreamKey, ProvisionalContent]
        self._provisional = WeakValueDictionary()
        self._lanes: WeakValueDictionary[StreamKey, Lane] = WeakValueDictionary()
        self._contents: WeakValueDictionary[StreamKey, Feed] = WeakValueDictionary()
        self._kept: LRUCache[StreamKey, Feed] = LRUCache(_KEPT)
        self._lent: deque[tuple[float, Lane, Response, Unread | None]] = deque()
        """Responses that wait for their first reader, with the times until when: the first ends
        first."""
        self._expiring = False

    def lanes(self) -> list[Lane]:
        """Every lane that somebody may want something of."""
        return list(self._lanes.values())

    def find(self, part: Part) -> Feed | None:
        """The content of a part, if there is one."""
        return self._contents.get(located_stream(part))

    def get(
        self, part: Part, sources: Sequence[Source], name: str, learned: Learned | None
    ) -> tuple[Feed, Lane | None]:
        """The content of a part and its lane, made where they are not there yet.

        The arguments are those of ``Fetcher.content``. There is no lane where the store has all and
        no source is known.

        Raises:
            SizeMismatchError: the store has the digest, and it is not of the promised size.
            DigestMismatchError: no bytes are promised, and the digest is of some.
        """
        key = located_stream(part)
        content, lane = self._contents.get(key), self._lanes.get(key)
        if content is None or (lane is None and sources):
            content, lane = self._make(key, part, sources, name, learned)
            self._contents[key] = content
            if lane is not None:
                self._lanes[key] = lane
        elif lane is not None and part.digest is not None:
            lane.downloader.sources.add(sources)
        self._kept[key] = content
        return content, lane

    def provisional(self, content: Feed, lane: Lane | None) -> Feed:
        """The same content, of which ranges are read before it is checked, where there are any.

        It is another content than the one for those who want it checked first; both have one lane.
        """
        if lane is None or not isinstance(content, GatedContent) or not suits(lane):
            return content
        found = self._provisional.get(content.key)
        if found is None or found.gated is not content:
            found = ProvisionalContent(
                self._store,
                lane,
                content,
                works=self._works,
                exposures=self._exposures,
                means=self._means,
            )
            self._provisional[content.key] = found
        return found

    def _make(
        self,
        key: StreamKey,
        part: Part,
        sources: Sequence[Source],
        name: str,
        learned: Learned | None,
    ) -> tuple[Feed, Lane | None]:
        blobs, pin = self._store.blobs, part.digest
        known = None if pin is None else blobs.stat(pin)
        if known is not None and part.size not in {None, known.size}:
            raise SizeMismatchError(name, expected=part.size or 0, actual=known.size)
        if pin is not None and part.size == 0 and not pin.of_nothing:
            # Of no bytes none is ever asked for: nobody would come to the gate.
            raise DigestMismatchError(name, expected=pin, actual=digest_of(b"", pin.algorithm))
        if known is not None and not sources:
            self._store.uses.touch(Item.blob(known.digest), precious=True)
            return BlobContent(blobs, known, key, name, self._means.metrics), None
        stream = self._store.streams.find(key)
        found = None if stream is None else stream.size
        terms = Terms(
            name=name,
            key=key,
            size=part.size if known is None else known.size,
            validator=part.validator,
            pinned=pin is not None,
            ranges=part.ranges and (pin is not None or part.validator.strong),
            limit=UNSIZED_LIMIT,
        )
        lane = self._lane(terms, sources if terms.pinned else sources[:1])
        if terms.size is None:
            lane.downloader.deposit.size = found
        seal = Seal(
            blobs,
            self._store.streams,
            key,
            name=name,
            media_type=part.media_type,
            claims=() if pin is None else (pin,),
            metrics=self._means.metrics,
            learned=learned,
        )
        lane.downloader.deposit.take = seal.take
        if terms.pinned or lane.downloader.single:
            gated = GatedContent(
                blobs, lane, self._works, seal, self._means.metrics, finding=self._finding
            )
            return gated, lane
        return RangedContent(blobs, lane, self._works, seal, self._means.metrics), lane

    def _lane(self, terms: Terms, sources: Sequence[Source]) -> Lane:
        return Lane(
            self._nursery,
            Downloader(terms, self._means, list(sources)),
            failures=self._failures,
            budget=self._means.budget,
            slots=self._means.slots,
            metrics=self._means.metrics,
        )

    def lend(self, lane: Lane, first: Response, url: str, unread: Unread | None = None) -> bool:
        """Keep an open response for the lane's first flight, for a while; whether it is of use.

        ``unread`` is called where nobody has used it in that time.
        """
        if lane.downloader.first is not None or not _fits(first.head, lane.downloader.single):
            return False
        lane.downloader.first, lane.downloader.first_url = first, url
        self._lent.append((trio.current_time() + _FIRST_S, lane, first, unread))
        if not self._expiring:
            self._expiring = True
            self._nursery.start_soon(self._expire)
        return True

    async def _expire(self) -> None:
        """Close those that nobody has used in time; all of them in the end."""
        try:
            while self._lent:
                await trio.sleep_until(self._lent[0][0])
                await self._close_until(trio.current_time())
        finally:
            self._expiring = False
            with trio.CancelScope(shield=True):
                await self._close_until(math.inf)

    async def _close_until(self, now: float) -> None:
        while self._lent and self._lent[0][0] <= now:
            _, lane, first, unread = self._lent.popleft()
            if lane.downloader.first is first:
                lane.downloader.first = None
                await first.aclose()
                if unread is not None:
                    await _tell(unread)


async def _tell(unread: Unread) -> None:
    try:
        await unread()
    except CafsError as error:
        # It is asked again the next time.
        _LOG.info("fetch.unread.failed: %s", error.line)


def _fits(head: Head, single: bool) -> bool:
    """Whether a body is of use: all of it where that is needed, else its first bytes."""
    if single:
        return head.status == _WHOLE
    span = head.span if head.status == _PARTIAL else None
    return span is not None and not span.start and span.length > _TOLD
