"""Content that somebody vouches for, until it has been held against the bytes themselves."""

from collections.abc import Callable
from typing import Final

import trio
from typing_extensions import override

from cafs.fetch.content.exposing import Exposures
from cafs.fetch.content.wrapping import WrappedContent
from cafs.fetch.interfaces import Content, Patience
from cafs.model.span import Span

LOOK_S: Final = 1.0
"""Between two looks at whether all of the raw content is here."""


class WatchedContent(WrappedContent):
    """Content that is decoded as an index, or a table of contents, says.

    Args:
        decoded: that content.
        raw: what it is decoded from.
        exposures: says whether the one that vouched for it was wrong.
        checked: called once all of ``raw`` is here, as long as it has not been held against that.
        later: called where a look came too early: it shall ``look_again`` after ``LOOK_S``.

    Concurrency: as ``Content``.
    """

    def __init__(
        self,
        decoded: Content,
        raw: Content,
        exposures: Exposures,
        checked: "Callable[[WatchedContent], None]",
        later: "Callable[[WatchedContent], None]",
    ) -> None:
        super().__init__(decoded)
        self._raw = raw
        self._exposures = exposures
        self._checked: Callable[[WatchedContent], None] | None = checked
        self._later = later
        self._looked = -LOOK_S

    def confirm(self, decoded: Content) -> None:
        """It was right: from now on it is what is decoded from what was checked."""
        self._decoded, self._checked = decoded, None

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        self._check()
        await self._decoded.ensure(span, patience)
        self._check()
        self.look()

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        self._check()
        data = await self._decoded.read(offset, length, patience)
        self._check()
        self.look()
        return data

    def _check(self) -> None:
        exposure = self._exposures.find(self.key)
        if exposure is not None:
            exposure.check()

    def look(self) -> None:
        """See whether the raw content is here; not more than once a second.

        The last read is looked after too: what it has read is in the caches of a kernel by then,
        and nobody may come to read again.
        """
        if self._checked is None:
            return
        if trio.current_time() >= self._looked + LOOK_S:
            self.look_again()
        else:
            self._later(self)

    def look_again(self) -> None:
        """See whether the raw content is here."""
        self._looked = trio.current_time()
        raw = self._raw
        if self._checked is not None and (raw.digest() or raw.present() >= raw.size):
            self._checked(self)
