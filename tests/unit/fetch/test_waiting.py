"""Slots, works, deadlines and memory of failures, on a clock that jumps."""

import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from cafs.errors import (
    BudgetError,
    CafsError,
    CrowdedError,
    DeadlineError,
    DigestMismatchError,
    NotFoundError,
    OfflineError,
    UnreachableError,
)
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.hold import Flights, Hold
from cafs.fetch.flights.scouting import Scouting
from cafs.fetch.flights.waiting import Waiter
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Patience, Place, Priority
from cafs.fetch.progress import Progress, Tally
from cafs.fetch.pulse import Pulse
from cafs.fetch.sources.budget import Budget
from cafs.fetch.sources.failures import Failures
from cafs.fetch.sources.slots import Slots
from cafs.metrics import Metrics
from cafs.model.digest import digest_of
from cafs.model.span import Span, SpanSet


class Nowhere(Flights):
    """A place without flights."""

    @override
    def missing(self, span: Span) -> SpanSet:
        return SpanSet([span])

    @override
    def book(self, span: Span, granule: int) -> list[Flight]:
        return []

    @override
    def overtake(self, span: Span, granule: int) -> None:
        pass

    @override
    def check(self, span: Span, patience: Patience) -> None:
        pass

    @override
    def abandoned(self, span: Span, error: CafsError, patience: Patience) -> None:
        pass

    @override
    def crowd(self) -> None:
        pass

    @override
    def hurry(self, flight: Flight) -> None:
        pass

    @override
    def useful(self, priority: Priority) -> int:
        return 4


class Line:
    """Tasks that hold slots until they are told, and the order in which they got them."""

    def __init__(self, slots: Slots, nursery: trio.Nursery) -> None:
        self.slots = slots
        self.nursery = nursery
        self.got: list[str] = []
        self.ends: dict[str, trio.Event] = {}
        self.priorities: dict[str, Priority] = {}

    async def join(self, name: str, host: str, priority: Priority) -> None:
        self.ends[name] = trio.Event()
        self.priorities[name] = priority
        self.nursery.start_soon(self._hold, name, host)
        await wait_all_tasks_blocked()

    async def _hold(self, name: str, host: str) -> None:
        async with self.slots.hold(host, lambda: self.priorities[name]):
            self.got.append(name)
            await self.ends[name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await wait_all_tasks_blocked()


async def test_demand_goes_before_readahead_before_prefetch() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(total=1), nursery)
        await line.join("first", "h", Priority.DEMAND)
        await line.join("prefetch", "h", Priority.PREFETCH)
        await line.join("readahead", "h", Priority.READAHEAD)
        await line.join("demand", "h", Priority.DEMAND)
        for name in ("first", "demand", "readahead", "prefetch"):
            await line.end(name)
        assert line.got == ["first", "demand", "readahead", "prefetch"]


async def test_one_host_does_not_take_every_slot() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(total=4, per_host=2), nursery)
        for number in range(4):
            await line.join(f"slow{number}", "slow", Priority.DEMAND)
        await line.join("other", "other", Priority.DEMAND)
        assert line.got == ["slow0", "slow1", "other"]
        nursery.cancel_scope.cancel()


async def test_prefetch_takes_few_slots_and_none_while_demand_waits() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(total=3, per_host=3, prefetch=2), nursery)
        for number in range(3):
            await line.join(f"prefetch{number}", "h", Priority.PREFETCH)
        assert line.got == ["prefetch0", "prefetch1"]
        await line.join("demand0", "h", Priority.DEMAND)
        await line.join("demand1", "h", Priority.DEMAND)
        await line.end("prefetch0")
        assert line.got == ["prefetch0", "prefetch1", "demand0", "demand1"]
        nursery.cancel_scope.cancel()


async def test_a_priority_may_rise_while_it_waits() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(total=2, per_host=2, prefetch=1), nursery)
        await line.join("one", "h", Priority.PREFETCH)
        await line.join("two", "h", Priority.PREFETCH)
        assert line.got == ["one"]
        line.priorities["two"] = Priority.DEMAND
        line.slots.give()
        await wait_all_tasks_blocked()
        assert line.got == ["one", "two"]
        nursery.cancel_scope.cancel()


async def test_a_waiter_that_leaves_leaves_no_slot_taken() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(Slots(total=1), nursery)
        await line.join("holder", "h", Priority.DEMAND)
        with trio.move_on_after(0):
            async with line.slots.hold("h", lambda: Priority.DEMAND):
                pytest.fail("there was no slot")
        await line.end("holder")
        await line.join("next", "h", Priority.DEMAND)
        assert line.got == ["holder", "next"]
        await line.end("next")


