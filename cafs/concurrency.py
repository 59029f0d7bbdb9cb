"""Small trio tools that several layers share: one flight per key, keyed locks, a few at once.

No ``await`` lies between reading and writing the shared state here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

from cafs.errors import CafsError

T = TypeVar("T")


class KeyedLocks:
    """Locks by key, made on first use and forgotten with their last user.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self) -> None:
        self._locks: dict[Hashable, trio.Lock] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the key's lock; first come, first served.

        Cancellation: the lock is not held, or let go.
        """
        lock = self._locks.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            unused = not lock.locked() and not lock.statistics().tasks_waiting
            if unused and self._locks.get(key) is lock:
                del self._locks[key]


class Flights(Generic[T]):
    """Joins concurrent calls for one key: the first runs, the others take its result.

    A leader that fails fails alone: one of its waiters runs again, with a deadline of its own. So
    does a waiter whose leader was cancelled.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self) -> None:
        self._locks = KeyedLocks()
        self._landed: dict[Hashable, T] = {}
        self._waiting: dict[Hashable, int] = {}

    async def run(self, key: Hashable, fly: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``fly``, or of another caller's that was under way.

        Cancellation: the caller leaves; when it was the one that ran, the next waiter runs.
        """
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            async with self._locks.hold(key):
                if key in self._landed:
                    return self._landed[key]
                result = await fly()
                if self._waiting[key] > 1:
                    self._landed[key] = result
                return result
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
                self._landed.pop(key, None)


async def in_order(
    one: Callable[[int], Awaitable[T]], count: int, *, at_once: int
) -> tuple[T, ...]:
    """What ``one`` gives for each number below ``count``, a few of them at once.

    Raises:
        CafsError: that of the first that failed, alone; the others are cancelled.

    Cancellation: that of all of them.
    """
    answers: dict[int, T] = {}
    failures: list[CafsError] = []
    limiter = trio.CapacityLimiter(at_once)

    async def ask(number: int) -> None:
        async with limiter:
            try:
                answers[number] = await one(number)
            except CafsError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(ask, number)
    if failures:
        raise failures[0]
    return tuple(answers[number] for number in range(count))
