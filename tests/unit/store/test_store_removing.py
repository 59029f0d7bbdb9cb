"""Removing: by several threads, and of very many parts."""

import os
import threading
from collections.abc import Callable

import pytest
import trio

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.store import Store
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
