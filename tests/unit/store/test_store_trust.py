"""What stands behind a stream is on record, and goes before a byte of another origin comes in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.model.trust import ANYTHING, VERIFIED, Need
from cafs.store.store import Store, open_store
from cafs.store.tables.records import StreamRecord, unpack_stream

KEY = StreamKey("ab" * 32)
ONE, OTHER = digest_of(b"one"), digest_of(b"other")


@pytest.mark.parametrize("digest", [None, ONE])
@pytest.mark.parametrize("source", [None, OTHER])
@pytest.mark.parametrize("size", [None, 0, 1 << 40])
def test_records_keep_what_stands_behind(digest: object, source: object, size: int | None) -> None:
    if digest and source:
        return  # a stream that is a blob has that behind it
    record = StreamRecord(b"12345678", 3, size, digest, source)  # type: ignore[arg-type]
    assert unpack_stream(record.pack()) == record


def test_what_a_reader_needs() -> None:
    assert ANYTHING.met(None)
    assert ANYTHING.met(ONE)
    assert VERIFIED.met(ONE)
    assert not VERIFIED.met(None)
    assert Need(source=ONE).met(ONE)
    assert not Need(source=ONE).met(OTHER)
    assert not Need(source=ONE).met(None)


async def test_what_comes_from_elsewhere_takes_the_source_away_first(store: Store) -> None:
    stream = await store.streams.open(KEY, 100, ONE)
    await stream.write(0, b"a" * 50)
    assert stream.behind() == ONE
    assert await stream.read(0, 50, VERIFIED) == b"a" * 50
    unknown = await store.streams.open(KEY, 100)
    assert await unknown.read(0, 50, VERIFIED) == b"a" * 50  # to open it changes nothing
    await unknown.write(50, b"b" * 50)
    assert stream.behind() is None
    assert await stream.read(0, 50, VERIFIED) is None
    assert await stream.read(0, 100) == b"a" * 50 + b"b" * 50
    await stream.write(0, b"c" * 50)  # present: nothing comes, and nothing is said
    assert stream.behind() is None


async def test_a_stream_with_something_else_behind_it_is_begun_anew(store: Store) -> None:
    for source in (None, OTHER):
        stream = await store.streams.open(KEY, 100, source)
        await stream.write(0, b"a" * 50)
        mine = await store.streams.open(KEY, 100, ONE)
        assert not mine.present()
        assert mine.behind() == ONE
        await mine.write(0, b"b" * 50)
        assert await mine.read(0, 50, Need(source=ONE)) == b"b" * 50


async def test_a_source_is_confirmed_by_who_wrote_every_byte(store: Store) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, b"a" * 100)
    assert not await trio.to_thread.run_sync(stream.confirm_sync, ONE)  # is that all of it?
    await stream.set_size(100)
    assert await trio.to_thread.run_sync(stream.confirm_sync, ONE)
    assert await stream.read(0, 100, VERIFIED) == b"a" * 100


async def test_nobody_confirms_what_another_process_wrote(
    store: Store, tmp_path: Path, frozen: Callable[[Store], Path]
) -> None:
    stream = await store.streams.open(KEY, 100)
    await stream.write(0, b"a" * 50)
    async with open_store(frozen(store), boot_id="first") as later:
        same = await later.streams.open(KEY, 100)
        assert same.present().covers(Span(0, 50))
        await same.write(50, b"b" * 50)
        assert not await trio.to_thread.run_sync(same.confirm_sync, ONE)
        assert same.behind() is None


async def test_what_stands_behind_outlives_a_power_cut_and_what_it_takes(
    store: Store, frozen: Callable[[Store], Path]
) -> None:
    stream = await store.streams.open(KEY, 100, ONE)
    await stream.write(0, b"a" * 100)
    await store.checkpoint()
    async with open_store(frozen(store), boot_id="second") as later:
        found = later.streams.find(KEY)
        assert found is not None
        assert await found.read(0, 100, Need(source=ONE)) == b"a" * 100


async def test_two_that_write_by_turns_leave_nothing_behind_what_is_mixed(store: Store) -> None:
    """Whoever comes first: a byte without a source and a source on record never meet."""
    size = 200
    for turn in range(20):
        key = StreamKey(f"{turn:064x}")
        one = await store.streams.open(key, size, ONE)
        two = await store.streams.open(key, size)
        async with trio.open_nursery() as nursery:
            for start in range(0, size, 20):
                nursery.start_soon(one.write, start, b"a" * 10)
                if turn % 2:
                    nursery.start_soon(two.write, start + 10, b"b" * 10)
        data = await one.read(0, 10, VERIFIED)
        assert (data is None) == bool(turn % 2)
