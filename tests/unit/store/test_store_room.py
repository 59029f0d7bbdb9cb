"""Room: what is counted is what is there, after whatever happened."""

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from cafs.model.bounds import Bounds
from cafs.model.digest import EMPTY
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.space.room import RoomUsage
from cafs.store.store import Store, open_store
from cafs.store.tables.counters import BLOCK, Counter, charge
from cafs.store.tables.presence import Presence

KEYS = [StreamKey(f"{number:02x}" * 32) for number in range(4)]
SIZE = 256 << 10


async def blob(store: Store, data: bytes) -> Item:
    writer = await store.blobs.create()
    await writer.write(data)
    return Item.blob((await writer.commit(None, None)).digest)


async def work(store: Store, seed: int, steps: int = 60) -> None:
    """Whatever may happen to items, at random."""
    dice = random.Random(seed)
    for _ in range(steps):
        key = dice.choice(KEYS)
        known = list(store.blobs.digests())
        match dice.randrange(8):
            case 0 | 1 | 2:
                stream = await store.streams.open(key, SIZE)
                start = dice.randrange(SIZE)
                length = min(SIZE - start, dice.randrange(1, 100_000))
                await stream.write(start, dice.randbytes(length))
            case 3:
                await blob(store, dice.randbytes(dice.randrange(20_000)))
            case 4 if known:
                await store.blobs.delete(dice.choice(known))
            case 5:
                await store.checkpoint()
            case 6:
                await store.evictor.make_room(dice.randrange(200_000))
            case 7:
                found = store.streams.find(key)
                if found is not None:
                    await found.discard()
            case _:
                pass


def really(store: Store) -> tuple[int, int]:
    """What the store has by its records, looked at one by one."""
    sizes = [store.blobs.stat(each) for each in store.blobs.digests()]
    streams = [store.streams.find(key) for key in KEYS]
    blobs = sum(charge(each.size) for each in sizes if each is not None)
    return blobs, sum(each.present().total for each in streams if each is not None)


def counted(store: Store) -> tuple[int, int]:
    usage = store.room.usage()
    return usage.blobs, usage.streams


async def test_blobs_count_by_blocks_and_streams_by_bytes(store: Store) -> None:
    await blob(store, b"x")
    await blob(store, bytes(BLOCK + 1))
    stream = await store.streams.open(KEYS[0], SIZE)
    await stream.write(10, b"abc")
    await stream.write(11, b"bcd")
    assert counted(store) == (3 * BLOCK, 4)
    await store.checkpoint()
    assert counted(store) == (3 * BLOCK, 4)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_counted_is_what_is_there(store: Store, seed: int) -> None:
    await work(store, seed)
    assert counted(store) == really(store)
    assert store.room.recount() == 0


@pytest.mark.parametrize("boot", ["first", "second"])
async def test_it_is_so_after_a_kill_and_after_another_boot(
    store: Store, frozen: Callable[[Store], Path], boot: str
) -> None:
    await work(store, seed=5)
    copy = frozen(store)
    async with open_store(copy, boot_id=boot) as opened:
        assert counted(opened) == really(opened)
        assert opened.room.recount() == 0


@pytest.mark.parametrize(("boot", "counts"), [("first", 100_000), ("second", 0)])
async def test_what_a_killed_process_has_drafted_counts_in_this_boot(
    store: Store, frozen: Callable[[Store], Path], boot: str, counts: int
) -> None:
    stream = await store.streams.open(KEYS[0], SIZE)
    draft = await trio.to_thread.run_sync(stream.draft_sync)
    await trio.to_thread.run_sync(draft.write, 1000, bytes(100_000))
    copy = frozen(store)
    async with open_store(copy, boot_id=boot) as opened:
        assert counted(opened) == (0, counts)
        assert opened.room.recount() == 0


async def test_what_a_checkpoint_was_killed_with_counts_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await store.streams.open(KEYS[0], SIZE)
    await stream.write(0, bytes(1000))
    with monkeypatch.context() as patch:
        patch.setattr(Presence, "hand_on", lambda *_: None)
        await store.checkpoint()
    assert counted(store) == (0, 1000)
    await store.checkpoint()
    assert counted(store) == (0, 1000)
    assert store.room.recount() == 0


async def test_a_wrong_counter_is_found_out_and_corrected(store: Store) -> None:
    await work(store, seed=6)
    room = store.room
    room._index.apply(lambda batch: room._records.counter.add(batch, 12_345))
    room._recent.apply(lambda batch: room._fresh_spans.counter.add(batch, -77))
    assert counted(store) != really(store)
    assert room.recount() == 12_345 + 77
    assert counted(store) == really(store)


