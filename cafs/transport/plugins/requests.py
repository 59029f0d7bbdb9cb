"""The requests that a program has: numbered, as many at once as it takes, each with its exchange.

Nothing here knows the process. What it says of a request is told to that request's exchange.
"""

import math
from collections.abc import Callable

import trio

from cafs.errors import CafsError
from cafs.transport.plugins.exchange import Exchange
from cafs.transport.plugins.failing import translated
from cafs.transport.plugins.frames import BabbleError, Data, Ended, Failed, Frame, Headed


class Requests:
    """The requests of one program. ``serial`` says that it takes one at a time.

    Concurrency: any number of tasks; those above what the program takes wait for their turn.
    """

    def __init__(self) -> None:
        self.serial = False
        self._turns = trio.CapacityLimiter(1)
        self._open: dict[int, Exchange] = {}
        self._numbers = 0

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._open)

    @property
    def left(self) -> int:
        """How many are under way that nobody waits for any more."""
        return sum(each.left for each in self._open.values())

    def allow(self, count: int | None) -> None:
        """So many at once, None for any number.

        Raises:
            BabbleError: fewer than one.
        """
        if count is not None and count < 1:
            raise BabbleError(f"it takes {count} requests at once")
        self.serial = count == 1
        self._turns.total_tokens = count or math.inf

    def new(self, url: str) -> Exchange:
        """A request that has a number, and no turn yet."""
        self._numbers += 1
        return Exchange(self._numbers, url, credited=not self.serial)

    async def turn(self, exchange: Exchange) -> None:
        """Wait for its turn, for as long as those before it take.

        Cancellation: it has no turn.
        """
        await self._turns.acquire_on_behalf_of(exchange)

    def withdraw(self, exchange: Exchange) -> None:
        """Give its turn back, unused."""
        self._turns.release_on_behalf_of(exchange)

    def begin(self, exchange: Exchange) -> None:
        """It is under way: what the program says of its number is for it."""
        self._open[exchange.number] = exchange

    def take(self, frame: Frame) -> Exchange:
        """Hand on what the program says of a request; whose it was.

        Raises:
            BabbleError: there is no such request, or it cannot be said of it now.
        """
        exchange = self._open.get(frame.number)
        if exchange is None:
            raise BabbleError(f"there is no request {frame.number}")
        match frame:
            case Headed(_, head):
                exchange.headed(head)
            case Data(_, piece):
                exchange.feed(piece)
            case Ended():
                exchange.ended(frame)
            case Failed(_, error):
                exchange.failed(translated(exchange.url, error))
        if exchange.over:
            self._forget(exchange)
        return exchange

    def fail(self, why: Callable[[str], CafsError]) -> None:
        """End all that are under way; ``why`` makes the error of a URL."""
        for exchange in list(self._open.values()):
            exchange.failed(why(exchange.url))
            self._forget(exchange)

    def _forget(self, exchange: Exchange) -> None:
        """Make room for another request; what has come of this one can still be taken."""
        del self._open[exchange.number]
        self._turns.release_on_behalf_of(exchange)
