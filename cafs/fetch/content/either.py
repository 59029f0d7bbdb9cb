"""A file that lies in the store as it is, or in pieces that were checked one by one.

Where all of it is here, and was checked, it is read as that. Where it is not, or has gone since, it
is read by the pieces that an index names: then a reader waits for no more than he reads.
"""

from typing_extensions import override

from cafs.fetch.content.wrapping import WrappedContent
from cafs.fetch.interfaces import Content, Patience
from cafs.model.digest import Digest
from cafs.model.span import Span


class EitherContent(WrappedContent):
    """The whole file where it is here, else what its pieces are.

    Args:
        pieces: the file by its pieces.
        raw: the file as it is, of which nothing is handed out before all of it was checked.

    Concurrency: as ``Content``.
    """

    def __init__(self, pieces: Content, raw: Content) -> None:
        super().__init__(pieces)
        self._raw = raw

    @override
    def present(self) -> int:
        return self._now().present()

    @override
    def digest(self) -> Digest | None:
        return self._raw.digest()

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        await self._now().ensure(span, patience)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        return await self._now().read(offset, length, patience)

    def _now(self) -> Content:
        return self._decoded if self._raw.digest() is None else self._raw