# -- deadlines


async def test_a_deadline_bounds_time_without_progress(autojump_clock: MockClock) -> None:
    waiter = Waiter("x", Patience(10.0))
    begun = trio.current_time()

    async def progress() -> None:
        for _ in range(5):
            await trio.sleep(8)
            waiter.beat(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(progress)
        with pytest.raises(DeadlineError, match=r"x: nothing arrived for 10\.0 s"):
            await waiter.wait()
    assert trio.current_time() - begun == pytest.approx(50)


async def test_the_reason_of_a_deadline_is_told(autojump_clock: MockClock) -> None:
    waiter = Waiter("x", Patience(1.0))
    waiter.note(UnreachableError("GET u: connection refused"))
    with pytest.raises(UnreachableError) as caught:
        await waiter.wait()
    assert "connection refused" in caught.value.line


async def test_a_stall_stays_a_deadline(autojump_clock: MockClock) -> None:
    waiter = Waiter("x", Patience(1.0))
    waiter.note(DeadlineError("GET u: stalled"))
    with pytest.raises(DeadlineError) as caught:
        await waiter.wait()
    assert "stalled" in caught.value.line


async def test_what_waits_for_a_waiter_sees_the_same_progress(autojump_clock: MockClock) -> None:
    outer = Pulse()
    inner = Waiter("x", Patience(None, pulse=outer))
    await trio.sleep(5)
    inner.note(UnreachableError("no"))
    assert str(outer.reason) == "no"
    inner.beat(10)
    assert outer.moved == trio.current_time()
    assert str(outer.reason) == "None"


async def test_a_new_reader_does_not_wait_out_the_pause_of_old_failures(
    autojump_clock: MockClock,
) -> None:
    flight = Flight(Span(0, 10))
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flight.pause, 0.25, 30.0)
        await trio.sleep(5)
        flight.join(Hold(Nowhere(), "x", Patience(1.0)))
    assert trio.current_time() - begun == pytest.approx(5)


async def test_without_a_new_reader_the_pause_is_whole(autojump_clock: MockClock) -> None:
    flight = Flight(Span(0, 10))
    hold = Hold(Nowhere(), "x", Patience(1.0))
    flight.join(hold)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flight.pause, 0.25, 30.0)
        await trio.sleep(5)
        flight.join(hold)
    assert trio.current_time() - begun == pytest.approx(30)


class ComesMeanwhile(Nowhere):
    """Bytes that are missing at the first look, and there when flights are asked for them."""

    def __init__(self) -> None:
        self.looks = 0

    @override
    def missing(self, span: Span) -> SpanSet:
        self.looks += 1
        return SpanSet([span] if self.looks == 1 else [])


async def test_what_comes_while_its_flights_are_asked_for_needs_none() -> None:
    place = ComesMeanwhile()
    with Hold(place, "x", Patience(1.0)) as hold:
        await hold.ensure(Span(0, 10))
    assert place.looks == 2


# -- works

Run = Callable[[Work[int]], Awaitable[int]]


def works(nursery: trio.Nursery) -> Works[int]:
    return Works[int](nursery, Failures(), Metrics())


async def test_many_share_one_work(autojump_clock: MockClock) -> None:
    runs = 0
    results: list[int] = []

    async def run(work: Work[int]) -> int:
        nonlocal runs
        runs += 1
        await trio.sleep(1)
        return 7

    async with trio.open_nursery() as nursery:
        shared = works(nursery)

        async def join() -> None:
            results.append(await shared.join("k", "x", run, Patience(10.0)))

        async with trio.open_nursery() as readers:
            for _ in range(50):
                readers.start_soon(join)
    assert (runs, results) == (1, [7] * 50)


async def test_work_ends_with_its_last_waiter(autojump_clock: MockClock) -> None:
    ended: list[str] = []

    async def run(work: Work[int]) -> int:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        async with trio.open_nursery() as readers:
            for seconds in (1, 2):

                async def join(seconds: int = seconds) -> None:
                    with trio.move_on_after(seconds):
                        await shared.join("k", "x", run, Patience(10.0))
                    await trio.testing.wait_all_tasks_blocked()
                    ended.append(f"after {seconds}")

                readers.start_soon(join)
    assert ended == ["after 1", "cancelled", "after 2"]


async def test_who_comes_while_a_work_is_being_cancelled_waits_no_longer_than_he_would(
    autojump_clock: MockClock,
) -> None:
    async def run(work: Work[int]) -> int:
        with trio.CancelScope(shield=True):  # as a thread that has to end by itself
            await trio.sleep(1000)
        return 7

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        with trio.move_on_after(1):
            await shared.join("k", "x", run, Patience(10.0))
        begun = trio.current_time()
        with pytest.raises(DeadlineError):
            await shared.join("k", "x", run, Patience(10.0))
        assert trio.current_time() - begun == pytest.approx(10)


