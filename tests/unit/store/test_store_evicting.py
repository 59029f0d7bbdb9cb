"""Evicting: what goes when there is too much, what stays, and that nobody reads a hole."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from cafs.errors import NotFoundError, StorageFullError
from cafs.model.bounds import Bounds
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Snapshot
from cafs.store.disk.files import punch
from cafs.store.disk.locking import flock_alone
from cafs.store.holds.holds import GRAIN
from cafs.store.space import choosing
from cafs.store.space.choosing import RANGE
from cafs.store.space.evicting import Evictor
from cafs.store.space.findings import Terms
from cafs.store.space.purging import Housekeeping, Outcome
from cafs.store.store import Store, open_store
from cafs.store.tables.counters import charge
from cafs.store.tables.uses import Rank

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)
SIZE = 100_000
CHARGE = charge(SIZE)
QUOTA = 10 * CHARGE
PIECE = 1 << 20


@pytest.fixture
async def bounded(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with a quota of ten blobs."""
    async with open_store(tmp_path / "store", bounds=Bounds(QUOTA)) as opened:
        yield opened


async def blob(store: Store) -> Digest:
    writer = await store.blobs.create()
    await writer.write(os.urandom(SIZE))
    return (await writer.commit(None, None)).digest


def content(offset: int, length: int) -> bytes:
    """What a stream has there: no zeros, and different at each MiB."""
    return b"".join(
        bytes([number % 255 + 1]) * PIECE
        for number in range(offset // PIECE, (offset + length) // PIECE)
    )


async def fill(store: Store, key: StreamKey, size: int) -> None:
    stream = await store.streams.open(key, size)
    for offset in range(0, size, PIECE):
        await stream.write(offset, content(offset, PIECE))


def here(store: Store, digests: list[Digest]) -> list[bool]:
    return [store.blobs.stat(each) is not None for each in digests]


def present(store: Store, key: StreamKey = KEY) -> SpanSet:
    found = store.streams.find(key)
    return SpanSet() if found is None else found.present()


def blocks(store: Store) -> int:
    """Bytes on the disk of all streams."""
    return sum(path.stat().st_blocks * 512 for path in store.path.glob("streams/*/*"))


async def within(store: Store) -> None:
    with trio.fail_after(60):
        while store.room.usage().excess:  # noqa: ASYNC110 - gone in the background
            await trio.sleep(0.01)


@pytest.fixture(autouse=True)
def nothing_was_just_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cafs.store.tables.uses.JUST_S", 0.0)


async def test_nothing_goes_up_to_the_quota_and_beyond_it_the_oldest_down_to_the_low_mark(
    bounded: Store,
) -> None:
    digests = [await blob(bounded) for _ in range(10)]
    await trio.sleep(0.1)
    assert all(here(bounded, digests))
    digests.append(await blob(bounded))
    await within(bounded)
    assert here(bounded, digests) == [False] * 2 + [True] * 9
    assert bounded.room.usage().total == 9 * CHARGE
    assert len(list(bounded.path.glob("blobs/sha256/*/*"))) == 9


async def test_without_bounds_nothing_goes_by_itself(store: Store) -> None:
    digests = [await blob(store) for _ in range(12)]
    await trio.sleep(0.1)
    assert all(here(store, digests))


async def test_a_disk_is_left_to_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [await blob(store) for _ in range(3)]
    free = [10_000_000]
    monkeypatch.setattr(store.room._layout, "free_bytes", lambda: free[0])
    store.evictor.keep_within(Bounds(min_free=10_000_000 + 1))
    removed = store.remover.remove

    def remove(items: list[Item]) -> int:
        freed = removed(items)
        free[0] += freed
        return freed

    monkeypatch.setattr(store.remover, "remove", remove)
    with trio.fail_after(60):
        while all(here(store, digests)):  # noqa: ASYNC110 - gone in the background
            await trio.sleep(0.01)
    await within(store)
    assert here(store, digests)[0] is False


async def test_what_is_held_or_pinned_stays(store: Store) -> None:
    digests = [await blob(store) for _ in range(4)]
    await store.pins.pin(Item.blob(digests[1]), "pinned")
    async with store.blobs.hold(digests[0]):
        freed = await store.evictor.make_room(1 << 30)
    assert freed == 2 * CHARGE
    assert here(store, digests) == [True, True, False, False]


async def test_a_blob_is_held_by_who_holds_what_it_came_as(store: Store) -> None:
    stream = await store.streams.open(KEY, 3)
    await stream.write(0, b"abc")
    async with store.streams.hold(KEY):
        found = await store.blobs.admit(KEY, media_type="", name="abc")
        assert await store.evictor.make_room(1) == 0
        assert await store.blobs.read(found.digest, 0, 3) == b"abc"
    assert await store.evictor.make_room(1) == 4096


async def test_what_was_read_last_stays_for_a_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cafs.store.tables.uses.JUST_S", 60.0)
    digests = [await blob(store) for _ in range(6)]
    for digest in digests[:5]:
        await store.blobs.read(digest, 0, 1)
    await store.evictor.make_room(1 << 30)
    assert here(store, digests) == [False, True, True, True, True, False]


async def test_room_is_made_as_far_as_it_is_wanted_and_no_more_than_there_is(store: Store) -> None:
    digests = [await blob(store) for _ in range(4)]
    assert await store.evictor.make_room(CHARGE + 1) == 2 * CHARGE
    assert here(store, digests) == [False, False, True, True]
    assert await store.evictor.make_room(1 << 30) == 2 * CHARGE
    assert await store.evictor.make_room(1) == 0


async def test_many_small_blobs_go_in_batches(store: Store) -> None:
    for number in range(100):
        writer = await store.blobs.create()
        await writer.write(number.to_bytes(2, "big"))
        await writer.commit(None, None)
    assert await store.evictor.make_room(70 * 4096) == 70 * 4096
    assert len(list(store.blobs.digests())) == 30
    assert len(list(store.path.glob("blobs/sha256/*/*"))) == 30


async def test_raw_bytes_go_first_while_what_was_decoded_is_whole(store: Store) -> None:
    digests = [await blob(store) for _ in range(3)]
    await fill(store, KEY, 2 * PIECE)
    for digest in digests[1:]:
        store.uses.rank(Item.blob(digest), Rank.SPENT, KEY)
    assert await store.evictor.make_room(1) == CHARGE
    assert here(store, digests) == [True, False, True]
    stream = store.streams.find(KEY)
    assert stream is not None
    await stream.discard()
    await store.evictor.make_room(1)
    assert here(store, digests) == [False, False, True]


async def test_what_nobody_can_fetch_again_goes_last(store: Store) -> None:
    digests = [await blob(store) for _ in range(3)]
    store.uses.touch(Item.blob(digests[0]), precious=True)
    await store.evictor.make_room(2 * CHARGE)
    assert here(store, digests) == [True, False, False]
    await store.evictor.make_room(1)
    assert here(store, digests) == [False] * 3


async def test_a_large_stream_loses_ranges_from_its_front_and_the_disk_gets_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "LARGE", 8 << 20)
    await fill(store, KEY, 20 << 20)
    assert await store.evictor.make_room(5 << 20) == 2 * RANGE
    assert present(store) == SpanSet([Span(2 * RANGE, 20 << 20)])
    assert blocks(store) == 12 << 20
    stream = store.streams.find(KEY)
    assert stream is not None
    assert await stream.read(RANGE, 1) is None
    assert await stream.read(2 * RANGE, PIECE) == content(2 * RANGE, PIECE)
    await stream.write(0, content(0, PIECE))
    assert await stream.read(0, PIECE) == content(0, PIECE)
    assert store.room.usage().streams == 13 << 20
    assert store.room.recount() == 0


