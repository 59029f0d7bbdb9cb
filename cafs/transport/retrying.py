"""Retrying: asks again when asking again may help, after longer and longer delays."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import trio
from typing_extensions import override

from cafs.errors import CafsError, UnreachableError
from cafs.metrics import Metrics
from cafs.transport.interfaces import Request, Response, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often to ask again, and how long to wait before (Y-6).

    ``retries`` come after the first attempt. The delay after attempt n (from 0) is
    ``initial_s * multiplier ** n``, at most ``cap_s``; ``fixed`` makes it ``initial_s``. ``jitter``
    adds up to half of it, so that many readers do not come back at the same moment. A source's
    Retry-After is obeyed, up to ``retry_after_cap_s``: a reader waits, and nobody sits through an
    hour.
    """

    retries: int = 9
    initial_s: float = 0.25
    multiplier: float = 2.3
    cap_s: float = 30.0
    jitter: bool = True
    fixed: bool = False
    retry_after_cap_s: float = 120.0

    def delay_s(self, attempt: int, *, asked_s: float | None = None, chance: float = 0.0) -> float:
        """Seconds to wait after an attempt that failed.

        Args:
            attempt: its number, from 0.
            asked_s: the Retry-After of its answer, if it had one.
            chance: in [0, 1): how much of the jitter to add.
        """
        delay = self.initial_s if self.fixed else self._grown(attempt)
        if self.jitter:
            # Y-6 counts whole milliseconds, both ends included.
            delay += int(chance * (int(delay * 1000 / 2) + 1)) / 1000
        if asked_s is not None:
            delay = max(delay, min(asked_s, self.retry_after_cap_s))
        return delay

    def _grown(self, attempt: int) -> float:
        try:
            return min(self.initial_s * self.multiplier**attempt, self.cap_s)
        except OverflowError:
            return self.cap_s


class Retrying(Transport):
    """Opens again what failed for a reason that may pass. A body that breaks is its reader's.

    ``Request.attempts`` lowers the number of attempts, ``Request.failed`` is told of each failure
    that is not raised.

    Args:
        transport: what is asked.
        policy: how often and how slowly.
        metrics: counts the retries.
        chance: a number in [0, 1) for each delay's jitter.
    """

    def __init__(
        self,
        transport: Transport,
        policy: RetryPolicy,
        metrics: Metrics,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport
        self._policy = policy
        self._metrics = metrics
        self._chance = chance

    @override
    async def open(self, request: Request) -> Response:
        last = self._policy.retries
        if request.attempts is not None:
            last = min(last, max(request.attempts, 1) - 1)
        attempt = 0
        while True:
            try:
                return await self._transport.open(request)
            except CafsError as error:
                # The last failure is raised at once: a delay after it would help nobody.
                if not error.transient or attempt >= last:
                    raise
                if request.failed is not None:
                    request.failed(error)
                asked_s = error.retry_after_s if isinstance(error, UnreachableError) else None
            self._metrics.add("fetch.retries")
            await trio.sleep(self._policy.delay_s(attempt, asked_s=asked_s, chance=self._chance()))
            attempt += 1

    @override
    async def aclose(self) -> None:
        await self._transport.aclose()
