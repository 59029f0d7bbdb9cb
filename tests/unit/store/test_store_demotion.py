"""Demotion: what kept a blob from being removed keeps the stream that it becomes."""

import os
import threading
from functools import partial

import pytest
import trio

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.disk.files import Files
from cafs.store.store import Store
from cafs.store.tables.uses import Rank

pytestmark = pytest.mark.expects_log("store.blob.damaged")

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)
SIZE = 3 << 20
LOST = [Span(0, 64 << 10)]


async def blob(store: Store, data: bytes, key: StreamKey = KEY) -> Digest:
    stream = await store.streams.open(key, len(data))
    await stream.write(0, data)
    return (await store.blobs.admit(key, media_type="", name="x")).digest


def demote(store: Store, digest: Digest, key: StreamKey = KEY) -> None:
    store.blobs._demotion.demote(digest, LOST, key)


@pytest.mark.parametrize("key", [KEY, OTHER])
async def test_the_pin_of_a_blob_is_on_whatever_stream_it_becomes(
    store: Store, key: StreamKey
) -> None:
    digest = await blob(store, os.urandom(SIZE))
    await store.pins.pin(Item.blob(digest), "it")
    demote(store, digest, key)
    assert store.pins.pinned(Item.stream(key))
    assert await store.evictor.make_room(SIZE) == 0
    await store.pins.unpin(Item.blob(digest))
    assert not store.pins.pinned(Item.stream(key))
    assert await store.evictor.make_room(SIZE) == SIZE - LOST[0].length


async def test_who_holds_a_blob_holds_the_stream_that_it_becomes(store: Store) -> None:
    digest = await blob(store, os.urandom(SIZE))
    item = Item.stream(KEY)
    async with store.blobs.hold(digest):
        demote(store, digest)
        assert store.remover.remove([item]) == 0
        assert store.remover.cut(KEY, [Span(1 << 20, 2 << 20)]) == 0
    assert store.remover.cut(KEY, [Span(1 << 20, 2 << 20)]) == 1 << 20
    assert store.remover.remove([item]) == SIZE - (1 << 20) - LOST[0].length


async def test_a_blob_goes_in_its_turn_as_a_stream_too(store: Store) -> None:
    digest = await blob(store, os.urandom(SIZE))
    store.uses.rank(Item.blob(digest), Rank.PRECIOUS)
    before = store.uses.last(Item.blob(digest))
    demote(store, digest)
    use = store.uses.last(Item.stream(KEY))
    assert use is not None
    assert before is not None
    assert (use.rank, use.last_ns, use.former) == (Rank.PRECIOUS, before.last_ns, digest)
    store.uses.rank(Item.stream(KEY), Rank.USUAL)
    use = store.uses.last(Item.stream(KEY))
    assert use is not None
    assert (use.rank, use.decoded, use.former) == (Rank.USUAL, None, digest)
    store.uses.rank(Item.stream(KEY), Rank.SPENT, OTHER)
    use = store.uses.last(Item.stream(KEY))
    assert use is not None
    assert (use.decoded, use.former) == (OTHER, digest)


@pytest.mark.parametrize("how", ["demoted", "deleted"])
async def test_a_blob_that_comes_again_while_it_goes_keeps_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Its record is gone, its file not yet: who brings it at this moment waits for that."""
    data = os.urandom(SIZE)
    digest = await blob(store, data)
    again = await store.streams.open(OTHER, SIZE)
    await again.write(0, data)
    going, came = threading.Event(), threading.Event()
    forget = Files.forget

    def dawdle(files: Files, path: os.PathLike[str]) -> None:
        forget(files, path)  # type: ignore[arg-type]
        if not going.is_set() and os.fspath(path).endswith(digest.hex):
            going.set()
            came.wait(1.0)  # as long as it may take whoever does not wait for us

    async def bring() -> None:
        await trio.to_thread.run_sync(going.wait)
        await store.blobs.admit(OTHER, media_type="", name="x")
        came.set()

    monkeypatch.setattr(Files, "forget", dawdle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring)
        if how == "deleted":
            nursery.start_soon(store.blobs.delete, digest)
        else:
            nursery.start_soon(trio.to_thread.run_sync, partial(demote, store, digest))
    assert await store.blobs.read(digest, 0, SIZE) == data
