"""Cancelling the HTTP transport at every step: its one connection stays usable."""

from typing import Final

import trio
from typing_extensions import override

from cafs.model.span import Span
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.interfaces import Request

BODY: Final = bytes(range(256)) * 1000
_MOST: Final = 500


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the nth step of the task that made it."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self._left = step
        self._task = trio.lowlevel.current_task()

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self.scope.cancel()


async def read(transport: HttpTransport, request: Request) -> bytes:
    received = b""
    async with await transport.open(request) as response:
        while piece := await response.receive():
            received += piece
    return received


async def sweep(origin: Origin, request: Request, expected: bytes) -> int:
    """Cancel at the 1st, 2nd, … step until a read passes untouched; how many were cancelled."""
    transport = HttpTransport(limits=HttpLimits(connections=1))
    for step in range(1, _MOST):
        instrument = CancelAt(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await read(transport, request)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        with trio.fail_after(5):
            assert await read(transport, request) == expected
        if not instrument.scope.cancelled_caught:
            await transport.aclose()
            return step - 1
    raise AssertionError("it never ran to its end")


async def test_a_read_that_is_cancelled_anywhere_leaves_its_connection_free(
    origin: Origin,
) -> None:
    url = origin.put("/a", BODY)
    assert await sweep(origin, Request(url), BODY) > 3


async def test_a_probe_that_is_cancelled_anywhere_leaves_its_connection_free(
    origin: Origin,
) -> None:
    url = origin.put("/a", BODY)
    assert await sweep(origin, Request(url, Span(0, 1)), BODY[:1]) > 2
