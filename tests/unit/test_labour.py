"""Labour: who waits hears of work, of theirs and of that which is in their way; of nothing else."""

import threading
from contextvars import copy_context

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cafs import labour
from cafs.labour import Labour, Threads, Turn, worked


class Ear:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.heard = trio.Event()

    def beat(self) -> None:
        self.heard.set()


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is told, however fast they come."""
    monkeypatch.setattr(labour, "_OFTEN_S", 0.0)


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


async def test_steps_that_come_fast_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labour, "_OFTEN_S", 3600.0)
    times: list[float] = []
    with Labour(lambda: times.append(trio.current_time())).heard():
        for _ in range(100):
            worked()
            await wait_all_tasks_blocked()
    assert len(times) == 1


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