async def test_lingering_work_goes_on_and_can_be_joined_again(autojump_clock: MockClock) -> None:
    async def run(work: Work[int]) -> int:
        await trio.sleep(20)
        return 5

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        with trio.move_on_after(1):
            await shared.join("k", "x", run, Patience(60.0), linger_s=300.0)
        await trio.sleep(10)
        begun = trio.current_time()
        assert await shared.join("k", "x", run, Patience(60.0), linger_s=300.0) == 5
        assert trio.current_time() - begun == pytest.approx(9)


async def test_lingering_work_ends_when_nobody_comes_back(autojump_clock: MockClock) -> None:
    async def run(work: Work[int]) -> int:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        with trio.move_on_after(1):
            await shared.join("k", "x", run, Patience(60.0), linger_s=300.0)
        begun = trio.current_time()
    assert trio.current_time() - begun == pytest.approx(300)


async def test_a_failure_reaches_all_who_wait_and_those_right_after(
    autojump_clock: MockClock,
) -> None:
    runs = 0

    async def run(work: Work[int]) -> int:
        nonlocal runs
        runs += 1
        await trio.sleep(1)
        raise NotFoundError("gone")

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        for _ in range(3):
            with pytest.raises(NotFoundError):
                await shared.join("k", "x", run, Patience(10.0))
        assert runs == 1
        await trio.sleep(1.5)
        with pytest.raises(NotFoundError):
            await shared.join("k", "x", run, Patience(10.0))
        assert runs == 2


@pytest.mark.expects_log("fetch.work.broke")
async def test_a_bug_in_a_work_reaches_its_waiters_and_nobody_else(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(work: Work[int]) -> int:
        raise ZeroDivisionError

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        with caplog.at_level(logging.CRITICAL), pytest.raises(ZeroDivisionError):
            await shared.join("k", "x", run, Patience(10.0))


async def test_each_who_joins_a_work_has_a_deadline_of_his_own(autojump_clock: MockClock) -> None:
    async def run(work: Work[int]) -> int:
        await trio.sleep(5)
        return 1

    results: list[object] = []

    async with trio.open_nursery() as nursery:
        shared = works(nursery)

        async def join(deadline_s: float) -> None:
            try:
                results.append(await shared.join("k", "x", run, Patience(deadline_s)))
            except DeadlineError:
                results.append("late")

        async with trio.open_nursery() as readers:
            readers.start_soon(join, 2.0)
            readers.start_soon(join, 10.0)
    assert results == ["late", 1]


class NoRoom(Place):
    """A place that is not to be had."""

    @override
    def take(self) -> None:
        raise CrowdedError("too many wait")


async def test_who_may_not_wait_begins_no_work_and_spoils_none(autojump_clock: MockClock) -> None:
    runs = 0

    async def run(work: Work[int]) -> int:
        nonlocal runs
        runs += 1
        return runs

    async with trio.open_nursery() as nursery:
        shared = works(nursery)
        with pytest.raises(CrowdedError):
            await shared.join("k", "x", run, Patience(10.0, place=NoRoom()), linger_s=300.0)
        await wait_all_tasks_blocked()
        assert runs == 0
        assert await shared.join("k", "x", run, Patience(10.0)) == 1


async def test_who_may_not_wait_wants_no_flight() -> None:
    flights: list[Span] = []

    class Watched(Nowhere):
        @override
        def book(self, span: Span, granule: int) -> list[Flight]:
            flights.append(span)
            return []

    hold = Hold(Watched(), "x", Patience(1.0, place=NoRoom()))
    with hold, pytest.raises(CrowdedError):
        await hold.ensure(Span(0, 10))
    assert flights == []


async def test_only_a_flight_that_no_reader_needs_beyond_there_is_overtaken() -> None:
    flight = Flight(Span(100, 200))
    flight.reach(110)

    class Chosen(Nowhere):
        @override
        def book(self, span: Span, granule: int) -> list[Flight]:
            return [flight]

    with Hold(Chosen(), "x", Patience(None, Priority.PREFETCH)) as prefetch:
        prefetch.want(Span(100, 200))
        assert flight.is_behind(160, 50)
        flight.arrived(1, 111)  # and is not written yet
        assert not flight.is_behind(160, 50)
        assert not flight.is_behind(200, 50)  # it does not bring that
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_wait, Chosen(), Span(150, 170))
            await wait_all_tasks_blocked()
            assert not flight.is_behind(169, 50)
            assert flight.is_behind(170, 50)
            nursery.cancel_scope.cancel()
        flight.end_at(150)
        assert (flight.span, flight.rest) == (Span(100, 150), Span(110, 150))
    assert not Flight(Span(100, 200), single=True).is_behind(160, 50)


