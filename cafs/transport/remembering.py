"""Remembering: what a source wants to be told the next time, which it may say at the very end."""

from collections.abc import Awaitable, Callable

from typing_extensions import override

from cafs.transport.interfaces import Response
from cafs.transport.wrapping import Wrapper


class Remembering(Wrapper):
    """A response whose document is kept, as soon as it has come.

    Args:
        response: the answer.
        kept: the document that is kept already.
        keep: keeps a document.
    """

    def __init__(
        self, response: Response, kept: str, keep: Callable[[str], Awaitable[None]]
    ) -> None:
        super().__init__(response)
        self._keep = keep
        self._kept = kept

    @override
    async def receive(self) -> bytes:
        piece = await self._inner.receive()
        document = self._inner.document
        if document and document != self._kept:
            self._kept = document
            await self._keep(self._kept)
        return piece
