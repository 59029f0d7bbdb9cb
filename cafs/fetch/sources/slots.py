"""Slots: how many requests are under way at once, and who goes next.

Demand goes before read-ahead, read-ahead before prefetch. Among contents of one priority the one
with the fewest requests under way goes next, so that readers of one host share it; prefetches go
in the order in which they came, so that some are done before all are.

- Read-ahead leaves some slots of a host to those who wait.
- Prefetches have slots of their own, as many as help, and none while demand waits for one. They
  stand aside while readers wait, in this process or in another one that uses the store, and keep
  to their rate (``throttling``).
"""

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Final

import trio
from typing_extensions import override

from cafs.fetch.interfaces import Priority
from cafs.fetch.sources.climbing import Climb
from cafs.fetch.sources.throttling import Alone, Hurry, Lull, Paced, Throttle, stand_aside
from cafs.model.pacing import USUAL
from cafs.transport.interfaces import Response

_HOSTS: Final = 256
"""Hosts that are remembered; more only while they are used."""
AHEAD: Final = 2
"""Requests that are under way for a reader that goes forward, before more are seen to help."""
PREFETCHES: Final = 4
"""Requests of prefetches to one host, before more are seen to help."""
_BEAT_S: Final = 1.0
"""How often a prefetch that waits for its turn says so."""
_ANSWER: Final = 64 << 10
"""What an answer counts beside its bytes, in bytes: small files are work too."""


def _nothing() -> None:
    pass


class _Host:
    """What is known of one host: the numbers that help, and who uses it."""

    def __init__(self, per_host: int, prefetch: int) -> None:
        self.reading = Climb(AHEAD, per_host)
        self.prefetching = Climb(PREFETCHES, prefetch)
        self.readers = 0
        self.prefetches = 0

    @property
    def used(self) -> bool:
        """Whether anything is under way there."""
        return bool(self.readers or self.prefetches)

    def count(self, step: int, *, prefetch: bool) -> None:
        """One more, or one less."""
        if prefetch:
            self.prefetches += step
        else:
            self.readers += step

    def told(self, now: float) -> None:
        """The numbers changed."""
        self.reading.busy(self.readers, now)
        self.prefetching.busy(self.prefetches, now)


class Slot(Lull):
    """A slot that somebody waits for, or has: one request, from asking to its last byte."""

    def __init__(
        self,
        slots: "Slots",
        host: str,
        priority: Callable[[], Priority],
        share: Hashable,
        beat: Callable[[], None],
    ) -> None:
        self.host = host
        self.priority = priority
        self.share = share
        self.granted = trio.Event()
        self.prefetch = False
        self.moved = -math.inf
        """When bytes last came for it."""
        self._slots = slots
        self._beat = beat

    def paced(self, response: Response) -> Response:
        """The head has come: its body, received as fast as this request may."""
        self.arrived(0, _ANSWER)
        return Paced(response, self, self._slots.throttle, self.arrived)

    def arrived(self, count: int, more: int = 0) -> None:
        """Bytes have come."""
        self.moved = now = trio.current_time()
        host = self._slots.host(self.host)
        (host.prefetching if self.prefetch else host.reading).done(count + more, now)

    @override
    def throttled(self) -> bool:
        return self.priority() is Priority.PREFETCH

    @override
    def hurried(self) -> bool:
        return self._slots.hurried()

    @override
    def beat(self) -> None:
        self._beat()