async def test_a_store_from_before_anything_was_counted_is_counted_when_it_is_opened(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store"
    async with open_store(path) as store:
        await work(store, seed=7)
        before, items = counted(store), {*map(str, _items(store))}
        index = store.room._index
        for name in ("counters", "uses", "ages"):
            table = index.table(name)
            index.apply(
                partial(Batch.clear, table=table, start=b"", stop=b"\xff" * 64, limit=1 << 30)
            )
    async with open_store(path) as store:
        assert counted(store) == before
        assert {*map(str, _items(store))} == items


def _items(store: Store) -> list[Item]:
    with store.room._index.read() as snapshot:
        return [item for _, item in store.uses.table.oldest(snapshot, b"")]


@pytest.mark.parametrize(
    ("used", "free", "bounds", "excess"),
    [
        (1000, 0, Bounds(), 0),
        (1000, 0, Bounds(quota=1000), 0),
        (1001, 0, Bounds(quota=1000), 101),
        (1000, 500, Bounds(min_free=500), 0),
        (1000, 400, Bounds(min_free=500), 150),
        (2000, 400, Bounds(quota=1000, min_free=500), 1100),
    ],
)
def test_too_much_is_made_to_go_down_to_the_low_mark(
    used: int, free: int, bounds: Bounds, excess: int
) -> None:
    usage = RoomUsage(
        blobs=used, streams=0, quota=bounds.quota, free=free, min_free=bounds.min_free
    )
    assert abs(usage.excess - excess) <= 1


async def test_what_the_disk_has_is_what_is_counted(store: Store) -> None:
    for number in range(20):
        await blob(store, os.urandom(1000 * number + 1))
    files = [path.stat() for path in store.path.glob("blobs/sha256/*/*")]
    assert sum(file.st_blocks * 512 for file in files) == store.room.usage().blobs


async def test_what_is_in_quarantine_counts_against_the_quota(store: Store) -> None:
    aside = store.path / "quarantine"
    (aside / "a").write_bytes(bytes(BLOCK + 1))
    (aside / "a.json").write_bytes(b"{}")
    (aside / "index-1").mkdir()
    (aside / "index-1" / "data.mdb").write_bytes(bytes(10 * BLOCK))
    usage = store.room.usage()
    assert (usage.quarantine, usage.total) == (13 * BLOCK, 13 * BLOCK)
    for path in (aside, aside / "index-1"):
        os.utime(path, (1, 1))  # changed long ago: from now on it is only looked at when it changes
    assert store.room.usage().quarantine == 13 * BLOCK
    assert store.room.usage().quarantine == 13 * BLOCK
    (aside / "a").unlink()
    assert store.room.usage().quarantine == 11 * BLOCK
    store.room.bounds = Bounds(quota=5 * BLOCK)
    assert store.room.crowded()


@pytest.mark.parametrize("name", ["blobs", "lasting spans", "fresh spans", "drafts"])
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.expects_log("store.record.broken")
async def test_a_counter_that_is_damaged_begins_at_no_number_and_is_counted_anew(
    store: Store, name: str, lost: bool
) -> None:
    await work(store, seed=8)
    room = store.room
    environment, counter = {
        "blobs": (room._index, room._records.counter),
        "lasting spans": (room._index, room._durable_spans.counter),
        "fresh spans": (room._recent, room._fresh_spans.counter),
        "drafts": (room._recent, room._drafts.counter),
    }[name]
    spoil(environment, counter, lost=lost)
    assert not room.counted()
    await blob(store, b"more")
    stream = await store.streams.open(StreamKey("ee" * 32), SIZE)
    await stream.write(0, b"more")
    await store.checkpoint()
    assert not room.counted()
    room.bounds = Bounds(quota=1 << 40)
    assert room.crowded()
    room.reckon()
    assert room.counted()
    assert not room.crowded()
    await stream.discard()
    assert counted(store) == really(store)
    assert room.recount() == 0


def spoil(environment: Environment, counter: Counter, *, lost: bool) -> None:
    """Remove a counter, or change what it says as a disk would."""

    def change(batch: Batch) -> None:
        batch.delete(counter._table, counter._key)
        if not lost:
            handle = counter._table.handle
            batch._transaction.put(counter._key, b"wrong sum of it", db=handle)

    environment.apply(change)


async def test_who_is_killed_while_he_counts_leaves_it_to_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await work(store, seed=9)
    room = store.room
    spoil(room._index, room._records.counter, lost=True)
    with monkeypatch.context() as patch:
        patch.setattr("cafs.store.tables.spans.total", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            room.reckon()
    assert not room.counted()
    room.reckon()
    assert counted(store) == really(store)


async def test_what_is_in_quarantine_goes_before_anything_that_is_right(store: Store) -> None:
    """Else a source that sent wrong bytes would have all that is right evicted for a week."""
    kept = await blob(store, bytes(10 * BLOCK))
    aside = store.path / "quarantine"
    for number, name in enumerate(("first", "second")):
        (aside / name).write_bytes(bytes(5 * BLOCK))
        (aside / f"{name}.json").write_bytes(b"{}")
        os.utime(aside / name, (number + 1, number + 1))
        await trio.sleep(0.02)  # they are told apart by when they came, in ticks of the kernel
    (aside / "index-1").mkdir()
    (aside / "index-1" / "data.mdb").write_bytes(bytes(5 * BLOCK))
    assert await store.evictor.make_room(2 * BLOCK) == 5 * BLOCK
    names = {path.name for path in aside.iterdir()}
    assert names == {"first.json", "second", "second.json", "index-1"}
    assert await store.evictor.make_room(10 * BLOCK) == 10 * BLOCK
    assert {path.name for path in aside.iterdir()} == {"first.json", "second.json"}
    assert store.room.usage().total == 12 * BLOCK
    assert await store.evictor.make_room(BLOCK) == 10 * BLOCK
    assert store.blobs.stat(kept.digest or EMPTY) is None
