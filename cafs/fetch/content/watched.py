"""Content that somebody vouches for, until it has been held against the bytes themselves."""

from collections.abc import Callable
from typing import Final

import trio
from typing_extensions import override

from cafs.fetch.content.exposing import Exposures
from cafs.fetch.content.wrapping import WrappedContent
from cafs.fetch.interfaces import Content, Patience
from cafs.model.span import Span

_LOOK_S: Final = 1.0
"""Between two looks at whether all of the raw content has been checked."""


class WatchedContent(WrappedContent):
    """Content that is decoded as an index, or a table of contents, says.

    Args:
        decoded: that content.
        raw: what it is decoded from.
        exposures: says whether the one that vouched for it was wrong.
        checked: called once all of ``raw`` is here and was checked, as long as it has not been
            held against that.

    Concurrency: as ``Content``.
    """

    def __init__(
        self,
        decoded: Content,
        raw: Content,
        exposures: Exposures,
        checked: "Callable[[WatchedContent], None]",
    ) -> None:
        super().__init__(decoded)
        self._raw = raw
        self._exposures = exposures
        self._checked: Callable[[WatchedContent], None] | None = checked
        self._looked = -_LOOK_S

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
        """See whether the raw content has been checked; not more than once a second."""
        now = trio.current_time()
        if self._checked is not None and now >= self._looked + _LOOK_S:
            self._looked = now
            if self._raw.digest() is not None:
                self._checked(self)
