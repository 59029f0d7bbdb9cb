"""Remembering: what a source wants to be told the next time, which it may say at the very end."""

from collections.abc import Awaitable, Callable

from typing_extensions import override

from cafs.transport.interfaces import Head, Response


class Remembering(Response):
    """A response whose document is kept when its body has ended.

    Args:
        response: the answer.
        keep: keeps a document; called once at most.
    """

    def __init__(self, response: Response, keep: Callable[[str], Awaitable[None]]) -> None:
        self._response = response
        self._keep = keep
        self._kept = response.document

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
        if not piece and self._response.document != self._kept:
            self._kept = self._response.document
            await self._keep(self._kept)
        return piece

    @override
    async def aclose(self) -> None:
        await self._response.aclose()
