"""What the tests of plugins share: the program's command, and reading a response to its end."""

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cafs.errors import CafsError
from cafs.model.plugging import PluginSpec
from cafs.transport.interfaces import Request, Transport
from cafs.transport.plugins.transport import PluginTransport, open_plugins

PROGRAM = Path(__file__).with_name("plugin_program.py")
PATTERN = bytes(range(251))


def spec(*flags: str, timeout_s: float = 20.0) -> PluginSpec:
    """The plugin for ``x:`` URLs, greeting as the flags say."""
    return PluginSpec("x", (sys.executable, "-I", "-S", str(PROGRAM), *flags), timeout_s)


@asynccontextmanager
async def open_plugin(one: PluginSpec) -> AsyncIterator[PluginTransport]:
    """The transport of one plugin."""
    async with open_plugins([one]) as plugins:
        yield plugins[one.scheme]


def content(start: int, stop: int) -> bytes:
    """What ``x:bytes/N`` has there."""
    return (PATTERN * (stop // 251 + 1))[start:stop]


async def read(transport: Transport, request: Request | str) -> bytes:
    """All that a request brings."""
    asked = Request(request) if isinstance(request, str) else request
    async with await transport.open(asked) as response:
        data = bytearray()
        while piece := await response.receive():
            data += piece
        return bytes(data)


def asking(nursery: trio.Nursery, plugin: PluginTransport, url: str) -> list[CafsError]:
    """Ask meanwhile, of a plugin that does not answer; the error, once it is there."""
    errors: list[CafsError] = []

    async def ask() -> None:
        with pytest.raises(CafsError) as caught:
            await read(plugin, url)
        errors.append(caught.value)

    nursery.start_soon(ask)
    return errors


async def answered(errors: list[CafsError]) -> None:
    """Wait for an error, in tests whose clock is wound by hand."""
    await until(lambda: bool(errors))


async def logged(caplog: pytest.LogCaptureFixture, word: str) -> None:
    """Wait until the plugin has said something; likewise."""
    with caplog.at_level("INFO", "cafs.transport"):
        await until(lambda: word in caplog.text)


async def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < limit
        await trio.to_thread.run_sync(time.sleep, 0.005)
