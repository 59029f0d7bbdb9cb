"""Wrapping: a response round another one, which changes how its bytes are received."""

from typing_extensions import override

from cafs.transport.interfaces import Head, Response


class Wrapper(Response):
    """A response that is another one in all that a subclass does not change.

    Concurrency: as ``Response``.
    """

    def __init__(self, inner: Response) -> None:
        self._inner = inner

    @property
    @override
    def head(self) -> Head:
        return self._inner.head

    @property
    @override
    def document(self) -> str:
        return self._inner.document

    @override
    async def receive(self) -> bytes:
        return await self._inner.receive()

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()
