"""Revalidating: finds out what a URL is now, and remembers it in cache documents.

The one place that asks by these documents (R-2); what they say, and what an answer makes of them,
is in ``documenting``, how they are kept in ``kept_documents``. One small request tells everything:
the first byte, or as much as will be read anyway, by range. Its answer has the size, the version
and whether ranges work, where a HEAD is often refused; and where ranges do not work, or the content
is small, it is already the content.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from cafs.errors import (
    AccessError,
    CafsError,
    NotFoundError,
    OfflineError,
    RefusedError,
    UnsupportedError,
)
from cafs.metrics import Metrics
from cafs.model.address import shown
from cafs.model.descriptor import Descriptor
from cafs.model.document import CacheDocument
from cafs.model.mapping import Route, straight
from cafs.model.pacing import HASTE_S
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.model.spec import Pull
from cafs.model.validator import Validator
from cafs.transport.documenting import documented, part_of, to_tell
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.kept_documents import DocumentStore, KeptDocuments
from cafs.transport.remembering import Remembering

PROBE: Final = Span(0, 1)
"""What is asked for where nobody says that the content is wanted soon."""
_WHOLE: Final = 200
_PART: Final = 206


@dataclass(frozen=True, slots=True)
class Located:
    """What a URL is now.

    ``head_response`` is the open response of a source that sent all instead of a part, or a part
    that is worth keeping: its body is the content, from its start. Whoever gets it closes it.
    """

    part: Part
    head_response: Response | None = None
    unsaved: CacheDocument | None = None
    """What is to be kept of the URL when that response, which is all of the content, has been read:
    then the digest is known too, and both are one record."""


class Locator:
    """Locates content that no digest names.

    Args:
        transport: answers for the URLs.
        documents: keeps what they answered.
        metrics: counts what was fresh and what was unchanged.
        clock: seconds since the epoch.
        route: says which URLs to ask instead of a URL, whose document is kept all the same.
        probe: what is asked for to learn the rest; more than a byte where the content will be read
            anyway, so that small content comes with the answer.

    Concurrency: any number of tasks; two that locate the same URL ask twice.
    """

    def __init__(
        self,
        transport: Transport,
        documents: DocumentStore,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        *,
        route: Route = straight,
        probe: Span = PROBE,
    ) -> None:
        self._transport = transport
        self._probe = probe
        self._documents = KeptDocuments(documents, clock)
        self._metrics = metrics
        self._route = route
        self._clock = clock

    async def locate(
        self,
        url: str,
        *mirrors: str,
        pull: Pull,
        media_type: str = "",
        failed: Callable[[CafsError], None] | None = None,
    ) -> Located:
        """Find out what a URL is: from its document, or by asking.

        ``never`` takes any document and asks nobody. ``new`` takes any document whose content has
        been seen whole; with no other it asks, and is content with an old document when nobody
        answers. ``update`` and ``lock`` ask unless the document is fresh. A mirror is asked
        when the URLs before it are missing, refuse, want credentials, fail or hang; all but the
        last are tried once, and those that only were slow again at the end.

        Args:
            url: what is asked first.
            mirrors: other URLs of the same content, in the order in which they are tried.
            pull: when to ask.
            media_type: what the content shall be taken for; empty takes the source's word.
            failed: told of each failure after which it is tried again.

        Returns:
            The part; its ``urls`` begin with the one that answered, whose version it has.

        Raises:
            OfflineError: ``never``, and no document.
            CafsError: what the transport raised for the first URL, the others mentioned.

        Cancellation: no effect but, perhaps, a newer document.
        """
        urls = (url, *mirrors)
        if pull in {"never", "new"}:
            for each in urls:
                document = self._documents.load(each)
                if document is not None and (pull == "never" or document.digest is not None):
                    return Located(part_of(urls, each, document, media_type))
        if pull == "never":
            raise OfflineError(
                f"{shown(url)}: not known here, and nobody may be asked (pull = never)"
            )
        try:
            return await self._first(urls, media_type, failed)
        except CafsError as error:
            document = self._documents.load(url)
            if pull == "new" and error.transient and document is not None:
                return Located(part_of(urls, url, document, media_type))
            raise

    async def learned(
        self,
        url: str,
        descriptor: Descriptor,
        *,
        validator: Validator | None = None,
        unsaved: CacheDocument | None = None,
    ) -> None:
        """Note the digest of content that has been seen whole.

        A document that is about another version (another size, or another validator than the one
        given) is left alone. ``unsaved`` is that of ``Located``: it is kept with the digest.

        Cancellation: all or nothing.
        """
        await self._documents.learned(url, descriptor, validator=validator, unsaved=unsaved)

    async def keep(self, url: str, document: CacheDocument) -> None:
        """Keep ``Located.unsaved`` after all: nobody reads the response.

        What was found out since, by others or in another way, stays.

        Cancellation: all or nothing.
        """
        await self._documents.keep(url, document)

    async def _first(
        self,
        urls: tuple[str, ...],
        media_type: str,
        failed: Callable[[CafsError], None] | None,
    ) -> Located:
        """The first URL that answers. One that hangs is waited for when the others have failed."""
        failures: dict[int, CafsError] = {}
        asked = [(url, target) for url in urls for target in self._route(url)]
        last = len(asked) - 1
        turns = deque((number, number != last) for number in range(len(asked)))
        while turns:
            number, hurried = turns.popleft()
            url, target = asked[number]
            fresh = self._documents.fresh(url, self._route)
            if fresh is not None:
                self._metrics.add("transport.fresh")
                return Located(part_of(urls, url, fresh, media_type))
            try:
                with trio.move_on_after(HASTE_S if hurried else math.inf):
                    return await self._ask(
                        urls,
                        url,
                        target,
                        media_type=media_type,
                        attempts=1 if hurried else None,
                        failed=failed,
                    )
                turns.append((number, False))
            except (NotFoundError, AccessError, RefusedError, UnsupportedError) as error:
                failures[number] = error
            except CafsError as error:
                if not error.transient:
                    raise
                failures[number] = error
        raise _together([failures[number] for number in sorted(failures)])

    async def _ask(
        self,
        urls: tuple[str, ...],
        url: str,
        target: str,
        *,
        media_type: str,
        attempts: int | None,
        failed: Callable[[CafsError], None] | None,
    ) -> Located:
        known = self._documents.load(url)
        # What another server said of versions means nothing to this one.
        old = known if known is not None and (known.at or url) == target else None
        version = old.validator if old is not None and old.validator.text else None
        request = Request(
            target,
            self._probe,
            if_changed=version,
            attempts=attempts,
            failed=failed,
            document=to_tell(old),
        )
        response = await self._transport.open(request)
        try:
            if response.head.unchanged and old is not None:
                self._metrics.add("transport.revalidated")
            new = documented(old, response.head, self._clock())
            if response.document:
                new = replace(new, plugin=response.document)
            new = replace(new, at="" if target == url else target)
            if known is not None and known.digest is not None and new.digest is None:
                self._documents.replaced(url, known.digest)
            if self._comes_whole(response, new):
                located = Located(part_of(urls, url, new, media_type))
                return replace(located, head_response=response, unsaved=new)
            await self._documents.save(url, new)
            remember = partial(self._documents.remember, url)
            response = Remembering(response, new.plugin, remember)
            located = Located(part_of(urls, url, new, media_type))
            status = response.head.status
            worth_keeping = status == _PART and self._probe.length > PROBE.length
            if new.digest is None and (status == _WHOLE or worth_keeping):
                return replace(located, head_response=response)
            if status != _WHOLE:
                while await response.receive():
                    pass  # a little at most; the connection is of use to the next request
        except BaseException:
            await response.aclose()
            raise
        await response.aclose()
        return located

    def _comes_whole(self, response: Response, document: CacheDocument) -> bool:
        """Whether all of the content is in this answer; once it is read its digest is known too."""
        span, plain = response.head.span, not response.document and document.digest is None
        whole = span == Span(0, document.size or 0) and span.length > PROBE.length
        return plain and whole and bool(document.validator.text)


def _together(failures: list[CafsError]) -> CafsError:
    """The first failure; its message tells of the others."""
    first, *others = failures
    if others:
        first.what = f"{first.what}; then {'; '.join(each.what for each in others)}"
        first.args = (first.what,)
    return first
