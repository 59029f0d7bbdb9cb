"""Turns: what only one may do at a time, by what it is done to."""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager

from typing_extensions import override

from cafs.fetch.pulse import Pulse
from cafs.labour import Turn


class Turns:
    """Turns that are there for as long as somebody wants them.

    Concurrency: one trio run.
    """

    def __init__(self) -> None:
        self._turns: dict[Hashable, Turn] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable, pulse: Pulse) -> AsyncIterator[None]:
        """Be the only one, once those who came before are done.

        Who waits hears of the work of who has it, and of what moves for him.

        Args:
            key: what it is done to.
            pulse: that of who holds it; it passes nothing on elsewhere.

        Cancellation: while it waits, and in the body.
        """
        turn = self._turns.setdefault(key, Turn())
        try:
            async with turn.hold() as beat:
                pulse.pass_on(_Overheard(beat))
                try:
                    yield
                finally:
                    pulse.pass_on(None)
        finally:
            if turn.free():
                self._turns.pop(key, None)


class _Overheard(Pulse):
    """What moves for who has a turn, told to those who wait for it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    @override
    def beat(self, count: int = 0) -> None:
        super().beat(count)
        self._tell()