async def test_a_small_stream_goes_as_a_whole(store: Store) -> None:
    await fill(store, KEY, 3 * PIECE)
    assert await store.evictor.make_room(1) == 3 * PIECE
    assert store.streams.find(KEY) is None
    assert not list(store.path.glob("streams/*/*"))


async def test_of_a_stream_in_use_goes_what_nobody_holds(store: Store) -> None:
    await fill(store, KEY, 12 << 20)
    async with store.streams.hold(KEY, Span(5 << 20, (6 << 20) + 1)):
        await store.evictor.make_room(1 << 30)
    assert present(store) == SpanSet([Span(5 * GRAIN, 7 * GRAIN)])


async def test_where_no_holes_can_be_made_the_whole_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "LARGE", 1 << 20)
    monkeypatch.setattr("cafs.store.space.removing.punch", lambda *_: False)
    await fill(store, KEY, 8 << 20)
    await fill(store, OTHER, 8 << 20)
    await store.evictor.make_room(1 << 20)
    assert present(store, OTHER).total == 0
    assert store.room.recount() == 0


async def test_a_blob_that_goes_is_not_there_for_its_reader(store: Store) -> None:
    digest = await blob(store)
    assert await store.blobs.read(digest, 0, 10)
    await store.evictor.make_room(1)
    with pytest.raises(NotFoundError):
        await store.blobs.read(digest, 0, 10)


