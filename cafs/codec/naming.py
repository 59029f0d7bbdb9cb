"""How errors show what strangers wrote: a message is one line of text, and not a long one."""

from typing import Final

_LONGEST: Final = 200
"""Characters of a path, or a text, that a message shows; hostile ones are megabytes long."""


def label(name: str, path: bytes) -> str:
    """``<archive>: member '<path>'``, printable and on one line."""
    return f"{name}: member {quoted(path[: _LONGEST * 4].decode('utf-8', 'backslashreplace'))}"


def quoted(text: str) -> str:
    """A text in quotes, printable and on one line; its beginning if it is long."""
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")


def told(text: str) -> str:
    """A text as it is, where that is one printable line and not a long one; else in quotes."""
    return text if text.isprintable() and len(text) <= _LONGEST else quoted(text)
