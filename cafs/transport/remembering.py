"""Remembering: what a source wants to be told the next time, which it may say at the very end."""

from collections.abc import Awaitable, Callable

from typing_extensions import override

from cafs.transport.interfaces import Head, Response


class Remembering(Response):
    """A response whose document is kept, as soon as it has come.

    Args:
        response: the answer.
        kept: the document that is kept already.
        keep: keeps a document.
    """

    def __init__(
        self, response: Response, kept: str, keep: Callable[[str], Awaitable[None]]
    ) -> None:
        self._response = response
        self._keep = keep
        self._kept = kept

    @property
    @override
    def head(self) -> Head:
        return self._response.head

    @property
    @override
    def document(self) -> str:
        return self._response.document

    @override
    async def receive(self) -> bytes:
        piece = await self._response.receive()
        document = self._response.document
        if document and document != self._kept:
            self._kept = document
            await self._keep(self._kept)
        return piece

    @override
    async def aclose(self) -> None:
        await self._response.aclose()
