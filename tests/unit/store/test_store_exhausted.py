"""Making room where all that is left is in use: what that costs, and what ends it."""

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from cafs.errors import StorageError
from cafs.model.bounds import Bounds
from cafs.model.digest import Digest
from cafs.model.item import Item
from cafs.store.db.transactions import Snapshot
from cafs.store.space import choosing, evicting
from cafs.store.space.room import Room
from cafs.store.store import Store

QUOTA = 10 * 4096


@pytest.fixture(autouse=True)
def nothing_was_just_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cafs.store.tables.uses.JUST_S", 0.0)


async def blob(store: Store) -> Digest:
    writer = await store.blobs.create()
    await writer.write(os.urandom(100))
    return (await writer.commit(None, None)).digest


async def pinned(store: Store, count: int) -> list[Digest]:
    """Blobs that may not go."""
    digests = [await blob(store) for _ in range(count)]
    for digest in digests:
        await store.pins.pin(Item.blob(digest), "pinned")
    return digests


async def exhausted(store: Store) -> None:
    """Wait until it is known that nothing may go."""
    with trio.fail_after(60):
        while not store.evictor.exhausted:  # noqa: ASYNC110 - found out in the background
            await trio.sleep(0.01)


async def gone(store: Store, digest: Digest) -> None:
    with trio.fail_after(60):
        while store.blobs.stat(digest) is not None:  # noqa: ASYNC110 - gone in the background
            await trio.sleep(0.01)


class Looks:
    """Counts the items that are looked at, and how often everything is."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.items = self.scans = 0
        oldest = store.uses.table.oldest

        def counted(snapshot: Snapshot, start: bytes) -> Iterator[tuple[bytes, Item]]:
            self.scans += not start
            for each in oldest(snapshot, start):
                self.items += 1
                yield each

        monkeypatch.setattr(store.uses.table, "oldest", counted)


async def test_everything_is_looked_at_ever_less_often_and_it_is_told_once(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    autojump_clock.autojump_threshold = 0.01  # threads are waited for
    await pinned(store, 12)
    looks = Looks(store, monkeypatch)
    with caplog.at_level(logging.INFO):
        store.evictor.keep_within(Bounds(QUOTA))
        await trio.sleep(200)
    assert store.evictor.exhausted
    assert 3 <= looks.scans <= 9  # after 1, 3, 7, 15, 31, … s
    assert [line for line in caplog.messages if "store.evict" in line] == ["store.evict.exhausted"]


@pytest.mark.expects_log("store.evict.failed")
async def test_a_failure_that_lasts_is_told_once(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    autojump_clock.autojump_threshold = 0.01
    await pinned(store, 12)

    def broken() -> None:
        raise StorageError("the index is damaged")

    monkeypatch.setattr(store.room, "usage", broken)
    store.evictor.keep_within(Bounds(QUOTA))
    await trio.sleep(100)
    assert [each for each in caplog.messages if "evict" in each] == [
        "store.evict.failed error=the index is damaged"
    ]


@pytest.mark.parametrize("how", ["a hold ends", "a pin ends", "the bounds change"])
async def test_what_may_go_again_goes_without_the_next_look_at_everything(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(evicting, "_PAUSE_S", (600.0, 600.0))
    monkeypatch.setattr(evicting, "_GLANCE_S", 0.05)
    old = await blob(store)
    new = await blob(store)
    rest = await pinned(store, 12)
    async with store.blobs.hold(old):
        await store.pins.pin(Item.blob(new), "new")
        store.evictor.keep_within(Bounds(13 * 4096))
        await exhausted(store)
        if how == "a pin ends":
            await store.pins.unpin(Item.blob(new))
            await gone(store, new)
        elif how == "the bounds change":
            await store.pins.unpin(Item.blob(rest[3]))
            store.evictor.keep_within(Bounds(12 * 4096))
            await gone(store, rest[3])
    if how == "a hold ends":
        await gone(store, old)


async def test_what_is_new_goes_though_everything_else_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evicting, "_PAUSE_S", (600.0, 600.0))
    monkeypatch.setattr(evicting, "_GLANCE_S", 0.05)
    await pinned(store, 12)
    store.evictor.keep_within(Bounds(QUOTA))
    await exhausted(store)
    looks = Looks(store, monkeypatch)
    for _ in range(3):
        await gone(store, await blob(store))
    assert looks.scans == 0
    assert looks.items <= 12


async def test_a_look_at_everything_ends_when_nobody_waits_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "PAGE", 4)
    await pinned(store, 30)
    looks = Looks(store, monkeypatch)
    scope = trio.CancelScope()
    oldest = store.uses.table.oldest

    def cancelling(snapshot: Snapshot, start: bytes) -> Iterator[tuple[bytes, Item]]:
        trio.from_thread.run_sync(scope.cancel)
        return oldest(snapshot, start)

    monkeypatch.setattr(store.uses.table, "oldest", cancelling)
    with scope:
        await store.evictor.make_room(1 << 30)
    assert scope.cancelled_caught
    assert looks.items <= 8


async def test_others_may_remove_while_it_is_chosen_what_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blob(store)
    free: list[bool] = []
    looks = store.uses.table.oldest

    def trying(snapshot: Snapshot, start: bytes) -> Iterator[tuple[bytes, Item]]:
        with (store.path / "leases" / "evicting").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                free.append(False)
            else:
                free.append(True)
        return looks(snapshot, start)

    monkeypatch.setattr(store.uses.table, "oldest", trying)
    assert await store.evictor.make_room(1) == 4096
    assert free == [True]


async def test_who_waits_for_anothers_batch_may_be_cancelled(store: Store) -> None:
    digest = await blob(store)
    with (store.path / "leases" / "evicting").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with trio.move_on_after(0.2) as scope:
            await store.evictor.make_room(1)
        assert scope.cancelled_caught
    assert store.blobs.stat(digest) is not None
    assert await store.evictor.make_room(1) == 4096


@pytest.mark.parametrize("counting", [Room.reckon, Room.recount])
async def test_who_waits_for_anothers_count_may_be_cancelled(
    store: Store, monkeypatch: pytest.MonkeyPatch, counting: Callable[[Room], object]
) -> None:
    monkeypatch.setattr(store.room, "counted", lambda: False)
    other = os.open(store.path / "leases", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(other, fcntl.LOCK_EX)
    let_go = threading.Timer(5.0, fcntl.flock, [other, fcntl.LOCK_UN])  # so that it fails, and ends
    let_go.start()
    with trio.move_on_after(0.2) as scope:
        await trio.to_thread.run_sync(counting, store.room)
    assert scope.cancelled_caught
    let_go.cancel()
    os.close(other)
    await trio.to_thread.run_sync(counting, store.room)
