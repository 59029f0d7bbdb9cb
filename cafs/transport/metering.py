"""Metering: counts requests and the bytes that come for them."""

from typing_extensions import override

from cafs.metrics import Metrics
from cafs.transport.interfaces import Head, Request, Response, Transport


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


class _Metered(Response):
    def __init__(self, response: Response, metrics: Metrics) -> None:
        self._response = response
        self._metrics = metrics

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
        self._metrics.add("fetch.bytes", len(piece))
        return piece

    @override
    async def aclose(self) -> None:
        await self._response.aclose()
