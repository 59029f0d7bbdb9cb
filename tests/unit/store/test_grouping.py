"""Changes that wait at the same time are committed together, and fail alone."""

from collections.abc import Callable

import pytest
import trio
import trio.testing

from cafs.store.db.grouping import Grouping


class Ledger:
    """What was committed, and in how many transactions; the first one waits for ``go``."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.transactions = 0
        self.begun = trio.Event()
        self.go = trio.Event()

    def apply(self, change: Callable[[list[int]], None]) -> None:
        self.transactions += 1
        if self.transactions == 1:
            trio.from_thread.run_sync(self.begun.set)
            trio.from_thread.run(self.go.wait)
        draft = list(self.kept)
        change(draft)
        self.kept = draft


def adding(number: int) -> Callable[[list[int]], int]:
    def change(given: list[int]) -> int:
        given.append(number)
        return 10 * number

    return change


def failing(given: list[int]) -> int:
    given.append(-1)
    raise ValueError("no")


async def test_what_waits_for_a_commit_goes_into_one_in_its_order() -> None:
    ledger = Ledger()
    grouping = Grouping(ledger.apply, trio.CapacityLimiter(1))
    results: dict[int, int] = {}

    async def commit(number: int) -> None:
        results[number] = await grouping.commit(adding(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit, 0)
        await ledger.begun.wait()
        for number in range(1, 20):
            nursery.start_soon(commit, number)
            await trio.testing.wait_all_tasks_blocked()
        ledger.go.set()
    assert ledger.transactions == 2
    assert ledger.kept == list(range(20))
    assert results == {number: 10 * number for number in range(20)}


async def test_a_change_that_fails_fails_alone() -> None:
    ledger = Ledger()
    grouping = Grouping(ledger.apply, trio.CapacityLimiter(1))

    async def fail() -> None:
        with pytest.raises(ValueError, match="no"):
            await grouping.commit(failing)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(grouping.commit, adding(0))
        await ledger.begun.wait()
        nursery.start_soon(grouping.commit, adding(1))
        nursery.start_soon(fail)
        nursery.start_soon(grouping.commit, adding(2))
        await trio.testing.wait_all_tasks_blocked()
        ledger.go.set()
    assert sorted(ledger.kept) == [0, 1, 2]


async def test_who_gives_up_before_his_turn_changes_nothing() -> None:
    ledger = Ledger()
    grouping = Grouping(ledger.apply, trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grouping.commit, adding(0))
        await ledger.begun.wait()
        with trio.move_on_after(0.01) as scope:
            await grouping.commit(adding(1))
        ledger.go.set()
    assert scope.cancelled_caught
    assert ledger.kept == [0]


async def test_what_has_begun_is_carried_through_though_its_task_was_cancelled() -> None:
    ledger = Ledger()
    grouping = Grouping(ledger.apply, trio.CapacityLimiter(1))
    results: list[int] = []

    async def commit(number: int, scope: trio.CancelScope) -> None:
        with scope:
            results.append(await grouping.commit(adding(number)))

    scopes = [trio.CancelScope() for _ in range(2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commit, 1, scopes[0])
        await ledger.begun.wait()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        ledger.go.set()
    assert (ledger.kept, results) == ([1], [10])
