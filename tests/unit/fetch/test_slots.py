"""Slots: who shares a host, who leaves room, and who stands aside."""

from collections.abc import Callable

import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from cafs.fetch.interfaces import Priority
from cafs.fetch.sources.climbing import PERIOD_S, Climb
from cafs.fetch.sources.slots import AHEAD, PREFETCHES, Slots
from cafs.fetch.sources.throttling import BURST_S, Hurry, Throttle
from cafs.transport.interfaces import Head, Response

MIB = 1 << 20


class Line:
    """Requests that hold slots until they are told, and the order in which they got them."""

    def __init__(self, slots: Slots, nursery: trio.Nursery) -> None:
        self.slots = slots
        self.got: list[str] = []
        self.beats: dict[str, int] = {}
        self._nursery = nursery
        self._ends: dict[str, trio.Event] = {}

    async def join(self, name: str, priority: Priority, share: str = "", host: str = "h") -> None:
        self._ends[name] = trio.Event()
        self.beats[name] = 0
        self._nursery.start_soon(self._hold, name, lambda: priority, share, host)
        await wait_all_tasks_blocked()

    async def _hold(
        self, name: str, priority: Callable[[], Priority], share: str, host: str
    ) -> None:
        def beat() -> None:
            self.beats[name] += 1

        async with self.slots.hold(host, priority, share=share, beat=beat):
            self.got.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await wait_all_tasks_blocked()


async def test_contents_of_one_host_take_turns() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(per_host=2), nursery)
        for number in range(4):
            await line.join(f"a{number}", Priority.DEMAND, "a")
        for share in ("b", "c"):
            await line.join(share, Priority.DEMAND, share)
        assert line.got == ["a0", "a1"]
        await line.end("a0")  # one of a's is under way, none of the others'
        assert line.got[2:] == ["b"]
        await line.end("b")
        assert line.got[3:] == ["c"]
        await line.end("c")
        await line.end("a1")
        assert line.got[4:] == ["a2", "a3"]
        nursery.cancel_scope.cancel()


async def test_read_ahead_leaves_slots_of_a_host_to_those_who_wait() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(per_host=8), nursery)
        for number in range(10):
            await line.join(f"ahead{number}", Priority.READAHEAD, f"{number}")
        assert len(line.got) == 6
        for number in range(3):
            await line.join(f"demand{number}", Priority.DEMAND, "x")
        assert line.got[6:] == ["demand0", "demand1"]
        nursery.cancel_scope.cancel()


async def test_prefetches_have_slots_of_their_own_and_go_in_their_order() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(per_host=1, prefetch=2), nursery)
        for number in range(3):
            await line.join(f"p{number}", Priority.PREFETCH, f"{number % 2}")
        assert line.got == ["p0", "p1"]
        await line.join("demand", Priority.DEMAND, "0")
        assert line.got == ["p0", "p1", "demand"]
        await line.end("demand")
        await line.end("p0")
        assert line.got[-1] == "p2"
        nursery.cancel_scope.cancel()


async def test_one_hosts_prefetches_leave_those_of_another_alone() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(prefetch=1), nursery)
        await line.join("one", Priority.PREFETCH, host="one")
        await line.join("two", Priority.PREFETCH, host="one")
        await line.join("other", Priority.PREFETCH, host="two")
        assert line.got == ["one", "other"]
        nursery.cancel_scope.cancel()


class Elsewhere(Hurry):
    """Readers of another process, and what is said to them."""

    def __init__(self) -> None:
        self.wait = False
        self.told: list[bool] = []

    @override
    def claim(self) -> None:
        self.told.append(True)

    @override
    def release(self) -> None:
        self.told.append(False)

    @override
    def claimed(self) -> bool:
        return self.wait


async def test_who_reads_what_a_prefetch_brings_is_told_of_elsewhere() -> None:
    elsewhere = Elsewhere()
    slots = Slots(hurry=elsewhere)
    wish = Priority.PREFETCH
    async with slots.hold("h", lambda: wish):
        assert elsewhere.told == []
        wish = Priority.DEMAND
        slots.give()
        assert elsewhere.told == [True]
    assert elsewhere.told == [True, False]


async def test_a_prefetch_stands_aside_while_readers_of_another_process_wait(
    autojump_clock: MockClock,
) -> None:
    elsewhere = Elsewhere()
    elsewhere.wait = True
    slots = Slots(hurry=elsewhere)
    async with trio.open_nursery() as nursery:
        line = Line(slots, nursery)
        nursery.start_soon(line.join, "prefetch", Priority.PREFETCH)
        await trio.sleep(2)
        assert line.got == []
        assert line.beats["prefetch"]  # it is not stuck
        elsewhere.wait = False
        await trio.sleep(0.1)
        assert line.got == ["prefetch"]
        assert elsewhere.told == []
        nursery.cancel_scope.cancel()


async def test_a_prefetch_goes_on_a_little_though_readers_wait_for_ever(
    autojump_clock: MockClock,
) -> None:
    elsewhere = Elsewhere()
    elsewhere.wait = True
    async with trio.open_nursery() as nursery:
        line = Line(Slots(hurry=elsewhere), nursery)
        nursery.start_soon(line.join, "prefetch", Priority.PREFETCH)
        await trio.sleep(6)
        assert line.got == ["prefetch"]
        nursery.cancel_scope.cancel()


