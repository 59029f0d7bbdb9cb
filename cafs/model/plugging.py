"""Plugins: programs that fetch URLs of a scheme of their own."""

from typing import Final

import msgspec

PROGRAM: Final = "cafs-transport-"
"""What the name of a plugin's program starts with; the scheme follows."""
SILENCE_S: Final = 30.0
"""How long a plugin may say nothing about a request before that fails."""


class PluginSpec(msgspec.Struct, frozen=True):
    """A program that is enabled for ``scheme`` (lower case, without the colon).

    ``command`` is an absolute path, or a name to look for in PATH, and its arguments.
    ``timeout_s`` bounds its silence about a request.
    """

    scheme: str
    command: tuple[str, ...]
    timeout_s: float = SILENCE_S
