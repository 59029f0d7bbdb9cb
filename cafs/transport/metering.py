"""Metering: counts requests and the bytes that come for them."""

from typing_extensions import override

from cafs.metrics import Metrics
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.wrapping import Wrapper


class Metering(Transport):
    """Counts what another transport sends and receives.

    Innermost, so that redirects and retries count as the requests that they are.
    """

    def __init__(self, transport: Transport, metrics: Metrics) -> None:
        self._transport = transport
        self._metrics = metrics

    @override
    async def open(self, request: Request) -> Response:
        self._metrics.add("fetch.requests")
        return _Metered(await self._transport.open(request), self._metrics)

    @override
    async def aclose(self) -> None:
        await self._transport.aclose()


class _Metered(Wrapper):
    def __init__(self, response: Response, metrics: Metrics) -> None:
        super().__init__(response)
        self._metrics = metrics

    @override
    async def receive(self) -> bytes:
        piece = await self._inner.receive()
        self._metrics.add("fetch.bytes", len(piece))
        return piece