async def test_a_blob_comes_again_while_another_goes(store: Store) -> None:
    """Admitted and evicted over and over, it is whole or absent, and nothing is left over."""
    data = os.urandom(SIZE)

    async def admit() -> None:
        for _ in range(30):
            writer = await store.blobs.create()
            await writer.write(data)
            digest = (await writer.commit(None, None)).digest
            try:
                assert await store.blobs.read(digest, 0, SIZE) == data
            except NotFoundError:
                continue

    async with trio.open_nursery() as nursery:

        async def evict() -> None:
            while True:
                await store.evictor.make_room(1 << 30)

        nursery.start_soon(evict)
        await admit()
        nursery.cancel_scope.cancel()
    recorded = {
        store.path / "blobs/sha256" / each.hex[:2] / each.hex for each in store.blobs.digests()
    }
    assert set(store.path.glob("blobs/sha256/*/*")) == recorded
    assert store.room.recount() == 0


async def test_what_was_written_by_more_than_one_process_is_hashed_again(store: Store) -> None:
    """A hasher that saw all bytes counts only for a file that nobody else has written into."""
    await fill(store, KEY, 2 * PIECE)
    stream = store.streams.find(KEY)
    assert stream is not None
    async with store.streams.hold(KEY, Span(PIECE, 2 * PIECE)):
        await store.evictor.make_room(1)
    record = stream._shelf.ledger.record(KEY)
    assert record is not None
    await stream.write(0, content(0, PIECE))
    assert not stream._shelf.filled_alone(record)


async def test_room_is_made_for_what_is_to_come_as_far_as_anything_may_go(bounded: Store) -> None:
    quota = bounded.room.bounds.quota
    assert quota is not None
    old = [await blob(bounded) for _ in range(2)]
    left = quota - bounded.room.usage().total
    await bounded.evictor.reserve(left, "gcc")
    assert all(bounded.blobs.stat(each) is not None for each in old)
    with pytest.raises(StorageFullError, match=r"gcc: the store would have .* MiB more"):
        await bounded.evictor.reserve(quota + 1, "gcc")
    assert all(bounded.blobs.stat(each) is not None for each in old)  # for nothing, nothing goes
    await bounded.pins.pin(Item.blob(old[0]), "pinned")
    with pytest.raises(StorageFullError, match="nothing more may make way"):
        await bounded.evictor.reserve(quota, "gcc")
    await bounded.evictor.reserve(left + 1, "gcc")
    assert [bounded.blobs.stat(each) is not None for each in old] == [True, False]


