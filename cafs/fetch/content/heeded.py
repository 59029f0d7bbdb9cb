"""Content that is decoded from what has not been checked yet, and not read once that is wrong.

What was decoded lies in a stream of its own, so the raw content is not asked for it again: here it
is, before and after each read.
"""

from typing_extensions import override

from cafs.fetch.content.provisional import ProvisionalContent
from cafs.fetch.content.wrapping import WrappedContent
from cafs.fetch.interfaces import Content, Patience
from cafs.model.span import Span


class HeededContent(WrappedContent):
    """Content that is as good as the raw content that it is decoded from.

    Concurrency: as ``Content``.
    """

    def __init__(self, decoded: Content, raw: ProvisionalContent) -> None:
        super().__init__(decoded)
        self._raw = raw

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        self._raw.check()
        with self._raw.heeding():
            await self._decoded.ensure(span, patience)
        self._raw.check()

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        data: bytes | None = None
        while data is None:
            self._raw.check()
            with self._raw.heeding():
                data = await self._decoded.read(offset, length, patience)
                # As long as nothing is wrong with the raw content, it is being checked.
                self._raw.follow()
        self._raw.check()
        return data
