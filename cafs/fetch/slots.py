"""Slots: how many requests are under way at once, and who goes next.

Demand goes before read-ahead, read-ahead before prefetch, and within one priority the first that
came. Prefetch never takes the last slots, and takes none while demand waits.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from cafs.fetch.interfaces import Priority

TOTAL: Final = 32
"""Requests in all. Six dead hosts must not be able to take every slot from a live one."""
PER_HOST: Final = 6
"""Requests to one host: what browsers agreed on, and what registries tolerate."""
PREFETCH: Final = 2
"""Requests of prefetches."""


@dataclass(eq=False, slots=True)
class _Ticket:
    host: str
    priority: Callable[[], Priority]
    granted: trio.Event
    prefetch: bool = False


class Slots:
    """Hands out slots. A ticket's priority is looked up when slots are given, so it may rise.

    Concurrency: any number of tasks of one trio run; nothing between reading and writing the
    shared state awaits.
    """

    def __init__(
        self, total: int = TOTAL, per_host: int = PER_HOST, prefetch: int = PREFETCH
    ) -> None:
        self._total = total
        self._per_host = per_host
        self._prefetch = prefetch
        self._waiting: list[_Ticket] = []
        self._busy: Counter[str] = Counter()
        self._prefetching = 0

    @asynccontextmanager
    async def hold(self, host: str, priority: Callable[[], Priority]) -> AsyncIterator[None]:
        """Hold a slot for a request to the host.

        Cancellation: the slot is not held, or let go.
        """
        ticket = _Ticket(host, priority, trio.Event())
        self._waiting.append(ticket)
        self.give()
        try:
            await ticket.granted.wait()
            yield
        finally:
            self._leave(ticket)

    def give(self) -> None:
        """Give every slot that is free to whoever is next; called again when a priority rose."""
        for ticket in sorted(self._waiting, key=lambda one: one.priority()):
            if self._free(ticket):
                self._waiting.remove(ticket)
                self._busy[ticket.host] += 1
                ticket.prefetch = ticket.priority() is Priority.PREFETCH
                self._prefetching += ticket.prefetch
                ticket.granted.set()

    def _free(self, ticket: _Ticket) -> bool:
        if self._busy.total() >= self._total or self._busy[ticket.host] >= self._per_host:
            return False
        if ticket.priority() is not Priority.PREFETCH:
            return True
        demand = any(one.priority() is Priority.DEMAND for one in self._waiting)
        return self._prefetching < self._prefetch and not demand

    def _leave(self, ticket: _Ticket) -> None:
        if ticket.granted.is_set():
            self._busy[ticket.host] -= 1
            self._busy += Counter()  # drops the hosts that are at 0
            self._prefetching -= ticket.prefetch
        else:
            self._waiting.remove(ticket)
        self.give()
