"""Uses: each item has its last use on record, to the minute, from its first moment to its last."""

import os
import time
from pathlib import Path

import pytest

from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.store import Store, open_store
from cafs.store.tables.uses import Rank

KEY = StreamKey("ab" * 32)


async def blob(store: Store, data: bytes) -> Item:
    writer = await store.blobs.create()
    await writer.write(data)
    return Item.blob((await writer.commit(None, None)).digest)


def order(store: Store) -> list[Item]:
    index = store.uses._index
    with index.read() as snapshot:
        return [item for _, item in store.uses.table.oldest(snapshot, b"")]


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time_ns() + int(seconds * 1e9)
    monkeypatch.setattr(time, "time_ns", lambda: now)


async def test_an_item_has_a_use_from_its_record_on_and_none_afterwards(store: Store) -> None:
    item = await blob(store, b"one")
    stream = await store.streams.open(KEY, 10)
    assert set(order(store)) == {item, Item.stream(KEY)}
    assert item.digest is not None
    await store.blobs.delete(item.digest)
    await stream.discard()
    assert order(store) == []
    assert store.uses.last(item) is None


async def test_a_stream_that_becomes_a_blob_is_another_item(store: Store) -> None:
    stream = await store.streams.open(KEY, 3)
    await stream.write(0, b"abc")
    found = await store.blobs.admit(KEY, media_type="", name="abc")
    assert order(store) == [Item.blob(found.digest)]


async def test_what_was_read_last_goes_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = await blob(store, b"one"), await blob(store, b"two")
    assert order(store) == [first, second]
    later(monkeypatch, 61)
    assert first.digest is not None
    await store.blobs.read(first.digest, 0, 1)
    assert order(store) == [first, second]
    store.uses.flush()
    assert order(store) == [second, first]


async def test_a_use_within_the_minute_is_not_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = await blob(store, b"one")
    version = store.uses._index.version()
    later(monkeypatch, 59)
    store.uses.touch(item)
    store.uses.flush()
    assert store.uses._index.version() == version


async def test_what_is_written_to_is_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await store.streams.open(KEY, 10)
    item = await blob(store, b"one")
    later(monkeypatch, 61)
    await stream.write(0, b"abc")
    await store.checkpoint()
    assert order(store) == [item, Item.stream(KEY)]


async def test_ranks_come_before_ages(store: Store) -> None:
    items = [await blob(store, bytes([number])) for number in range(3)]
    store.uses.rank(items[2], Rank.SPENT, KEY)
    store.uses.rank(items[0], Rank.PRECIOUS)
    assert order(store) == [items[2], items[1], items[0]]
    use = store.uses.last(items[2])
    assert use is not None
    assert use.decoded == KEY


async def test_what_nobody_knows_a_source_of_is_precious_once_it_was_read(store: Store) -> None:
    items = [await blob(store, bytes([number])) for number in range(3)]
    store.uses.touch(items[0], precious=True)
    store.uses.flush()
    assert order(store) == [items[1], items[2], items[0]]


async def test_a_use_of_what_has_gone_is_forgotten(store: Store) -> None:
    store.uses.touch(Item.stream(KEY))
    store.uses.flush()
    assert order(store) == []


async def test_uses_outlive_the_process_that_closes_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    async with open_store(path) as store:
        first, second = await blob(store, b"one"), await blob(store, os.urandom(8))
        later(monkeypatch, 61)
        store.uses.touch(first)
    async with open_store(path) as store:
        assert order(store) == [second, first]
