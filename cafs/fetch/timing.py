"""Timing: how long a body was waited for, whatever else its receiver did meanwhile."""

import trio
from typing_extensions import override

from cafs.transport.interfaces import Head, Response


class Timed(Response):
    """A response that counts: ``received`` bytes came in ``waited_s`` seconds of receiving.

    Concurrency: as ``Response``.
    """

    def __init__(self, inner: Response) -> None:
        self._inner = inner
        self.received = 0
        self.waited_s = 0.0

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
        began = trio.current_time()
        try:
            data = await self._inner.receive()
        finally:
            self.waited_s += trio.current_time() - began
        self.received += len(data)
        return data

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()
