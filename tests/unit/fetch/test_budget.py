"""A mount's budget: what is spent of it outlives the worker, and is shared by all who spend it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from cafs.errors import BudgetError, StorageFullError
from cafs.fetch.sources import budget
from cafs.fetch.sources.budget import Account, Budget
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import Mounts, new_key

KIB = 1 << 10
MIB = 1 << 20
LONG_S = 1e6


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "store") as opened:
        yield opened


@asynccontextmanager
async def kept(limit: int | None, account: Account) -> AsyncIterator[Budget]:
    """A budget as a worker has it, for as long as the worker lives."""
    spending = Budget(limit, offline=False, account=account)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spending.keep)
        yield spending
        nursery.cancel_scope.cancel()


async def until(true: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not true():  # noqa: ASYNC110 - what another thread writes has no event
            await trio.sleep(0.005)


@pytest.mark.parametrize("limit", [10 * MIB, None])
async def test_what_a_worker_has_spent_is_known_to_the_next(
    store: Store, limit: int | None
) -> None:
    account = Account(store.mounts, await store.mounts.open(new_key(), "test"))
    async with kept(limit, account) as first:
        first.take(3 * KIB, "x")
    async with kept(10 * MIB, account) as second:
        assert second.spent == 3 * KIB
        second.take(10 * MIB - 3 * KIB, "x")
        with pytest.raises(BudgetError):
            second.check("x")
    third = Budget(10 * MIB, offline=False, account=account)
    with pytest.raises(BudgetError, match="budget of 10485760 bytes is spent"):
        third.check("x")
    Budget(11 * MIB, offline=False, account=account).check("x")


async def test_much_is_written_down_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_PERIOD_S", LONG_S)
    account = Account(store.mounts, await store.mounts.open(new_key(), "test"))
    async with kept(10 * MIB, account) as spending:
        for _ in range(8):
            spending.take(128 * KIB, "x")
        await until(lambda: store.mounts.spent(account.mount) == MIB)
        spending.take(MIB - 1, "x")
        await trio.testing.wait_all_tasks_blocked()
        assert store.mounts.spent(account.mount) == MIB
    assert store.mounts.spent(account.mount) == 2 * MIB - 1


async def test_little_is_written_down_soon(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_PERIOD_S", 0.01)
    account = Account(store.mounts, await store.mounts.open(new_key(), "test"))
    async with kept(None, account) as spending:
        spending.take(1, "x")
        await until(lambda: store.mounts.spent(account.mount) == 1)
        spending.take(2, "x")
        await until(lambda: store.mounts.spent(account.mount) == 3)


async def test_two_that_spend_for_one_mount_have_one_budget(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_PERIOD_S", 0.01)
    account = Account(store.mounts, await store.mounts.open(new_key(), "test"))
    async with kept(2 * MIB, account) as worker, kept(2 * MIB, account) as prefetch:
        prefetch.take(MIB + MIB // 2, "x")
        await until(lambda: store.mounts.spent(account.mount) > MIB)
        worker.take(MIB // 2, "x")
        await until(lambda: worker.spent == 2 * MIB)
        with pytest.raises(BudgetError):
            worker.check("x")


@pytest.mark.expects_log("fetch.budget.unkept")
async def test_what_cannot_be_written_down_is_not_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_PERIOD_S", 0.01)
    refused: list[int] = []

    async def refuse(_self: Mounts, _mount: int, count: int) -> int:
        await trio.lowlevel.checkpoint()
        refused.append(count)
        raise StorageFullError("no space")

    account = Account(store.mounts, await store.mounts.open(new_key(), "test"))
    async with kept(2 * MIB, account) as spending:
        with monkeypatch.context() as full:
            full.setattr(Mounts, "spend", refuse)
            spending.take(5, "x")
            await until(lambda: bool(refused))
        spending.take(7, "x")
        await until(lambda: store.mounts.spent(account.mount) == 12)
        assert spending.spent == 12


async def test_what_is_being_written_down_when_a_worker_ends_is_not_forgotten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_PERIOD_S", 0.01)
    waiting = trio.Event()
    spend = Mounts.spend

    async def spend_late(self: Mounts, mount: int, count: int) -> int:
        if not waiting.is_set():
            waiting.set()
            await trio.sleep_forever()  # as behind the writes of others
        return await spend(self, mount, count)

    monkeypatch.setattr(Mounts, "spend", spend_late)
    account = Account(store.mounts, await store.mounts.open(new_key(), "test"))
    async with kept(MIB, account) as spending:
        spending.take(5, "x")
        await waiting.wait()
        spending.take(7, "x")
    assert store.mounts.spent(account.mount) == 12
