"""Labour: work of our own that takes long, told to those who wait for it while it is done.

Who waits gives up when nothing has moved for a while. What moves is not only bytes that come: ten
seconds of decoding are progress too. So whatever works for long in a thread says ``worked`` after
each small part of it: so many members, a megabyte, a transaction. That costs a microsecond, and is
heard by whoever had it done, some times a second. Nothing here beats by itself: work that hangs
says nothing.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Final, TypeVar

import trio

T = TypeVar("T")
_OFTEN_S: Final = 0.02
"""Between two that are told: each wakes the trio thread."""


class Labour:
    """Hears of the work that a task does, and has done in threads; ``beat`` is told of it.

    Concurrency: made in a trio run, in whose thread ``beat`` is called; ``step`` in any thread.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self.beat = beat
        self._token = trio.lowlevel.current_trio_token()
        self._told = 0.0

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Hear of what is done in the block, and in the threads and tasks that it begins."""
        before = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(before)

    def step(self) -> None:
        """A part of it was done."""
        now = time.monotonic()
        if now - self._told >= _OFTEN_S:
            self._told = now
            with suppress(trio.RunFinishedError):  # then nobody waits any more
                self._token.run_sync_soon(self.beat, idempotent=True)


_CURRENT: Final[ContextVar[Labour | None]] = ContextVar("cafs-labour", default=None)


def worked() -> None:
    """Say that a part of something long was done, to whom it concerns; in any thread."""
    labour = _CURRENT.get()
    if labour is not None:
        labour.step()


class _Queue:
    """Those who wait until others, who work, make room."""

    def __init__(self) -> None:
        self._waiting: dict[object, Callable[[], None]] = {}

    @contextmanager
    def wait(self) -> Iterator[Callable[[], object]]:
        """Hear in the block what those do who do not wait; call what it gives to wait no more."""
        place, own = object(), _CURRENT.get()
        if own is not None:
            self._waiting[place] = own.beat
        try:
            yield lambda: self._waiting.pop(place, None)
        finally:
            self._waiting.pop(place, None)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Let those who wait hear of what is done in the block, too."""
        own = _CURRENT.get()

        def beat() -> None:
            if own is not None:
                own.beat()
            for each in list(self._waiting.values()):
                each()

        with Labour(beat).heard():
            yield


class Threads:
    """A number of threads for long work.

    Who waits for one hears of the work that is done in them, as if it were its own. ``limiter``
    is for short work in one of the same.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self, count: int) -> None:
        self.limiter = trio.CapacityLimiter(count)
        self._queue = _Queue()

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, which is done in one of them.

        Cancellation: as ``trio.to_thread.run_sync``: carried through, once it was begun.
        """
        with self._queue.wait() as end:

            def run() -> T:
                end()
                return work()

            with self._queue.work():
                return await trio.to_thread.run_sync(run, limiter=self.limiter)


class Turn:
    """A lock; who waits for it hears of the work of who has it, as if it were its own.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._queue = _Queue()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold it; first come, first served.

        Cancellation: it is not held, or let go.
        """
        with self._queue.wait():
            await self._lock.acquire()
        try:
            with self._queue.work():
                yield
        finally:
            self._lock.release()
