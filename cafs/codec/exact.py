"""Input cut into exact pieces, for who walks through a format that says how long its parts are."""

from collections.abc import Callable
from typing import Final

from cafs.errors import MalformedError

_INPUT: Final = 128 << 10


class Exact:
    """Input that is taken by the piece, and knows where it stands.

    Args:
        read: the input. Its errors pass through unchanged.
        codec: what errors call the format.
        name: what errors call the input.

    Concurrency: one caller at a time, in a thread.
    """

    def __init__(self, read: Callable[[int], bytes], *, codec: str, name: str) -> None:
        self._read = read
        self._what = f"{name}: the {codec} data"
        self._data = b""
        self._start = 0
        self._behind = 0

    @property
    def at(self) -> int:
        """How many bytes were taken."""
        return self._behind - len(self._data) + self._start

    def ended(self) -> bool:
        """Whether there is nothing more."""
        if self._start == len(self._data):
            self._more(b"")
        return not self._data

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes.

        Raises:
            MalformedError: there are not so many.
        """
        while len(self._data) - self._start < size:
            if not self._more(self._data[self._start :]):
                raise MalformedError(f"{self._what} ends too early")
        piece = self._data[self._start : self._start + size]
        self._start += size
        return piece

    def any(self) -> bytes:
        """What is at hand, a byte at least.

        Raises:
            MalformedError: there is none.
        """
        first = self.take(1)
        return first + self.take(len(self._data) - self._start)

    def back(self, size: int) -> None:
        """Give back the last bytes that ``any`` has returned, before anything else is taken."""
        self._start -= size

    def skip(self, size: int) -> None:
        """Pass over exactly so many bytes.

        Raises:
            MalformedError: there are not so many.
        """
        while size > 0:
            step = min(size, _INPUT)
            self.take(step)
            size -= step

    def skip_zeros(self) -> int:
        """Pass over all zeros that follow, and return how many there were."""
        begin = self.at
        while not self.ended():
            rest = self._data[self._start :].lstrip(b"\0")
            self._start = len(self._data) - len(rest)
            if rest:
                break
        return self.at - begin

    def _more(self, kept: bytes) -> bool:
        """Read on behind what is kept; whether there was more."""
        more = self._read(_INPUT)
        self._behind += len(more)
        self._data, self._start = kept + more, 0
        return bool(more)
