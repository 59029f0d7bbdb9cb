"""What the targets of the parsers share.

A target is a module ``<name>_fuzz`` with ``one``, which takes an input of at most ``MOST`` bytes.
Whatever the input is, nothing but an error of cafs may come of it, and of that only what content
can be blamed for. The first bytes of an input say how it is taken, the rest is what is parsed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Final, Protocol

from cafs.errors import MalformedError, UnsupportedError
from cafs.model.limits import Limits

PARSERS: Final = ("tar", "zip", "gzip", "contents", "index", "frames")
LIMITS: Final = Limits(
    members=1000,
    path_bytes=512,
    depth=32,
    header_bytes=16 << 10,
    size=8 << 20,
    ratio=2000,
    free_bytes=1 << 20,
)
"""Small, so that inputs meet them, and an input takes milliseconds."""
LONGEST: Final = 3000
"""Characters of a message, at most."""
STEPS: Final = (1 << 20, 1, 7, 511)
"""Bytes that one read gives, at most."""


class Target(Protocol):
    """A module that takes inputs."""

    MOST: int

    @staticmethod
    def one(data: bytes) -> None:
        """Take an input.

        Raises:
            AssertionError: a parser said what cannot be.
            Exception: whatever else a parser let through.
        """


def target(name: str) -> Target:
    """The target of a parser."""
    module: Target = import_module(f"tests.fuzz.{name}_fuzz")  # type: ignore[assignment]
    return module


@contextmanager
def content_to_blame() -> Iterator[None]:
    """What content can be blamed for ends quietly."""
    try:
        yield
    except (MalformedError, UnsupportedError) as error:
        line = error.line
    else:
        return
    assert 0 < len(line) < LONGEST, "a message that shows too much of the content"
    assert line.isprintable(), line


class Given:
    """Bytes as a source gives them: ``step`` at most, none only at the end."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step
        self.at = 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        assert size > 0
        piece = self._data[self.at : self.at + min(size, self._step)]
        self.at += len(piece)
        return piece
