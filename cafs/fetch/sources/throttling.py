"""Throttling: what prefetches receive, kept to a rate, and out of the way of readers.

Only what prefetches alone want is throttled, and only as long as that is so: as soon as a reader
wants it too, it is fetched as fast as it comes.
"""

from collections.abc import Callable
from typing import Final, Protocol

import trio
from typing_extensions import override

from cafs.transport.interfaces import Response
from cafs.transport.wrapping import Wrapper

BURST_S: Final = 0.1
"""What a timer oversleeps, and what was not used lately, is made up for within this time."""
_USUAL: Final = 64 << 10
"""How much a piece of a body is taken to be before the first one has come."""
_POLL_S: Final = 0.05
"""How often a prefetch looks whether readers still wait, which may be other processes'."""
_STEP_AS: Final = 5.0
"""The longest that a prefetch stands aside at a time: a server gives up who never reads."""


class Throttle:
    """A rate, shared by all who take of it in turn. Pure; acts on nothing.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._free = 0.0
        self._usual = float(_USUAL)

    def reserve(self, now: float) -> tuple[float, float]:
        """Queue for a piece of unknown size: when it may be received, and what it was taken for."""
        if self._rate is None:
            return now, 0.0
        at = max(self._free, now - BURST_S)
        self._free = at + self._usual / self._rate
        return max(at, now), self._usual

    def settle(self, reserved: float, actual: int) -> None:
        """The piece has come."""
        if self._rate is not None:
            self._free += (actual - reserved) / self._rate
            self._usual += 0.25 * (actual - self._usual) if actual else 0.0


class Hurry(Protocol):
    """Where readers of one process say to others that they wait."""

    def claim(self) -> None:
        """Readers wait here."""

    def release(self) -> None:
        """None wait any more."""

    def claimed(self) -> bool:
        """Whether readers wait elsewhere."""


class Alone(Hurry):
    """There is no other process."""

    @override
    def claim(self) -> None:
        pass

    @override
    def release(self) -> None:
        pass

    @override
    def claimed(self) -> bool:
        return False


class Lull(Protocol):
    """Says when a request is to stand aside."""

    def throttled(self) -> bool:
        """Whether the request is a prefetch's alone."""

    def hurried(self) -> bool:
        """Whether a reader waits, here or in another process."""

    def beat(self) -> None:
        """The one who waits is not stuck."""


class Paced(Wrapper):
    """A response that is received at the pace of its request, each piece told to ``arrived``.

    Concurrency: as ``Response``.
    """

    def __init__(
        self, inner: Response, lull: Lull, throttle: Throttle, arrived: Callable[[int], None]
    ) -> None:
        super().__init__(inner)
        self._lull = lull
        self._throttle = throttle
        self._arrived = arrived

    @override
    async def receive(self) -> bytes:
        if not self._lull.throttled():
            data = await self._inner.receive()
            self._arrived(len(data))
            return data
        await stand_aside(self._lull)
        at, reserved = self._throttle.reserve(trio.current_time())
        actual = 0
        try:
            await _sleep_until(at, self._lull)
            data = await self._inner.receive()
            actual = len(data)
        finally:
            self._throttle.settle(reserved, actual)
        self._arrived(actual)
        return data


async def stand_aside(lull: Lull) -> None:
    """Wait while readers wait, for a few seconds at most.

    Cancellation: no effect.
    """
    end = trio.current_time() + _STEP_AS
    while lull.throttled() and lull.hurried() and trio.current_time() < end:
        lull.beat()
        await trio.sleep(_POLL_S)


async def _sleep_until(at: float, lull: Lull) -> None:
    """Wait for a time, or until a reader wants it; it may be long at a low rate."""
    while lull.throttled() and (left := at - trio.current_time()) > 0:
        lull.beat()
        await trio.sleep(min(left, _POLL_S))
