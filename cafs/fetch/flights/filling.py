"""Filling: writes the body of one response into a stream, for one flight.

What has come is written in batches, so that no reader waits for the disk byte by byte, and as soon
as somebody waits for it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec
import trio

from cafs.errors import UnreachableError
from cafs.fetch.flights.blaming import Piece
from cafs.fetch.flights.flight import Flight
from cafs.fetch.sources.budget import Budget
from cafs.transport.interfaces import Response

BATCH: Final = 1 << 20
"""Bytes that are written at once, and the most that a kill loses of one flight."""
Write = Callable[[int, bytes], Awaitable[None]]
"""Keeps bytes that begin at an offset."""
Leave = Callable[[int], bool]
"""Whether to leave the body here, when it has come up to there."""


class Filling(msgspec.Struct, frozen=True, kw_only=True):
    """One body on its way into the store, from where its flight is.

    ``write`` puts it there. ``piece`` is told what is written, None where nobody wants to know.
    ``name`` is what errors call the content.

    Concurrency: one task; ``Flight.write`` may be called by others meanwhile.
    """

    flight: Flight
    write: Write
    budget: Budget
    piece: Piece | None
    name: str

    async def take_until(self, response: Response, stop: int, leave: Leave) -> None:
        """Write what comes, up to ``stop``; less when ``leave`` says so, or the flight ends sooner.

        Raises:
            UnreachableError: the body ended, or broke, before that.
            CafsError: as the response, the budget and the store.

        Cancellation: what has come is written.
        """
        flight, batch = self.flight, self._begin()
        left = False
        try:
            while not left and flight.position + batch.length < min(stop, flight.span.stop):
                data = await response.receive()
                if not data:
                    break
                data = data[: min(stop, flight.span.stop) - flight.position - batch.length]
                await self._keep(batch, data)
                left = leave(flight.position + batch.length)
        finally:
            await self._end(batch)
        if flight.position < min(stop, flight.span.stop) and not left:
            raise UnreachableError(
                f"{self.name}: the body ended at {flight.position}, before {stop}"
            )

    async def take_all(
        self, response: Response, check: Callable[[int], None], leave: Leave
    ) -> bool:
        """Write all that comes; ``check`` is told up to where it reaches, before it is written.

        Returns:
            whether it came to its end, and was not left.

        Raises:
            CafsError: as ``take_until``, and as ``check``.

        Cancellation: what has come is written.
        """
        flight, batch = self.flight, self._begin()
        try:
            while data := await response.receive():
                check(flight.position + batch.length + len(data))
                await self._keep(batch, data)
                if leave(flight.position + batch.length):
                    return False
        finally:
            await self._end(batch)
        return True

    async def take_whole(
        self, response: Response, check: Callable[[int], None], write: Write, leave: Leave
    ) -> bool:
        """Hold all that comes, and ``write`` it when the body has ended; for small ones.

        Of a body that breaks, or is left, what has come is written as that of others is.

        Returns:
            as ``take_all``.

        Raises:
            CafsError: as ``take_until``, as ``check`` and as ``write``.

        Cancellation: what has come is written.
        """
        batch = _Batch()
        try:
            while data := await response.receive():
                check(self.flight.position + batch.length + len(data))
                self._count(batch, data)
                batch.add(data)
                if leave(self.flight.position + batch.length):
                    write = self.write
                    return False
        except BaseException:
            write = self.write
            raise
        finally:
            await self._flush(batch, write)
        return True

    def _begin(self) -> "_Batch":
        batch = _Batch()
        # Who begins to wait for bytes that are here must not wait for those that follow.
        self.flight.write = partial(self._flush, batch, self.write)
        return batch

    async def _end(self, batch: "_Batch") -> None:
        self.flight.write = None
        await self._flush(batch, self.write)

    async def _keep(self, batch: "_Batch", data: bytes) -> None:
        reached = self._count(batch, data)
        if batch.length + len(data) > BATCH:
            await self._flush(batch, self.write)
        batch.add(data)
        due = self.flight.due()
        if batch.length >= BATCH or (due is not None and due <= reached):
            await self._flush(batch, self.write)

    def _count(self, batch: "_Batch", data: bytes) -> int:
        """Tell who counts of bytes that come; up to where they reach."""
        reached = self.flight.position + batch.length + len(data)
        self.flight.arrived(len(data), reached)
        self.budget.take(len(data), self.name)
        return reached

    async def _flush(self, batch: "_Batch", write: Write) -> None:
        """Write what has come, cancelled or not: it would have to be fetched again."""
        if not batch.length:
            return
        flight, piece = self.flight, self.piece
        with trio.CancelScope(shield=True):
            async with batch.writing:
                count, data = batch.all()
                if not count:
                    return  # another call was faster
                await write(flight.position, data)
                if piece is not None and piece.hashing:
                    await trio.to_thread.run_sync(piece.add, data)
                elif piece is not None:
                    piece.add(data)
                batch.drop(count)
                flight.reach(flight.position + len(data))


class _Batch:
    """Bytes that have come and are not written yet. Joined once, and not at all when one piece.

    ``writing`` is held while some of them are written; more may be added meanwhile.
    """

    __slots__ = ("_pieces", "length", "writing")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.length = 0
        self.writing = trio.Lock()

    def add(self, piece: bytes) -> None:
        """Put more behind them."""
        self._pieces.append(piece)
        self.length += len(piece)

    def all(self) -> tuple[int, bytes]:
        """All of them, and in how many pieces they came."""
        return len(self._pieces), b"".join(self._pieces)

    def drop(self, count: int) -> None:
        """Forget so many pieces: they are written."""
        self.length -= sum(map(len, self._pieces[:count]))
        del self._pieces[:count]
