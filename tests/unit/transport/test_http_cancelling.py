"""Cancelling the HTTP transport at every step: its one connection stays usable."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import trio
from typing_extensions import override

from cafs.model.span import Span
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport, tls_context
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies
from tests.unit.transport.clients import read
from tests.unit.transport.raw_server import greet, server_side, serving, tunnelling

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


async def sweep(origin: Origin, request: Request, expected: bytes) -> int:
    """Cancel at the 1st, 2nd, … step until a read passes untouched; how many were cancelled."""
    transport = HttpTransport(limits=HttpLimits(connections=1))
    for step in range(1, _MOST):
        untouched = await cancelled_at(step, transport, request)
        with trio.fail_after(60):
            assert await read(transport, request) == expected
        if untouched:
            await transport.aclose()
            return step - 1
    raise AssertionError("it never ran to its end")


async def cancelled_at(step: int, transport: HttpTransport, request: Request) -> bool:
    """Read, and cancel that at a step; whether it passed untouched."""
    instrument = CancelAt(step)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            await read(transport, request)
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return not instrument.scope.cancelled_caught


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


WAYS: Final = ["plain", "tls", "proxy", "tls proxy", "tunnel", "tunnel of a tls proxy"]


@asynccontextmanager
async def way_to_a_server(way: str, certificate: Path) -> AsyncIterator[tuple[str, Proxies]]:
    """A server; its URL, and the proxies that the way to it goes through."""
    tls = server_side(certificate)
    tunnels = "tunnel" in way
    async with (
        serving(greet, tls if tunnels or way in {"tls", "tls proxy"} else None) as port,
        tunnelling(port, tls if way == "tunnel of a tls proxy" else None) as tunnel,
    ):
        proxies = {
            "proxy": Proxies(http=f"http://127.0.0.1:{port}"),
            "tls proxy": Proxies(http=f"https://127.0.0.1:{port}"),
            "tunnel": Proxies(https=f"http://127.0.0.1:{tunnel}"),
            "tunnel of a tls proxy": Proxies(https=f"https://127.0.0.1:{tunnel}"),
        }
        scheme = "https" if tunnels or way == "tls" else "http"
        yield f"{scheme}://127.0.0.1:{port}/", proxies.get(way, Proxies())


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_read_that_is_cancelled_anywhere_leaves_its_place_free(
    certificate: Path, way: str
) -> None:
    tls, limits = partial(tls_context, certificate), HttpLimits(connections=1)
    async with way_to_a_server(way, certificate) as (url, proxies):
        for step in range(1, _MOST):
            transport = HttpTransport(limits=limits, tls=tls, proxies=proxies)
            untouched = await cancelled_at(step, transport, Request(url))
            with trio.fail_after(60):
                assert await read(transport, Request(url)) == b"hello"
            await transport.aclose()
            if untouched:
                assert step > 5
                return
    raise AssertionError("it never ran to its end")