class Slots:
    """Hands out slots. A ticket's priority is looked up when slots are given, so it may rise.

    Args:
        total: requests in all. Dead hosts must not be able to take every slot from a live one.
        per_host: requests to one host for what is read.
        prefetch: requests to one host by prefetches, at most.
        rate: bytes a second that prefetches receive; None for any number.
        hurry: where readers in other processes are heard of.

    Concurrency: any number of tasks of one trio run; nothing between reading and writing the
    shared state awaits.
    """

    def __init__(
        self,
        total: int = USUAL.connections,
        per_host: int = USUAL.per_host,
        prefetch: int = USUAL.prefetch_connections,
        *,
        rate: int | None = None,
        hurry: Hurry | None = None,
    ) -> None:
        self._total = total
        self._per_host = per_host
        self._prefetch = prefetch
        self._hurry = hurry or Alone()
        self._waiting: list[Slot] = []
        self._busy = 0
        self._shares: Counter[Hashable] = Counter()
        self._held: set[Slot] = set()
        self._claims = False
        self._hosts: dict[str, _Host] = {}
        self.throttle = Throttle(rate)

    def host(self, name: str) -> _Host:
        """What is known of a host."""
        one = self._hosts.get(name)
        if one is None:
            if len(self._hosts) >= _HOSTS:
                used = {key: each for key, each in self._hosts.items() if each.used}
                self._hosts = used
            one = self._hosts[name] = _Host(self._per_host, self._prefetch)
        return one

    def useful(self, name: str, priority: Priority) -> int:
        """How many requests to a host help one who wants much of it, as far as is known."""
        host = self.host(name)
        return (host.prefetching if priority is Priority.PREFETCH else host.reading).width

    def hurried(self) -> bool:
        """Whether readers wait, here or elsewhere."""
        return self._reading() or self._hurry.claimed()

    def _reading(self) -> bool:
        """Whether anything is under way here that a reader wants; others are told so."""
        # The reader of what is under way may have gone since.
        reading = any(not slot.throttled() for slot in self._held)
        if reading != self._claims:
            self._claims = reading
            if reading:
                self._hurry.claim()
            else:
                self._hurry.release()
        return reading

    @asynccontextmanager
    async def hold(
        self,
        host: str,
        priority: Callable[[], Priority],
        *,
        share: Hashable = None,
        beat: Callable[[], None] = _nothing,
        open_already: bool = False,
    ) -> AsyncIterator[Slot]:
        """Hold a slot for a request to the host.

        Args:
            host: whom it asks.
            priority: says how urgent it is, at any time.
            share: the content that it is for: contents share a host.
            beat: called now and then while it waits though it could go on.
            open_already: whether the answer is here: nothing is asked, and nobody need be waited
                for.

        Cancellation: the slot is not held, or let go.
        """
        slot = Slot(self, host, priority, share, beat)
        if open_already:
            self._grant(slot)
            self._tell({host})
            self._reading()
        else:
            self._waiting.append(slot)
            self.give()
        try:
            await self._granted(slot)
            await stand_aside(slot)
            yield slot
        finally:
            self._leave(slot)

    async def _granted(self, slot: Slot) -> None:
        before = slot.priority()
        while not slot.granted.is_set():
            with trio.move_on_after(_BEAT_S):
                await slot.granted.wait()
            if slot.throttled() or self._moves(slot.host):
                # Who waits for a turn is not stuck while those before it move. A prefetch never
                # is: they move, or fail.
                slot.beat()
            now = slot.priority()
            if now < before:  # a reader has joined: it waits among readers from now on
                self.give()
            before = now

    def _moves(self, host: str) -> bool:
        """Whether bytes come for those whose end is waited for: of a host, or of all when full."""
        since, full = trio.current_time() - _BEAT_S, self._busy >= self._total
        return any(one.moved >= since for one in self._held if full or one.host == host)

    def give(self) -> None:
        """Give every slot that is free to whoever is next; called again when a priority rose."""
        given: set[str] = set()
        while (slot := self._next()) is not None:
            self._waiting.remove(slot)
            self._grant(slot)
            given.add(slot.host)
        self._tell(given)
        self._reading()

    def _grant(self, slot: Slot) -> None:
        self._held.add(slot)
        slot.prefetch = slot.priority() is Priority.PREFETCH
        self._count(slot, 1)
        slot.granted.set()

    def _next(self) -> Slot | None:
        """Who gets the next slot; None when nobody can."""
        if self._busy >= self._total:
            return None
        best: Slot | None = None
        rank = (len(Priority), 0)
        demand = False
        for slot in self._waiting:
            urgency = slot.priority()
            demand = demand or urgency is Priority.DEMAND
            # Prefetches come in the order in which they wait.
            order = 0 if urgency is Priority.PREFETCH else self._shares[slot.share]
            if (urgency, order) < rank and self._free(slot.host, urgency):
                best, rank = slot, (urgency, order)
        # No prefetch while demand waits.
        return None if demand and rank[0] is Priority.PREFETCH else best

    def _free(self, name: str, urgency: Priority) -> bool:
        host = self.host(name)
        if urgency is Priority.DEMAND:
            return host.readers < self._per_host
        if self._busy >= self._total - self._total // 8:
            return False
        if urgency is Priority.READAHEAD:
            return host.readers < self._per_host - self._per_host // 4
        return host.prefetches < host.prefetching.width

    def _count(self, slot: Slot, step: int) -> None:
        self._busy += step
        if not slot.prefetch:
            self._shares[slot.share] += step
            if not self._shares[slot.share]:
                del self._shares[slot.share]
        host = self.host(slot.host)
        host.count(step, prefetch=slot.prefetch)

    def _leave(self, slot: Slot) -> None:
        if slot.granted.is_set():
            self._held.discard(slot)
            self._count(slot, -1)
        else:
            self._waiting.remove(slot)
        self.give()  # which tells other processes too
        self._tell({slot.host})

    def _tell(self, hosts: set[str]) -> None:
        """Let those that count connections know that their number changed."""
        now = trio.current_time()
        for name in hosts:
            self.host(name).told(now)
