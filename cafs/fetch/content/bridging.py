"""The bridge from a worker thread to the trio thread: raw bytes, pulled forward."""

from collections.abc import Awaitable, Callable

import trio

from cafs.model.digest import Hasher
from cafs.model.span import Span
from cafs.store.streams.witness import Seen
from cafs.store.tables.records import Incarnation

PIECE = 1 << 20
"""Bytes that are asked for at once: a crossing costs 100 µs, the hash of a piece 700 µs."""

Pull = Callable[[int, int], Awaitable[bytes]]
"""Returns ``length`` bytes at ``offset``; fewer only at the end. Called on the trio thread."""


class Intake:
    """Reads raw bytes from the front, in a worker thread, hashing each of them once.

    A cancelled pass ends here: the next ``read`` raises ``trio.Cancelled``. ``of`` says what the
    bytes that were pulled are bytes of.

    Concurrency: one thread, started by ``trio.to_thread``.
    """

    def __init__(
        self,
        pull: Pull,
        hasher: Hasher | None,
        *,
        offset: int = 0,
        of: Callable[[], Incarnation | None] = lambda: None,
    ) -> None:
        self._pull = pull
        self.hasher = hasher
        self._position = offset
        self._of = of
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        """The next bytes: at most ``size``, none only at the end."""
        if not self._piece:
            data = trio.from_thread.run(self._pull, self._position, PIECE)
            self._position += len(data)
            if self.hasher is not None:
                self.hasher.update(data)
            self._piece = memoryview(data)
        taken = bytes(self._piece[:size])
        self._piece = self._piece[size:]
        return taken

    def seen(self) -> Seen | None:
        """The hashes of what was read; None where nobody asked for them."""
        return None if self.hasher is None else Seen(self.hasher, self._of())

    def drain(self) -> None:
        """Read to the end, so that the hash is that of everything."""
        while self.read(PIECE):
            pass


class Buffered:
    """Reads a span forward, by large pieces: each crossing to the trio thread costs 100 µs.

    Concurrency: one worker thread.
    """

    def __init__(self, read: Callable[[int, int], bytes], span: Span) -> None:
        self._read = read
        self._stop = span.stop
        self._at = span.start
        self._piece = b""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes there, which do not lie before those that were read last."""
        wanted = Span(offset, min(offset + length, self._stop))
        if wanted.start < self._at or wanted.stop > self._at + len(self._piece):
            size = min(max(PIECE, wanted.length), self._stop - offset)
            self._at, self._piece = offset, self._read(offset, size)
        return self._piece[offset - self._at :][: wanted.length]
