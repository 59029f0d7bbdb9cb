"""Cache documents as they are kept: what is known of URLs, what is learned of them since.

They are keyed by the URL that was asked, before any redirect (R-14). What is found out later never
takes the place of what has been found out since, and a full disk only means to ask again.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from cachetools import LRUCache

from cafs.errors import StorageFullError
from cafs.model.address import shown
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.model.document import CacheDocument
from cafs.model.mapping import Route
from cafs.model.validator import Validator

_LOG: Final = logging.getLogger("cafs.transport")
_FORMER: Final = 1024
"""URLs of which it is remembered what they had before."""


class DocumentStore(Protocol):
    """Keeps cache documents by URL. A document that cannot be read is absent (R-8)."""

    @abstractmethod
    def load(self, url: str) -> CacheDocument | None:
        """The document; without its digest when that blob is gone (R-2b)."""

    @abstractmethod
    async def save(self, url: str, document: CacheDocument) -> None:
        """Keep it, instead of what was there. Cancellation: all or nothing."""

    @abstractmethod
    async def drop(self, url: str) -> None:
        """Forget it. Cancellation: all or nothing."""


class KeptDocuments:
    """The documents of one who locates content.

    Args:
        documents: where they are kept.
        clock: seconds since the epoch.

    Concurrency: any number of tasks; of two that write, the last wins.
    """

    def __init__(self, documents: DocumentStore, clock: Callable[[], float]) -> None:
        self._documents = documents
        self._clock = clock
        self._former: LRUCache[str, Digest] = LRUCache(_FORMER)
        """What URLs had whose sources have another version now."""

    def load(self, url: str) -> CacheDocument | None:
        """The document of a URL."""
        return self._documents.load(url)

    def fresh(self, url: str, route: Route) -> CacheDocument | None:
        """The URL's document, if it need not be asked about; one from elsewhere tells nothing."""
        document = self._documents.load(url)
        if document is None or not document.fresh(self._clock()):
            return None
        return document if (document.at or url) in route(url) else None

    def replaced(self, url: str, digest: Digest) -> None:
        """Note what a URL had, of which the source has another version now."""
        self._former[url] = digest

    async def save(self, url: str, document: CacheDocument) -> None:
        """Keep a document; where the disk is full, it is asked again the next time.

        Cancellation: all or nothing.
        """
        try:
            await self._documents.save(url, document)
        except StorageFullError as error:
            _LOG.info("transport.document.unkept url=%s error=%s", shown(url), error.line)

    async def learned(
        self,
        url: str,
        descriptor: Descriptor,
        *,
        validator: Validator | None,
        unsaved: CacheDocument | None,
    ) -> None:
        """As ``Locator.learned``."""
        document = self._documents.load(url)
        if unsaved is not None and (document is None or document.fetched_s <= unsaved.fetched_s):
            document = unsaved
        if document is None or document.size not in {None, descriptor.size}:
            return
        if validator is not None and validator.text != document.validator.text:
            return
        known = replace(document, digest=descriptor.digest, size=descriptor.size)
        former = self._former.pop(url, document.digest)
        if former not in {None, descriptor.digest}:
            _LOG.info(
                "transport.content.changed url=%s: it was %s, and is %s now",
                shown(url),
                former,
                descriptor.digest,
            )
        if known != document or unsaved is not None:
            await self.save(url, known)

    async def keep(self, url: str, document: CacheDocument) -> None:
        """As ``Locator.keep``."""
        known = self._documents.load(url)
        if known is not None and known.fetched_s > document.fetched_s:
            return
        if known is not None and known.validator == document.validator:
            document = replace(document, digest=known.digest or document.digest)
        await self.save(url, document)

    async def remember(self, url: str, told: str) -> None:
        """Keep what the source wants to be told the next time.

        Cancellation: all or nothing.
        """
        document = self._documents.load(url)
        if document is not None:
            await self.save(url, replace(document, plugin=told))
