"""Grouping: changes of several tasks that wait for one writer are committed together.

A commit costs a thread, a transaction and, where it is synced, the disk. Many small files that are
fetched at once commit several times each; what waits while one commit is under way goes into the
next, in the order in which it came.
"""

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import trio

T = TypeVar("T")
V = TypeVar("V")


class _Entry(Generic[T, V]):
    """A change that waits, and what became of it."""

    def __init__(self, change: Callable[[T], V]) -> None:
        self.change = change
        self.ended = trio.Event()
        self.result: list[V] = []
        self.error: Exception | None = None

    def outcome(self) -> V:
        """What the change returned.

        Raises:
            Exception: what it, or its commit, raised.
        """
        if self.error is not None:
            raise self.error
        return self.result[0]


class Grouping(Generic[T]):
    """Commits changes, those that wait at the same time as one.

    When one of them fails, each is made by itself, so that it fails alone.

    Args:
        apply: makes a change in a transaction of its own; called in a worker thread. ``T`` is what
            a change is called with.
        limiter: bounds the threads.

    Concurrency: any number of tasks of one trio run.
    """

    def __init__(
        self, apply: Callable[[Callable[[T], None]], None], limiter: trio.CapacityLimiter
    ) -> None:
        self._apply = apply
        self._limiter = limiter
        self._turn = trio.Lock()
        self._waiting: list[_Entry[T, object]] = []

    async def commit(self, change: Callable[[T], V]) -> V:
        """Make a change, and return what it returned.

        It may be called several times; only what the last call did is kept.

        Raises:
            Exception: what the change, or its commit, raised.

        Cancellation: all or nothing; once begun it is carried through.
        """
        entry: _Entry[T, V] = _Entry(change)
        self._waiting.append(entry)  # type: ignore[arg-type] # what it returns is not looked at
        try:
            async with self._turn:
                if not entry.ended.is_set():
                    await self._commit_waiting()
        except trio.Cancelled:
            if entry in self._waiting:
                self._waiting.remove(entry)  # type: ignore[arg-type]
                raise
            with trio.CancelScope(shield=True):
                await entry.ended.wait()
        return entry.outcome()

    async def _commit_waiting(self) -> None:
        group, self._waiting = self._waiting, []
        try:
            # From here on it is carried through, for the others too.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._make, group, limiter=self._limiter)
        finally:
            for entry in group:
                entry.ended.set()

    def _make(self, group: list[_Entry[T, object]]) -> None:
        if len(group) > 1 and self._made_together(group):
            return
        for entry in group:
            try:
                self._apply(partial(_made, entry))
            except Exception as error:  # noqa: BLE001 - raised where the change came from
                entry.error = error

    def _made_together(self, group: list[_Entry[T, object]]) -> bool:
        def all_of_them(given: T) -> None:
            for entry in group:
                _made(entry, given)

        try:
            self._apply(all_of_them)
        except Exception:  # noqa: BLE001 - each is made again by itself, and raises by itself
            return False
        return True


def _made(entry: _Entry[T, object], given: T) -> None:
    entry.result = [entry.change(given)]
