"""Labour: who waits hears of work, of theirs and of that which is in their way; of nothing else."""

import threading
from collections.abc import Callable
from contextvars import copy_context

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs import labour
from cafs.labour import Labour, Threads, Turn, worked

OFTEN_S = 2.0**-6
TICK_S = OFTEN_S / 16


class Ear:
    """Whether it has heard something."""

    def __init__(self) -> None:
        self.heard = trio.Event()

    def beat(self) -> None:
        self.heard.set()


class Beats:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.count = 0

    def beat(self) -> None:
        self.count += 1


class Watch:
    """The time by which it is told what was done: it passes when a test says so."""

    def __init__(self) -> None:
        self.now = 4096.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is told, however fast they come."""
    monkeypatch.setattr(labour, "_OFTEN_S", 0.0)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, every_step: None) -> Watch:
    """Only now and then is a step told."""
    watch = Watch()
    monkeypatch.setattr(labour, "_OFTEN_S", OFTEN_S)
    monkeypatch.setattr(labour, "time", watch)
    return watch


async def until_waiting(threads: Threads, count: int) -> None:
    """So many wait for one of them."""
    with trio.fail_after(20):
        while threads.limiter.statistics().tasks_waiting < count:  # noqa: ASYNC110 - no event says
            await trio.sleep(0.001)


async def hears(ear: Ear) -> None:
    with trio.fail_after(20):
        await ear.heard.wait()


async def is_silent(ear: Ear) -> None:
    await wait_all_tasks_blocked(0.05)
    assert not ear.heard.is_set()


async def test_who_has_work_done_in_a_thread_hears_of_it() -> None:
    ear = Ear()
    with Labour(ear.beat).heard():
        await trio.to_thread.run_sync(worked)
    await hears(ear)


async def test_nobody_hears_of_a_thread_that_does_nothing_or_of_work_of_others() -> None:
    ear = Ear()
    with Labour(ear.beat).heard():
        await trio.to_thread.run_sync(lambda: None)
    await trio.to_thread.run_sync(worked)
    await is_silent(ear)


async def test_steps_are_told_at_a_pace_and_what_is_short_is_not(watch: Watch) -> None:
    times, begun = list[float](), watch.now
    with Labour(lambda: times.append(watch.now - begun)).heard():
        for _ in range(100):
            watch.now += TICK_S
            worked()
            await wait_all_tasks_blocked()
    assert times == [OFTEN_S * number for number in range(1, 7)]


async def test_many_short_jobs_that_wait_for_each_other_are_told_at_one_pace(
    watch: Watch,
) -> None:
    """Each told to all who wait, they cost the square of their number."""
    threads, go, waits, begun, beats = Threads(1), threading.Event(), 300, trio.Event(), Beats()
    token = trio.lowlevel.current_trio_token()

    def hold() -> None:
        token.run_sync_soon(begun.set)
        go.wait(20)

    def short() -> None:
        watch.now += TICK_S
        worked()

    async def have() -> None:
        with Labour(beats.beat).heard():
            await threads.run(short)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, hold)
        await begun.wait()
        for _ in range(waits):
            nursery.start_soon(have)
        await until_waiting(threads, waits)
        go.set()
    often = waits * TICK_S / OFTEN_S
    assert waits < beats.count <= waits * (often / 2 + 2)  # half of them wait, and each its own


async def test_many_short_jobs_of_one_are_progress_to_him(watch: Watch) -> None:
    threads, beats = Threads(1), Beats()

    def short() -> None:
        watch.now += TICK_S
        worked()

    with Labour(beats.beat).heard():
        for _ in range(100):
            await threads.run(short)
    await wait_all_tasks_blocked()
    assert beats.count == 6


async def test_a_long_job_is_told_to_its_own_and_all_who_wait_again_and_again(
    watch: Watch,
) -> None:
    threads, waits, parts = Threads(1), 20, 5
    own, others = Beats(), [Beats() for _ in range(waits)]
    go = threading.Event()

    def long() -> None:
        go.wait(20)
        for _ in range(parts):
            watch.now += 1.0
            worked()
            trio.from_thread.run(wait_all_tasks_blocked)

    async def have(beats: Beats, work: Callable[[], None]) -> None:
        with Labour(beats.beat).heard():
            await threads.run(work)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(have, own, long)
        await wait_all_tasks_blocked()
        for each in others:
            nursery.start_soon(have, each, lambda: None)
        await until_waiting(threads, waits)
        go.set()
    assert own.count == parts
    assert [each.count for each in others] == [parts] * waits


async def test_who_comes_back_to_the_threads_that_work_for_him_is_told_once() -> None:
    threads, go, ear, back = Threads(2), threading.Event(), Beats(), trio.Event()

    def other() -> None:
        go.wait(20)
        worked()
        trio.from_thread.run(wait_all_tasks_blocked)

    async def come_back() -> None:
        back.set()
        await threads.run(lambda: None)

    async def have() -> None:
        with Labour(ear.beat).heard():
            await threads.run(lambda: trio.from_thread.run(come_back))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, other)
        nursery.start_soon(have)
        await back.wait()
        await until_waiting(threads, 1)
        before = ear.count
        go.set()
    assert (before, ear.count) == (0, 1)


def test_who_works_on_when_the_run_has_ended_tells_nobody() -> None:
    async def run() -> Labour:
        return Labour(lambda: None)

    left = trio.run(run)
    copy_context().run(left.step)


async def test_who_waits_for_a_thread_hears_of_the_work_in_it_until_its_own_begins() -> None:
    threads, go, begun = Threads(1), threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    first, second = Ear(), Ear()

    def work() -> None:
        token.run_sync_soon(begun.set)
        go.wait(20)
        worked()

    async def have(ear: Ear) -> None:
        with Labour(ear.beat).heard():
            await threads.run(work)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(have, first)
        await begun.wait()
        nursery.start_soon(have, second)
        await wait_all_tasks_blocked()
        await is_silent(second)
        go.set()
        await hears(first)
        await hears(second)


async def test_who_has_a_thread_hears_nothing_of_the_work_in_others() -> None:
    threads, go, begun = Threads(2), threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    hung, other = Ear(), Ear()

    def hang() -> None:
        token.run_sync_soon(begun.set)
        go.wait(20)

    async def have_hung() -> None:
        with Labour(hung.beat).heard():
            await threads.run(hang)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(have_hung)
        await begun.wait()
        with Labour(other.beat).heard():
            await threads.run(worked)
        await hears(other)
        await is_silent(hung)
        go.set()


async def test_who_waits_for_a_turn_hears_of_the_work_of_who_has_it() -> None:
    turn, waiting, done = Turn(), Ear(), trio.Event()

    async def wait() -> None:
        with Labour(waiting.beat).heard():
            async with turn.hold():
                done.set()

    async with trio.open_nursery() as nursery:
        async with turn.hold():
            nursery.start_soon(wait)
            await is_silent(waiting)
            await trio.to_thread.run_sync(worked)
            await hears(waiting)
            assert not done.is_set()
        with trio.fail_after(20):
            await done.wait()


async def test_who_leaves_the_queue_hears_no_more() -> None:
    turn, gone = Turn(), Ear()
    async with turn.hold():
        with trio.move_on_after(0), Labour(gone.beat).heard():
            async with turn.hold():
                pytest.fail("it is held by somebody else")
        await trio.to_thread.run_sync(worked)
        await is_silent(gone)
