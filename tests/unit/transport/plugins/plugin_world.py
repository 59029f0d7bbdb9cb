"""What the tests of plugins share: the program's command, and reading a response to its end."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

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
