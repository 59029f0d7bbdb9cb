"""What the tests of plugins share: the program's command, and reading a response to its end."""

import sys
from pathlib import Path

from cafs.model.plugging import PluginSpec
from cafs.transport.interfaces import Request, Transport

PROGRAM = Path(__file__).with_name("plugin_program.py")
PATTERN = bytes(range(251))


def spec(*flags: str, timeout_s: float = 20.0) -> PluginSpec:
    """The plugin for ``x:`` URLs, greeting as the flags say."""
    return PluginSpec("x", (sys.executable, "-I", "-S", str(PROGRAM), *flags), timeout_s)


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