async def test_what_a_crash_left_between_records_and_bytes_goes_when_the_store_is_opened(
    store: Store, frozen: Callable[[Store], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "LARGE", 1 << 20)
    await fill(store, KEY, 8 << 20)
    await store.checkpoint()
    digest = await blob(store)
    copies: list[Path] = []

    def before(step: Callable[..., object]) -> Callable[..., object]:
        def crash(*arguments: object, **options: object) -> object:
            copies.append(frozen(store))
            return step(*arguments, **options)

        return crash

    with monkeypatch.context() as patch:
        patch.setattr("cafs.store.space.removing.punch", before(punch))
        patch.setattr(Path, "unlink", before(Path.unlink))
        await store.evictor.make_room(1 << 20)
        await store.evictor.make_room(1 << 30)
    assert len(copies) >= 3
    async with open_store(copies[0], boot_id="first") as opened:  # the others have no holes
        assert blocks(opened) == present(opened).total == RANGE
    for copy in copies:
        async with open_store(copy, boot_id="first") as opened:
            recorded = {each.hex for each in opened.blobs.digests()}
            assert {path.name for path in copy.glob("blobs/sha256/*/*")} == recorded
            assert opened.room.recount() == 0
    assert store.blobs.stat(digest) is None


async def test_what_goes_between_the_two_looks_of_a_read_is_absent_and_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes a range out when a read has looked at ``recent``, not yet at the index.

    The read then sees the spans as they were, beside the record as it is.
    """
    await fill(store, KEY, 2 * PIECE)
    gone: list[int] = []
    begin = Environment.read

    def look(environment: Environment) -> Snapshot:
        if environment.path.name == "index" and not gone:
            gone.append(0)
            gone[0] = store.remover.cut(KEY, [Span(0, PIECE)])
        return begin(environment)

    stream = await store.streams.open(KEY, 2 * PIECE)
    with monkeypatch.context() as patch:
        patch.setattr(Environment, "read", look)
        assert await stream.read(0, 100) is None
    assert gone == [PIECE]
    assert present(store) == SpanSet([Span(PIECE, 2 * PIECE)])
    await stream.write(0, content(0, PIECE))
    assert await stream.read(0, 2 * PIECE) == content(0, 2 * PIECE)


@pytest.fixture
def both(store: Store, monkeypatch: pytest.MonkeyPatch) -> Evictor:
    """A second evictor, as of another process; both have chosen before either removes anything."""
    chosen, calls = threading.Barrier(2, timeout=60), count()

    def together(descriptor: int) -> None:
        if next(calls) < chosen.parties:
            chosen.wait()
        flock_alone(descriptor)

    monkeypatch.setattr("cafs.store.space.evicting.flock_alone", together)
    parts = store.housekeeping._parts
    return Evictor(
        parts.layout,
        store.remover._index,
        ledger=parts.ledger,
        records=parts.records,
        room=parts.room,
        uses=parts.uses,
        holds=parts.holds,
        remover=parts.remover,
        pinned=parts.pins.pinned,
    )


async def test_two_that_find_too_much_at_once_remove_it_once(store: Store, both: Evictor) -> None:
    digests = [await blob(store) for _ in range(11)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(both.run)
        for evictor in (store.evictor, both):
            evictor.keep_within(Bounds(QUOTA))
        await within(store)
        for evictor in (store.evictor, both):
            await evictor.settled()
        nursery.cancel_scope.cancel()
    assert here(store, digests) == [False] * 2 + [True] * 9
    assert not store.evictor.exhausted
    assert not both.exhausted


async def test_gc_beside_one_that_makes_room_removes_no_more_than_is_too_much(
    store: Store, both: Evictor
) -> None:
    digests = [await blob(store) for _ in range(11)]
    other = Housekeeping(replace(store.housekeeping._parts, evictor=both))
    terms, told = Terms(now_ns=time.time_ns()), list[Outcome]()
    async with trio.open_nursery() as nursery:
        for keeping in (store.housekeeping, other):
            room = partial(keeping.make_room, terms, Bounds(QUOTA), told.extend, told=0)
            nursery.start_soon(room)
    assert here(store, digests) == [False] * 2 + [True] * 9


async def test_who_wants_room_for_something_gets_it_beside_others_who_do(
    store: Store, both: Evictor
) -> None:
    digests = [await blob(store) for _ in range(6)]
    freed: list[int] = []

    async def want(evictor: Evictor) -> None:
        freed.append(await evictor.make_room(2 * CHARGE))

    async with trio.open_nursery() as nursery:
        for evictor in (store.evictor, both):
            nursery.start_soon(want, evictor)
    assert freed == [2 * CHARGE] * 2
    assert here(store, digests) == [False] * 4 + [True] * 2
