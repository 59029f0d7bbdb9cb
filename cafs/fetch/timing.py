"""Timing: how long a body was waited for, whatever else its receiver did meanwhile."""

import trio
from typing_extensions import override

from cafs.transport.interfaces import Response
from cafs.transport.wrapping import Wrapper


class Timed(Wrapper):
    """A response that counts: ``received`` bytes came in ``waited_s`` seconds of receiving.

    Concurrency: as ``Response``.
    """

    def __init__(self, inner: Response) -> None:
        super().__init__(inner)
        self.received = 0
        self.waited_s = 0.0

    @override
    async def receive(self) -> bytes:
        began = trio.current_time()
        try:
            data = await self._inner.receive()
        finally:
            self.waited_s += trio.current_time() - began
        self.received += len(data)
        return data
