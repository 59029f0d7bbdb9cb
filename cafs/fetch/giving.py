"""Giving: hands out the contents of parts, with what is known of them, and what is open already."""

import logging
from collections.abc import Sequence

import trio

from cafs.errors import CafsError
from cafs.fetch.contents import Contents, Unread
from cafs.fetch.flights.sealing import Learned
from cafs.fetch.interfaces import Content, Feed, Patience, Source
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.model.spec import Verify
from cafs.store.store import Store
from cafs.transport.interfaces import Response

_LOG = logging.getLogger(__name__)


class Giving:
    """Gives out contents.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, store: Store, contents: Contents) -> None:
        self._store = store
        self._contents = contents

    async def content(
        self,
        part: Part,
        sources: Sequence[Source],
        *,
        name: str,
        learned: Learned | None,
        patience: Patience,
        verify: Verify,
    ) -> Content:
        """The content of a part. One part has one content, whoever asks for it.

        Args:
            part: what is promised.
            sources: where it can be had, best first; content without a pin uses only the first.
            name: what people call it.
            learned: told which blob it is, once content without a pin has been seen whole.
            patience: for content of unknown size, which is fetched before this returns.
            verify: whether content with a pin may be read before it is checked. It is another
                content then, with the same bytes.

        Raises:
            SizeMismatchError: the store has the digest, and it is not of the promised size.
            DigestMismatchError: no bytes are promised, and the digest is of some.
            CafsError: as ``Content.ensure``, when the size had to be found out.

        Cancellation: no effect.
        """
        content, lane = self._contents.get(part, sources, name, learned)
        if lane is not None and lane.downloader.unsure:
            # With a pin, the size that a source told at last may be that of an error page.
            await content.ensure(Span(0, lane.end), patience)
        if part.digest is None and learned is not None:
            await self._remind(content, learned)
        if verify == "provisional":
            return self._contents.provisional(content, lane)
        return content

    async def lend(
        self,
        part: Part,
        sources: Sequence[Source],
        first: Response,
        *,
        name: str,
        learned: Learned | None,
        unread: Unread | None,
    ) -> bool:
        """Let the content of a part, which will be read soon, use a response that is open already.

        It is of use when its body is whole, or has the first bytes of what ranges can be had of.

        The arguments are those of ``content``, but ``unread``, which is called when the response
        was of use, and nobody has read it for a few seconds. It is closed then, and when the
        content has no use for it.

        Returns:
            Whether it is of use, and ``learned`` will be told what it was: a content that was there
            before tells the one that it knows.

        Raises:
            SizeMismatchError: the store has the digest, and it is not of the promised size.
            DigestMismatchError: no bytes are promised, and the digest is of some.

        Cancellation: the response is closed.
        """
        lent = False
        known = self._contents.find(part)
        try:
            content, lane = self._contents.get(part, sources, name, learned)
            if lane is not None and content.digest() is None:
                told = unread if content is not known else None
                lent = self._contents.lend(lane, first, sources[0].url, told)
        finally:
            if not lent:
                with trio.CancelScope(shield=True):
                    await first.aclose()
        return lent and content is not known

    async def _remind(self, content: Feed, learned: Learned) -> None:
        """Tell what content is that was whole before; whoever told it then may have failed."""
        digest = content.digest()
        known = None if digest is None else self._store.blobs.stat(digest)
        if known is None:
            return
        try:
            await learned(known)
        except CafsError as error:
            _LOG.info("fetch.learned.failed: %s", error.line)
