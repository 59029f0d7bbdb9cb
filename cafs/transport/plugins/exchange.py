"""One request to a plugin, between the task that reads its stdout and the one that wants bytes.

Bytes wait here until they are taken, at most a window of them; a plugin is told how many more it
may send as they are taken, so that one slow reader stops nobody but itself.
"""

from collections import deque

import trio

from cafs.errors import CafsError
from cafs.transport.plugins.frames import WINDOW, BabbleError, Ended, HeadSays


class Exchange:
    """A request under way. ``head`` and ``end`` are None until they have come.

    ``left`` says that nobody waits any more: what still comes is dropped.

    Concurrency: one task that reads, one that feeds.
    """

    def __init__(self, number: int, url: str, *, credited: bool) -> None:
        self.number = number
        self.url = url
        self.head: HeadSays | None = None
        self.end: Ended | None = None
        self.failure: CafsError | None = None
        self.left = False
        self._credited = credited
        self._allowed = WINDOW
        self._taken = 0
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._news = trio.Event()
        self._room = trio.Event()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.end is not None or self.failure is not None

    def headed(self, says: HeadSays) -> None:
        """The head has come.

        Raises:
            BabbleError: for the second time.
        """
        if self.head is not None:
            raise BabbleError(f"request {self.number} has two heads")
        self.head = says
        self._tell()

    def feed(self, piece: bytes) -> None:
        """Bytes have come.

        Raises:
            BabbleError: before the head, or more of them than were allowed.
        """
        if self.head is None:
            raise BabbleError(f"request {self.number} has data before its head")
        self._allowed -= len(piece)
        if self._credited and self._allowed < 0:
            raise BabbleError(f"request {self.number} has sent more than it was allowed")
        if self.left or not piece:
            return
        self._pieces.append(piece)
        self._waiting += len(piece)
        self._tell()

    def ended(self, end: Ended) -> None:
        """The end has come.

        Raises:
            BabbleError: there is no answer that it could be the end of.
        """
        if end.cached == (self.head is not None):
            raise BabbleError(f"request {self.number} has an end that does not fit its head")
        self.end = end
        self._tell()

    def failed(self, error: CafsError) -> None:
        """Nothing more will come, and this is why. What has come can still be taken."""
        if not self.over:
            self.failure = error
            self._tell()

    def leave(self) -> None:
        """Nobody waits any more."""
        self.left = True
        self._pieces.clear()
        self._waiting = 0
        self._room.set()

    async def opened(self) -> HeadSays | Ended:
        """The head, or the end when that is the whole answer.

        Raises:
            CafsError: why there is none.

        Cancellation: no effect.
        """
        while self.head is None:
            if self.end is not None:
                return self.end
            if self.failure is not None:
                raise self.failure
            await self._news.wait()
        return self.head

    async def take(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            CafsError: why it broke off.

        Cancellation: no effect.
        """
        while not self._pieces:
            if self.end is not None:
                return b""
            if self.failure is not None:
                raise self.failure
            await self._news.wait()
        piece = self._pieces.popleft()
        self._waiting -= len(piece)
        self._taken += len(piece)
        self._room.set()
        return piece

    async def wait_over(self) -> None:
        """Wait until nothing more will come.

        Cancellation: no effect.
        """
        while not self.over:
            await self._news.wait()

    def credit(self) -> int:
        """How many more bytes to allow now; 0 when it is too early to speak of it."""
        if not self._credited or self.over or self._taken < WINDOW // 4:
            return 0
        granted, self._taken = self._taken, 0
        self._allowed += granted
        return granted

    async def room(self) -> None:
        """Wait until less than a window waits, for as long as the reader takes.

        Only where there is no credit: there nothing else holds the plugin back.

        Cancellation: no effect.
        """
        while not self._credited and self._waiting >= WINDOW:
            self._room = trio.Event()
            await self._room.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()
