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
from typing_extensions import override

T = TypeVar("T")
_OFTEN_S: Final = 0.02
"""Between two that are told: each wakes the trio thread."""


class _Pace:
    """How often somebody is told; not at once, so that nobody hears of what is short.

    Concurrency: any thread; two at one moment may both find it due.
    """

    def __init__(self) -> None:
        self._told = time.monotonic()

    def due(self) -> bool:
        """Whether it was long ago; then it is told now."""
        now = time.monotonic()
        if now - self._told < _OFTEN_S:
            return False
        self._told = now
        return True


class Labour:
    """Hears of the work that a task does, and has done in threads; ``beat`` is told of it.

    Concurrency: made in a trio run, in whose thread ``beat`` is called; ``step`` in any thread.
    """

    def __init__(self, beat: Callable[[], None]) -> None:
        self.beat = beat
        self._pace = _Pace()
        self._token = trio.lowlevel.current_trio_token()

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
        if self._pace.due():
            self.soon(self.beat)

    def soon(self, tell: Callable[[], None]) -> None:
        """Have it called in the trio thread; in any thread."""
        with suppress(trio.RunFinishedError):  # then nobody waits any more
            self._token.run_sync_soon(tell, idempotent=True)


_CURRENT: Final[ContextVar[Labour | None]] = ContextVar("cafs-labour", default=None)


def worked() -> None:
    """Say that a part of something long was done, to whom it concerns; in any thread."""
    labour = _CURRENT.get()
    if labour is not None:
        labour.step()


class _Queue:
    """Those who wait until others, who work, make room.

    However many work, and however short, all who wait are told at one pace.
    """

    def __init__(self) -> None:
        self._waiting: dict[object, Callable[[], None]] = {}
        self._pace = _Pace()
        self._telling = False

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
        with _Shared(self, _CURRENT.get()).heard():
            yield

    def step(self, labour: Labour) -> None:
        """A part of that was done; in any thread."""
        if self._pace.due():
            labour.soon(self._tell)

    def beat(self) -> None:
        """Something moved for one who works; in the trio thread."""
        if self._pace.due():
            self._tell()

    def _tell(self) -> None:
        if self._telling:  # who waits is told, and works for others here himself
            return
        self._telling = True
        try:
            for each in list(self._waiting.values()):
                each()
        finally:
            self._telling = False


class _Shared(Labour):
    """Work for which others wait, too: those of ``queue``; ``own`` is whoever has it done."""

    def __init__(self, queue: _Queue, own: Labour | None) -> None:
        super().__init__(self._pass_on)
        self._queue = queue
        self._own = own

    @override
    def step(self) -> None:
        if self._own is not None:
            self._own.step()
        self._queue.step(self)

    def _pass_on(self) -> None:
        if self._own is not None:
            self._own.beat()
        self._queue.beat()


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

    def free(self) -> bool:
        """Whether nobody has it, or waits for it."""
        statistics = self._lock.statistics()
        return not statistics.locked and not statistics.tasks_waiting

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Callable[[], None]]:
        """Hold it; first come, first served.

        What it gives tells those who wait that something moved which is no work, as bytes that
        come; in the trio thread.

        Cancellation: it is not held, or let go.
        """
        with self._queue.wait():
            await self._lock.acquire()
        try:
            with self._queue.work():
                yield self._queue.beat
        finally:
            self._lock.release()
