"""Pulses: whether what somebody waits for still moves, and why it last did not."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from cafs.errors import CafsError


class Pulse:
    """When something last moved, and the last reason why it did not.

    A pulse that was given another one passes everything on to it, so that whoever waits for a
    waiter sees the same progress.

    Concurrency: one trio run; nothing here awaits.
    """

    def __init__(self, beyond: "Pulse | None" = None) -> None:
        self.moved = trio.current_time()
        self.reason: CafsError | None = None
        self.doing = ""
        """What we do ourselves now, with what has come; empty while a source is waited for."""
        self._beyond = beyond

    def beat(self, count: int = 0) -> None:
        """It moved: so many bytes arrived, or a part of some work was done."""
        self.moved = trio.current_time()
        self.reason = None
        if self._beyond is not None:
            self._beyond.beat(count)

    def passed(self, count: int) -> None:
        """So many bytes were worked through, whenever they arrived."""
        if self._beyond is not None:
            self._beyond.passed(count)

    def note(self, reason: CafsError) -> None:
        """A try failed, and another one will be made."""
        self.reason = reason
        if self._beyond is not None:
            self._beyond.note(reason)

    def does(self, what: str) -> None:
        """This is being done with what has come; nothing, when a source is waited for."""
        self.doing = what
        if self._beyond is not None:
            self._beyond.does(what)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """``does`` in the block; what was said before holds again behind it."""
        before = self.doing
        self.does(what)
        try:
            yield
        finally:
            self.does(before)

    def pass_on(self, beyond: "Pulse | None") -> None:
        """Pass everything on to another one from now on."""
        self._beyond = beyond

    def overdue_at(self, deadline_s: float | None) -> float:
        """When the deadline passes if nothing moves until then; trio's clock."""
        return math.inf if deadline_s is None else self.moved + deadline_s