async def test_the_flight_that_asks_is_as_urgent_as_those_that_wait_for_its_answer() -> None:
    crowds: list[Priority] = []
    asking, waiting = Flight(Span(100, 200)), Flight(Span(200, 300))
    scouting = Scouting(lambda: crowds.append(asking.priority()))
    scouting.appoint(asking)
    ahead = Hold(Nowhere(), "x", Patience(None, Priority.READAHEAD))
    reader = Hold(Nowhere(), "x", Patience(None))
    asking.join(ahead)
    waiting.join(reader)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scouting.turn, waiting)
        await wait_all_tasks_blocked()
        assert crowds == [Priority.DEMAND]
        assert asking.endless()
        assert not asking.unawaited()
        moved = reader.moved
        asking.note(UnreachableError("no"))
        assert str(reader.reason) == "no"
        asking.arrived(50, 150)
        assert reader.reason is None
        assert reader.moved > moved
        # It waits for no byte of it, so others may overtake it there.
        assert asking.is_behind(160, 10)
        asking.leave(ahead)
        assert not asking.scope.cancel_called
        waiting.leave(reader)
        assert asking.priority() is Priority.PREFETCH
        scouting.dismiss(asking)
    assert asking.scope.cancel_called  # there is nobody left


async def _wait(place: Flights, span: Span) -> None:
    with Hold(place, "x", Patience(None)) as hold:
        await hold.ensure(span)


# -- memory of failures


async def test_failures_are_kept_for_a_second_and_wrong_content_for_thirty(
    autojump_clock: MockClock,
) -> None:
    failures = Failures()
    failures.remember("a", NotFoundError("a"))
    wrong = DigestMismatchError("b", expected=digest_of(b"1"), actual=digest_of(b"2"))
    failures.remember("b", wrong)
    await trio.sleep(0.9)
    with pytest.raises(NotFoundError):
        failures.check("a", Patience(1.0))
    await trio.sleep(0.2)
    failures.check("a", Patience(1.0))
    await trio.sleep(28)
    with pytest.raises(DigestMismatchError):
        failures.check("b", Patience(None))
    await trio.sleep(1)
    failures.check("b", Patience(None))


async def test_who_waits_longer_is_not_bound_by_anothers_deadline(
    autojump_clock: MockClock,
) -> None:
    failures = Failures()
    failures.remember("a", DeadlineError("late"), deadline_s=5.0)
    failures.check("a", Patience(6.0))
    failures.check("a", Patience(None))
    with pytest.raises(DeadlineError):
        failures.check("a", Patience(5.0))


async def test_a_failure_of_one_range_is_not_that_of_another(autojump_clock: MockClock) -> None:
    failures = Failures()
    failures.remember("a", NotFoundError("a"), span=Span(0, 100))
    failures.check("a", Patience(1.0), span=Span(100, 200))
    with pytest.raises(NotFoundError):
        failures.check("a", Patience(1.0), span=Span(50, 150))


# -- budget, progress


def test_the_budget_counts_to_its_limit() -> None:
    budget = Budget(100, offline=False)
    budget.take(100, "x")
    with pytest.raises(BudgetError, match="x"):
        budget.check("x")
    with pytest.raises(BudgetError, match="100 bytes"):
        budget.take(1, "x")


def test_offline_nothing_may_be_fetched() -> None:
    with pytest.raises(OfflineError, match="x is not in the store"):
        Budget(None, offline=True).check("x")


async def test_y17_progress_is_rate_limited_and_ends_with_the_end(
    autojump_clock: MockClock,
) -> None:
    calls: list[tuple[int, int]] = []
    progress = Progress(lambda *call: calls.append(call), 1.0)
    progress.start(10_000)
    tally = Tally(progress)
    for _ in range(10_000):
        await trio.sleep(0.001)
        tally.beat(1)
    progress.finish(whole=True)
    assert calls[0] == (0, 10_000)
    assert calls[-1] == (10_000, 10_000)
    assert len(calls) <= 12


@pytest.mark.expects_log("fetch.progress.failed")
async def test_rule5_a_listener_that_raises_fails_nothing() -> None:
    def fail(_done: int, _total: int) -> None:
        raise RuntimeError

    progress = Progress(fail, 0.0)
    progress.start(5)
    progress.add(5)
    progress.finish(whole=True)
