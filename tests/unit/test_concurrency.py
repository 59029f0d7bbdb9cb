"""Flights and keyed locks."""

import pytest
import trio
import trio.testing

from cafs.concurrency import Flights, KeyedLocks, in_order
from cafs.errors import NotFoundError


async def test_concurrent_calls_for_a_key_run_once(autojump_clock: trio.testing.MockClock) -> None:
    flights: Flights[int] = Flights()
    runs = 0
    results: list[int] = []

    async def fly() -> int:
        nonlocal runs
        runs += 1
        await trio.sleep(1)
        return runs

    async def call() -> None:
        results.append(await flights.run("key", fly))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call)
    assert results == [1] * 8
    assert await flights.run("key", fly) == 2


async def test_waiters_of_a_failed_leader_run_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flights: Flights[str] = Flights()
    outcomes: list[str] = []

    async def fail() -> str:
        await trio.sleep(1)
        raise ValueError("the leader's own")

    async def succeed() -> str:
        await trio.sleep(1)
        return "landed"

    async def leader() -> None:
        with pytest.raises(ValueError, match="own"):
            await flights.run("key", fail)

    async def waiter() -> None:
        outcomes.append(await flights.run("key", succeed))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(waiter)
        nursery.start_soon(waiter)
    assert outcomes == ["landed"] * 2


async def test_a_cancelled_leader_hands_the_flight_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flights: Flights[str] = Flights()
    outcomes: list[str] = []

    async def hang() -> str:
        await trio.sleep(3600)
        return "never"

    async def succeed() -> str:
        return "landed"

    async def leader(scope: trio.CancelScope) -> None:
        with scope:
            await flights.run("key", hang)

    async def waiter() -> None:
        outcomes.append(await flights.run("key", succeed))

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leader, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(waiter)
        await trio.testing.wait_all_tasks_blocked()
        assert not outcomes
        scope.cancel()
    assert outcomes == ["landed"]


async def test_locks_exclude_by_key_and_are_forgotten() -> None:
    locks = KeyedLocks()
    order: list[str] = []

    async def hold(key: str, name: str) -> None:
        async with locks.hold(key):
            order.append(f"+{name}")
            await trio.testing.wait_all_tasks_blocked()
            order.append(f"-{name}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, "a", "one")
        nursery.start_soon(hold, "a", "two")
        nursery.start_soon(hold, "b", "other")
    first = order.index("+one"), order.index("-one")
    second = order.index("+two"), order.index("-two")
    assert first[1] < second[0] or second[1] < first[0]
    assert not locks._locks


async def test_a_few_at_once_answer_in_their_order() -> None:
    running = most = 0

    async def one(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1 / (1 + number))
        running -= 1
        return number * 10

    assert await in_order(one, 5, at_once=2) == (0, 10, 20, 30, 40)
    assert most == 2


async def test_the_first_failure_of_several_comes_alone_and_ends_the_others() -> None:
    ended: list[int] = []

    async def one(number: int) -> int:
        if number == 1:
            raise NotFoundError("number 1 is not there")
        try:
            await trio.Event().wait()
        finally:
            ended.append(number)
        return number

    with pytest.raises(NotFoundError, match="number 1"):
        await in_order(one, 3, at_once=3)
    assert sorted(ended) == [0, 2]
