"""Removing: by several threads, and of very many parts."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cafs.errors import StorageFullError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.disk.files import erase
from cafs.store.space import removing
from cafs.store.store import Store, open_store
from cafs.store.streams.drafting import Draft
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import PIECE

KEY = StreamKey("ab" * 32)


async def blob(store: Store) -> Digest:
    writer = await store.blobs.create()
    await writer.write(os.urandom(1000))
    return (await writer.commit(None, None)).digest


def notes(store: Store) -> list[bytes]:
    index = store.remover._index
    return [key for page in index.pages(index.table("condemned")) for key, _ in page]


async def test_what_one_thread_has_removed_no_other_takes_for_still_to_be_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = [await blob(store) for _ in range(3)]
    apply = Environment.apply
    other = threading.Thread(target=lambda: store.remover.remove([Item.blob(second)]))
    began: list[bool] = []

    def dawdle(
        environment: Environment, change: Callable[[Batch], object], *, urgent: bool = False
    ) -> object:
        done = apply(environment, change, urgent=urgent)
        if not began:
            began.append(True)
            other.start()
            other.join(0.5)  # unless it waits for us
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "apply", dawdle)
        await trio.to_thread.run_sync(store.remover.remove, [Item.blob(first)])
        await trio.to_thread.run_sync(other.join)
    assert list(store.blobs.digests()) == [third]
    store.remover.remove([Item.blob(third)])
    assert notes(store) == [b"b" + third.raw]


async def test_very_many_ranges_go_some_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes into the stream, or any records, waits for one transaction of those."""
    count = 2 * 64 + 5
    stream = await store.streams.open(KEY, 2 * count * PIECE)
    for number in range(count):
        await stream.write(2 * number * PIECE, b"x" * PIECE)
    await store.checkpoint()
    batches: list[int] = []
    take_out = Ledger.take_out

    def counted(
        ledger: Ledger,
        key: StreamKey,
        record: StreamRecord,
        gone: list[Span],
        note: Callable[[Batch], None],
    ) -> bool:
        batches.append(len(gone))
        return take_out(ledger, key, record, gone, note)

    monkeypatch.setattr(Ledger, "take_out", counted)
    spans = [Span(2 * number * PIECE, (2 * number + 1) * PIECE) for number in range(count)]
    assert store.remover.cut(KEY, spans) == count * PIECE
    assert batches == [64, 64, 5]
    assert not stream.present()
    assert len(notes(store)) == 5


MIB = 1 << 20


async def drafted(store: Store) -> Draft:
    """A stream of 64 MiB with one that counts, and 6 that were drafted and never kept."""
    stream = await store.streams.open(KEY, 64 * MIB)
    await stream.write(0, bytes(MIB))
    draft = await trio.to_thread.run_sync(stream.draft_sync)
    await trio.to_thread.run_sync(draft.write, MIB, b"x" * 6 * MIB)
    await store.checkpoint()
    assert store.room.usage().streams == 7 * MIB
    return draft


async def test_what_was_drafted_where_a_range_goes_counts_no_more(store: Store) -> None:
    draft = await drafted(store)
    assert store.remover.cut(KEY, [Span(0, 4 * MIB)]) == MIB
    assert store.room.usage().streams == 3 * MIB
    assert store.room.recount() == 0
    assert not await trio.to_thread.run_sync(draft.keep)
    store.remover.cut(KEY, [Span(4 * MIB, 8 * MIB)])
    [file] = store.path.glob("streams/*/*")
    assert file.stat().st_blocks * 512 < PIECE
    assert store.room.usage().streams == 0


async def test_who_finishes_a_removal_counts_what_was_drafted_there_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await drafted(store)

    def killed(descriptor: int, span: Span) -> bool:
        raise OSError(errno.EIO, "as if killed here")

    with monkeypatch.context() as patch:
        patch.setattr(removing, "punch", killed)
        with pytest.raises(OSError, match="as if killed"):
            store.remover.cut(KEY, [Span(0, 8 * MIB)])
    assert store.room.usage().streams == 6 * MIB
    store.remover.finish()
    assert store.room.usage().streams == 0
    assert store.room.recount() == 0


@pytest.mark.expects_log("store.removal.unfinished")
async def test_a_file_that_cannot_be_looked_at_keeps_no_store_from_being_opened(
    store: Store, frozen: Callable[[Store], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a crash has left there stays noted, and goes the next time; all else goes now."""
    await drafted(store)
    digest = await blob(store)

    def killed(*_: object) -> bool:
        raise OSError(errno.EIO, "as if killed here")

    with monkeypatch.context() as patch:
        patch.setattr(removing, "punch", killed)
        patch.setattr(removing, "erase", killed)
        with pytest.raises(OSError, match="as if killed"):
            store.remover.cut(KEY, [Span(0, 8 * MIB)])
        with pytest.raises(OSError, match="as if killed"):
            store.remover.remove([Item.blob(digest)])
        copy = frozen(store)
        async with open_store(copy, boot_id="first") as opened:
            assert len(notes(opened)) == 1
            assert not list(copy.glob("blobs/sha256/*/*"))
    async with open_store(copy, boot_id="first") as opened:
        assert notes(opened) == []
        assert opened.room.usage().streams == 0


async def test_of_files_that_go_together_one_that_cannot_keeps_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [await blob(store) for _ in range(3)]
    keys = [StreamKey(f"{number:02x}" * 32) for number in range(3)]
    for key in keys:
        await (await store.streams.open(key, 10)).write(0, b"0123456789")
    failing = (digests[0].hex, keys[0])

    def stuck(path: Path) -> None:
        if path.name.startswith(failing):
            raise OSError(errno.EPERM, "stuck")
        erase(path)

    monkeypatch.setattr(removing, "erase", stuck)
    items = [*map(Item.blob, digests), *map(Item.stream, keys)]
    with pytest.raises(OSError, match="stuck"):
        store.remover.remove(items)
    left = {path.name.partition(".")[0] for path in store.path.glob("[bs]*/**/*") if path.is_file()}
    assert left == set(failing)
    assert len(notes(store)) == 3


async def test_what_was_drafted_where_a_write_has_no_room_counts_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await drafted(store)
    stream = await store.streams.open(KEY, 64 * MIB)

    def full(*_: object) -> None:
        raise StorageFullError("no room for records")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", full)
        with pytest.raises(StorageFullError):
            await stream.write(2 * MIB, bytes(MIB))
    assert store.room.usage().streams == 6 * MIB
    assert store.room.recount() == 0
