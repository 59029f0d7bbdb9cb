"""Who waits for a turn, or for a thread, hears of all that moves for who has it."""

import threading

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cafs import labour
from cafs.fetch.content.segment_jobs import Checks
from cafs.fetch.flights.turns import Turns
from cafs.fetch.pulse import Pulse
from cafs.labour import Labour, worked
from cafs.model.digest import digest_of
from cafs.model.identity import raw_stream
from cafs.model.span import SpanSet
from cafs.store.blobs.blobs import ADMISSIONS
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import Rig, until
from tests.unit.fetch.test_labour import DEADLINE, STEP_S, slowly
from tests.unit.fetch.test_shared_input import CHUNK, opened


@pytest.fixture
def clock(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """The real clock, which jumps when it is told to; and each step of work is told."""
    monkeypatch.setattr(labour, "_OFTEN_S", 0.0)
    mock_clock.rate = 1.0
    return mock_clock


async def test_to_wait_for_who_decodes_the_same_input_is_progress_while_he_works(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = await opened(rig, origin)
    begun, go, decoding = threading.Event(), threading.Event(), Checks.add
    slow = slowly(clock, decoding)

    def add(checks: Checks, piece: bytes) -> None:
        begun.set()
        go.wait(60)
        slow(checks, piece)

    monkeypatch.setattr(Checks, "add", add)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.read, 0, CHUNK, DEADLINE)
        await until(begun.is_set)
        nursery.start_soon(content.read, CHUNK, CHUNK, DEADLINE)
        await wait_all_tasks_blocked(0.05)
        go.set()


async def test_what_comes_for_who_has_a_turn_is_progress_to_who_waits_for_it(
    clock: MockClock,
) -> None:
    turns, has, waits = Turns(), Pulse(), Pulse()

    async def wait() -> None:
        with Labour(waits.beat).heard():
            async with turns.hold("a", waits):
                pass

    async with trio.open_nursery() as nursery, turns.hold("a", has):
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        clock.jump(STEP_S)
        assert trio.current_time() - waits.moved >= STEP_S
        has.beat(100)
        assert trio.current_time() - waits.moved < STEP_S
    clock.jump(STEP_S)
    has.beat(100)
    assert trio.current_time() - waits.moved >= STEP_S


async def test_to_wait_for_a_thread_to_take_back_what_failed_is_progress_while_others_work(
    rig: Rig, clock: MockClock
) -> None:
    blobs, go, end, waits = rig.store.blobs, threading.Event(), threading.Event(), Pulse()
    statistics = blobs._threads.limiter.statistics

    def check() -> None:
        go.wait(60)
        worked()
        end.wait(60)

    key = raw_stream(digest_of(b"x"))
    async with trio.open_nursery() as nursery:
        for _ in range(ADMISSIONS):
            nursery.start_soon(blobs._threads.run, check)
        await until(lambda: statistics().borrowed_tokens == ADMISSIONS)
        with Labour(waits.beat).heard():
            nursery.start_soon(blobs.take_back, key, SpanSet(), 1)
        await until(lambda: statistics().tasks_waiting == 1)
        clock.jump(STEP_S)
        go.set()
        try:
            await until(lambda: trio.current_time() - waits.moved < STEP_S)
        finally:
            end.set()
