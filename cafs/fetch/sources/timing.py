"""Timing: how long a body was waited for, whatever else its receiver did meanwhile."""

import math

import trio
from typing_extensions import override

from cafs.errors import DeadlineError
from cafs.model.address import shown
from cafs.transport.interfaces import Response
from cafs.transport.wrapping import Wrapper


class Timed(Wrapper):
    """A response that counts: ``received`` bytes came in ``waited_s`` seconds of receiving.

    Args:
        inner: the response.
        silence_s: for how long it may be silent; its own limits hold too.

    Concurrency: as ``Response``.
    """

    def __init__(self, inner: Response, silence_s: float = math.inf) -> None:
        super().__init__(inner)
        self.received = 0
        self.waited_s = 0.0
        self._silence_s = silence_s

    @override
    async def receive(self) -> bytes:
        """As ``Response.receive``.

        Raises:
            DeadlineError: it was silent for too long.
        """
        if self._silence_s == math.inf:
            return await self._receive()
        with trio.move_on_after(self._silence_s):
            return await self._receive()
        url = shown(self._inner.head.url)
        raise DeadlineError(f"GET {url}: no bytes in {self._silence_s:g} s, and others may")

    async def _receive(self) -> bytes:
        began = trio.current_time()
        try:
            data = await self._inner.receive()
            self.received += len(data)
            return data
        finally:
            self.waited_s += trio.current_time() - began
