"""How errors name a member: its path is bytes from a stranger, the message is one line of text."""

from typing import Final

_LONGEST: Final = 200
"""Characters of a path that a message shows; hostile ones are megabytes long."""


def label(name: str, path: bytes) -> str:
    """``<archive>: member '<path>'``, printable and on one line."""
    text = path[: _LONGEST * 4].decode("utf-8", "backslashreplace")
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "…"
    return f"{name}: member {text!r}"
