"""Asking: the questions what refs mean that are under way, so that they can be told and ended."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from cafs.errors import CancelledError
from cafs.fetch.interfaces import Inflight, Priority
from cafs.model.span import Span


class _Question:
    """What one ref means: who waits for the answer."""

    def __init__(self, name: str) -> None:
        self.id = secrets.token_hex(4)
        self.name = name
        self.since = time.time()
        self.waiting: dict[trio.CancelScope, Callable[[], Priority]] = {}


class Questions:
    """The questions under way, by ref.

    Concurrency: any number of tasks of one trio run; nothing here awaits.
    """

    def __init__(self) -> None:
        self._questions: dict[str, _Question] = {}

    @contextmanager
    def waiting(self, key: str, name: str, urgency: Callable[[], Priority]) -> Iterator[None]:
        """Wait for an answer in the block.

        Args:
            key: the ref.
            name: what people call it.
            urgency: says how urgent it is by now.

        Raises:
            CancelledError: a person ended the question.
        """
        question = self._questions.setdefault(key, _Question(name))
        scope = trio.CancelScope()
        question.waiting[scope] = urgency
        try:
            with scope:
                yield
        finally:
            del question.waiting[scope]
            if not question.waiting and self._questions.get(key) is question:
                del self._questions[key]
        if scope.cancelled_caught:
            raise CancelledError(f"{name}: the question what it means was cancelled")

    def inflight(self) -> list[Inflight]:
        """Every question; it is of no bytes."""
        return [
            Inflight(
                id=question.id,
                name=question.name,
                url="",
                span=Span(0, 0),
                received=0,
                since=question.since,
                priority=min(urgency() for urgency in question.waiting.values()),
            )
            for question in self._questions.values()
        ]

    def cancel(self, id_: str | None = None) -> list[str]:
        """End a question for everybody who waits, or all; the names of their refs."""
        chosen = [one for one in self._questions.values() if id_ in {None, one.id}]
        for question in chosen:
            for scope in question.waiting:
                scope.cancel()
        return [question.name for question in chosen]
