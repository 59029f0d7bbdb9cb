"""Waiters: each with its own deadline, which bounds the time without progress."""

import trio
from typing_extensions import override

from cafs.errors import CafsError, DeadlineError, UnreachableError
from cafs.fetch.interfaces import Patience, Priority
from cafs.fetch.pulse import Pulse


class Waiter(Pulse):
    """One who waits for something that others do, and hears how it goes.

    Concurrency: one task waits; any task of the trio run may wake it.
    """

    def __init__(self, what: str, patience: Patience) -> None:
        super().__init__(patience.pulse)
        self.patience = patience
        self._what = what
        self._woken = trio.Event()

    def priority(self) -> Priority:
        """How urgent it is."""
        return self.patience.urgency()

    def renew(self, patience: Patience) -> None:
        """Wait with another patience from now on."""
        self.patience = patience
        self.pass_on(patience.pulse)
        self.moved = trio.current_time()

    def wake(self) -> None:
        """Let it look again."""
        self._woken.set()

    async def wait(self) -> None:
        """Wait until somebody calls ``wake``.

        Raises:
            DeadlineError: nothing moved for as long as the patience lasts.
            UnreachableError: the same, and the last try did not reach a source.

        Cancellation: no effect.
        """
        self._woken = trio.Event()
        while not self._woken.is_set():
            due = self.overdue_at(self.patience.deadline_s)
            if trio.current_time() >= due:
                raise self._overdue() from self.reason
            with trio.move_on_at(due):
                await self._woken.wait()

    def _overdue(self) -> CafsError:
        if isinstance(self.reason, UnreachableError) and not self.doing:
            text = f"{self._what}: no source could be reached for {self.patience.deadline_s} s"
            return UnreachableError(text)
        if self.doing:
            text = f"{self._what}: {self.doing} got no further for {self.patience.deadline_s} s"
            return DeadlineError(text, hint="no source is waited for; is the store's disk stuck?")
        text = f"{self._what}: nothing arrived for {self.patience.deadline_s} s"
        return DeadlineError(text)

    @override
    def __repr__(self) -> str:
        return f"<Waiter for {self._what}, {self.priority().name}>"