async def test_other_processes_are_told_while_readers_fetch_and_only_then() -> None:
    elsewhere = Elsewhere()
    async with trio.open_nursery() as nursery:
        line = Line(Slots(hurry=elsewhere), nursery)
        await line.join("prefetch", Priority.PREFETCH)
        assert elsewhere.told == []
        await line.join("one", Priority.DEMAND)
        await line.join("two", Priority.READAHEAD)
        await line.end("one")
        assert elsewhere.told == [True]
        await line.end("two")
        assert elsewhere.told == [True, False]
        nursery.cancel_scope.cancel()


async def test_a_prefetch_that_waits_for_its_turn_is_not_stuck(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(prefetch=1), nursery)
        nursery.start_soon(line.join, "first", Priority.PREFETCH)
        await trio.sleep(0.5)
        nursery.start_soon(line.join, "second", Priority.PREFETCH)
        await trio.sleep(10)
        assert line.got == ["first"]
        assert line.beats["second"] >= 9
        nursery.cancel_scope.cancel()


async def test_who_becomes_urgent_while_it_waits_is_served_as_such(
    autojump_clock: MockClock,
) -> None:
    wish = Priority.PREFETCH
    slots = Slots(prefetch=1)
    async with trio.open_nursery() as nursery, slots.hold("h", lambda: Priority.PREFETCH):
        got = trio.Event()

        async def second() -> None:
            async with slots.hold("h", lambda: wish):
                got.set()

        nursery.start_soon(second)
        await trio.sleep(10)
        assert not got.is_set()
        wish = Priority.DEMAND
        with trio.fail_after(2):
            await got.wait()


# -- how many help


def climbed(climb: Climb, rate: Callable[[int], float], seconds: float) -> list[int]:
    """The widths of a climb over so long, when so many connections have a rate."""
    widths = [climb.width]
    now, step = 100.0, 0.05
    for _ in range(int(seconds / step)):
        climb.busy(climb.width, now)
        now += step
        climb.done(int(rate(climb.width) * step), now)
        widths.append(climb.width)
    return widths


def test_connections_that_each_bring_the_same_are_all_used() -> None:
    widths = climbed(Climb(4, 32), lambda count: MIB * count, 10)
    assert widths[-1] == 32
    assert widths.index(32) * 0.05 <= 5 * PERIOD_S


def test_a_full_line_gets_no_more_connections() -> None:
    widths = climbed(Climb(4, 32), lambda _count: 10.0 * MIB, 60)
    assert widths.count(4) > 0.9 * len(widths)
    assert max(widths) == 8


def test_connections_are_added_up_to_where_the_line_is_full() -> None:
    widths = climbed(Climb(2, 32), lambda count: MIB * min(count, 12), 120)
    assert 8 <= widths[-1] <= 18


def test_a_line_that_becomes_wider_is_noticed() -> None:
    climb = Climb(4, 32)
    climbed(climb, lambda count: MIB * min(count, 4), 20)
    assert climb.width <= 8
    assert climbed(climb, lambda count: MIB * count, 120)[-1] > 16


def test_nothing_is_learned_while_fewer_are_under_way_than_may_be() -> None:
    climb = Climb(4, 32)
    for step in range(100):
        climb.busy(3, step * 0.1)
        climb.done(step * MIB, step * 0.1)
    assert climb.width == 4


def test_what_is_useful_at_a_host_begins_small() -> None:
    slots = Slots()
    assert slots.useful("h", Priority.READAHEAD) == AHEAD
    assert slots.useful("h", Priority.PREFETCH) == PREFETCHES
    assert Slots(prefetch=1).useful("h", Priority.PREFETCH) == 1


# -- rates


class Body(Response):
    """A body that comes as fast as it is received."""

    def __init__(self, pieces: int, size: int) -> None:
        self._left = [bytes(size)] * pieces

    @property
    @override
    def head(self) -> Head:
        return Head(url="u", status=200)

    @override
    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._left.pop() if self._left else b""

    @override
    async def aclose(self) -> None:
        pass


async def received(slots: Slots, priority: Priority, body: Body) -> int:
    count = 0
    async with (
        slots.hold("h", lambda: priority, share=object()) as slot,
        slot.paced(body) as response,
    ):
        while data := await response.receive():
            count += len(data)
    return count


async def test_prefetches_keep_to_their_rate_all_together(autojump_clock: MockClock) -> None:
    slots = Slots(rate=MIB)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(received, slots, Priority.PREFETCH, Body(80, 64 << 10))
    took_s = trio.current_time() - began
    assert 14 <= took_s <= 16  # 15 MiB


async def test_readers_are_never_held_to_the_rate(autojump_clock: MockClock) -> None:
    slots = Slots(rate=1000)
    began = trio.current_time()
    assert await received(slots, Priority.DEMAND, Body(80, 64 << 10)) == 80 * (64 << 10)
    assert trio.current_time() == began


async def test_a_reader_who_comes_ends_the_wait_of_a_slow_prefetch(
    autojump_clock: MockClock,
) -> None:
    slots = Slots(rate=1000)
    priority = Priority.PREFETCH
    ended = trio.Event()

    async def fetch() -> None:
        async with (
            slots.hold("h", lambda: priority) as slot,
            slot.paced(Body(50, 64 << 10)) as response,
        ):
            while await response.receive():
                pass
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch)
        await trio.sleep(100)
        assert not ended.is_set()
        priority = Priority.DEMAND
        with trio.fail_after(1):
            await ended.wait()


def test_a_throttle_that_was_idle_makes_up_for_no_more_than_a_moment() -> None:
    throttle = Throttle(1000)
    at, taken = throttle.reserve(1000.0)
    assert at == 1000.0
    throttle.settle(taken, 5000)
    assert throttle.reserve(1000.0)[0] >= 1004.9 - BURST_S
