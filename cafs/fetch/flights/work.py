"""Shared work: one task does it, whoever needs it waits, and it ends with the last of them.

Fetching and checking a whole blob, decoding one segment and a first pass are such works. Ranges of
raw content have rules of their own: ``flight`` and ``lane``.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio
from typing_extensions import override

from cafs.errors import CafsError, SourceError
from cafs.fetch.flights.waiting import Waiter
from cafs.fetch.interfaces import Patience, Priority
from cafs.fetch.pulse import Pulse
from cafs.fetch.sources.failures import Failures
from cafs.labour import Labour
from cafs.metrics import Metrics

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


class Work(Pulse, Generic[T]):
    """A piece of work under way; its progress is that of everyone who waits for it.

    Concurrency: one trio run.
    """

    def __init__(self, linger_s: float) -> None:
        super().__init__()
        self.waiters: set[Waiter] = set()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.result: tuple[T] | None = None
        self.error: Exception | None = None
        self._linger_s = linger_s

    def priority(self) -> Priority:
        """That of its most urgent waiter."""
        return min((one.priority() for one in self.waiters), default=Priority.PREFETCH)

    def patience(self) -> Patience:
        """The patience with which it waits itself: its waiters leave when theirs has ended."""
        return Patience(None, self.priority(), pulse=self, rising=self.priority)

    @override
    def beat(self, count: int = 0) -> None:
        super().beat(count)
        for waiter in self.waiters:
            waiter.beat(count)

    @override
    def passed(self, count: int) -> None:
        super().passed(count)
        for waiter in self.waiters:
            waiter.passed(count)

    @override
    def note(self, reason: CafsError) -> None:
        super().note(reason)
        for waiter in self.waiters:
            waiter.note(reason)

    @override
    def does(self, what: str) -> None:
        super().does(what)
        for waiter in self.waiters:
            waiter.does(what)

    def enter(self, waiter: Waiter) -> None:
        """Somebody waits; for the end of it, when it has been cancelled."""
        self.waiters.add(waiter)
        waiter.does(self.doing)
        if not self.scope.cancel_called:
            self.scope.deadline = math.inf

    def leave(self, waiter: Waiter) -> None:
        """Somebody waits no more; without the last one it goes on for the time it may linger."""
        self.waiters.discard(waiter)
        if self.waiters or self.ended.is_set():
            return
        if self._linger_s:
            self.scope.deadline = trio.current_time() + self._linger_s
        else:
            self.scope.cancel()

    def end(self) -> None:
        """Wake everybody."""
        self.ended.set()
        for waiter in self.waiters:
            waiter.wake()


class Works(Generic[T]):
    """The works under way, by key.

    Concurrency: any number of tasks of one trio run; nothing between reading and writing the
    shared state awaits.
    """

    def __init__(self, nursery: trio.Nursery, failures: Failures, metrics: Metrics) -> None:
        self._nursery = nursery
        self._metrics = metrics
        self._failures = failures
        self._works: dict[Hashable, Work[T]] = {}

    async def join(
        self,
        key: Hashable,
        what: str,
        run: Callable[[Work[T]], Awaitable[T]],
        patience: Patience,
        *,
        linger_s: float = 0.0,
    ) -> T:
        """Return what ``run`` returns, or what it returns to another who came before.

        Args:
            key: works of one key are the same work.
            what: names it in errors.
            run: does it; called in a task of the fetcher's with the work, whose pulse it beats.
            patience: that of this waiter.
            linger_s: seconds for which it goes on without any waiter.

        Raises:
            CrowdedError: too many wait already; nothing is begun.
            DeadlineError, UnreachableError: no progress for as long as this waiter waits.
            CafsError: what ``run`` raised, to all who wait, and to those who come right after.

        Cancellation: the waiter leaves; the work ends with its last one.
        """
        while True:
            self._failures.check(key, patience)
            patience.begin()  # first, so that one who may not wait begins nothing
            work = self._works.get(key)
            if work is not None and work.scope.cancel_called:
                await self._attend(work, key, Waiter(what, patience))
                continue
            if work is None:
                work = self._start(key, run, linger_s)
            else:
                self._metrics.add("fetch.joined")
            await self._attend(work, key, Waiter(what, patience))
            if work.error is not None:
                raise work.error.with_traceback(None)
            if work.result is not None:
                return work.result[0]

    def check(self, key: Hashable, patience: Patience) -> None:
        """Fail as that work failed a moment ago.

        Raises:
            CafsError: the failure that is remembered.
        """
        self._failures.check(key, patience)

    def start(self, key: Hashable, run: Callable[[Work[T]], Awaitable[T]]) -> None:
        """Begin work that nobody waits for, unless it is under way; its failure is logged."""
        if key not in self._works:
            self._start(key, run, linger_s=math.inf)

    def _start(
        self, key: Hashable, run: Callable[[Work[T]], Awaitable[T]], linger_s: float
    ) -> Work[T]:
        work = Work[T](linger_s)
        self._works[key] = work
        self._nursery.start_soon(self._perform, key, work, run)
        return work

    async def _attend(self, work: Work[T], key: Hashable, waiter: Waiter) -> None:
        pulse = waiter.patience.pulse
        doing = "" if pulse is None else pulse.doing
        work.enter(waiter)
        try:
            await waiter.wait()
        except SourceError as error:
            deadline_s = waiter.patience.deadline_s
            self._failures.remember(
                key, error, deadline_s=math.inf if deadline_s is None else deadline_s
            )
            raise
        finally:
            work.leave(waiter)
            if pulse is not None:
                pulse.does(doing)

    async def _perform(
        self, key: Hashable, work: Work[T], run: Callable[[Work[T]], Awaitable[T]]
    ) -> None:
        try:
            with work.scope, Labour(work.beat).heard():
                work.result = (await run(work),)
        except CafsError as error:
            work.error = error
            self._failures.remember(key, error)
            if not work.waiters:
                _LOG.info("fetch.work.failed: %s", error.line)
        except Exception as bug:  # noqa: BLE001 - carried to the waiters, who raise it
            work.error = bug
            _LOG.exception("fetch.work.broke: %r", key)
        finally:
            del self._works[key]
            work.end()
