"""Later: a transport whose modules are loaded when somebody first asks it.

A worker whose mount has been read before answers without a request to any source, so who waits for
its start does not wait for the modules that make requests.
"""

from collections.abc import Callable

import trio
from typing_extensions import override

from cafs.transport.interfaces import Request, Response, Transport


class Later(Transport):
    """Stands for a transport that is made with the first request.

    Args:
        load: loads its modules, and gives what makes it; called in a thread, once, and again when
            that failed.

    Concurrency: any number of tasks; while it is loaded they wait, some tenths of a second.
    """

    def __init__(self, load: Callable[[], Callable[[], Transport]]) -> None:
        self._load = load
        self._loading = trio.Lock()
        self._transport: Transport | None = None

    @override
    async def open(self, request: Request) -> Response:
        transport = self._transport or await self._made()
        return await transport.open(request)

    async def _made(self) -> Transport:
        async with self._loading:
            if self._transport is None:
                make = await trio.to_thread.run_sync(self._load)
                self._transport = make()
            return self._transport

    @override
    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()
