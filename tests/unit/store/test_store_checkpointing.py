"""Checkpoints: what outlives a power cut, when, and what a failing disk takes away."""

import errno
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from cafs.errors import StorageError
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.disk.door import open_file
from cafs.store.store import Store, open_store
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import PIECE

KEY = StreamKey("ab" * 32)
Freeze = Callable[[Store], Path]


async def present_after_power_cut(path: Path) -> SpanSet:
    """What a copy of a store has on the next boot."""
    async with open_store(path, boot_id="next") as store:
        stream = store.streams.find(KEY)
        return SpanSet() if stream is None else stream.present()


async def write(store: Store, offset: int, data: bytes) -> None:
    await (await store.streams.open(KEY, 1000)).write(offset, data)


async def test_without_a_checkpoint_a_power_cut_takes_what_was_written(
    tmp_path: Path, frozen: Freeze
) -> None:
    async with open_store(tmp_path / "s", checkpoint_s=1e6, boot_id="first") as store:
        await write(store, 0, b"abc")
        copy = frozen(store)
    assert await present_after_power_cut(copy) == SpanSet()


async def test_kill_9_takes_nothing(store: Store, frozen: Freeze) -> None:
    await write(store, 0, b"abc")
    async with open_store(frozen(store), boot_id="first") as survivor:
        stream = survivor.streams.find(KEY)
        assert stream is not None
        assert await stream.read(0, 3) == b"abc"


async def test_a_checkpoint_makes_what_was_written_outlive_a_power_cut(
    store: Store, frozen: Freeze
) -> None:
    await write(store, 0, b"abc")
    await store.checkpoint()
    await write(store, 3, b"def")
    stream = store.streams.find(KEY)
    assert stream is not None
    assert stream.present() == SpanSet([Span(0, 6)])
    assert await stream.read(0, 6) == b"abcdef"
    assert await present_after_power_cut(frozen(store)) == SpanSet([Span(0, 3)])


async def test_closing_is_a_checkpoint(tmp_path: Path) -> None:
    async with open_store(tmp_path, boot_id="first") as store:
        await write(store, 0, b"abc")
    assert await present_after_power_cut(tmp_path) == SpanSet([Span(0, 3)])


async def test_closing_by_cancellation_is_a_checkpoint(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with open_store(tmp_path, boot_id="first") as store:
            await write(store, 0, b"abc")
            scope.cancel()
            await trio.sleep_forever()
    assert await present_after_power_cut(tmp_path) == SpanSet([Span(0, 3)])


async def test_a_checkpoint_of_nothing_is_none(store: Store) -> None:
    await store.checkpoint()
    await store.checkpoint()


async def test_a_size_that_became_known_meanwhile_is_no_obstacle(
    store: Store, frozen: Freeze
) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, b"abc")
    await stream.set_size(1000)
    await store.checkpoint()
    assert await present_after_power_cut(frozen(store)) == SpanSet([Span(0, 3)])


class Syncs:
    """Counts the files that were synced, and tells when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._synced = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._original = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self._original(descriptor)
        self.count += 1
        self._token.run_sync_soon(self._synced.set)

    async def wait(self) -> None:
        await self._synced.wait()
        self._synced = trio.Event()


async def test_so_many_bytes_are_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs(monkeypatch)
    async with open_store(tmp_path, checkpoint_bytes=100, checkpoint_s=1e6) as store:
        await write(store, 0, b"x" * 60)
        assert syncs.count == 0
        await write(store, 100, b"x" * 60)
        with trio.fail_after(60):
            await syncs.wait()
        await write(store, 200, b"x" * 110)
        with trio.fail_after(60):
            await syncs.wait()


async def somebody_waits_for_the_clock() -> None:
    """A checkpoint that is at work in a thread does not yet: the clock must not jump before."""
    limit = time.monotonic() + 20
    while trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf:
        assert time.monotonic() < limit
        await trio.testing.wait_all_tasks_blocked(0.001)


async def test_so_much_time_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    syncs = Syncs(monkeypatch)
    async with open_store(tmp_path, checkpoint_s=5) as store:
        for offset in (0, 100):
            await write(store, offset, b"abc")
            before = syncs.count
            await somebody_waits_for_the_clock()
            mock_clock.jump(4.9)
            await trio.testing.wait_all_tasks_blocked()
            assert syncs.count == before
            mock_clock.jump(0.2)
            await syncs.wait()
            await store.checkpoint()


async def test_an_idle_store_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    syncs = Syncs(monkeypatch)
    async with open_store(tmp_path, checkpoint_s=5):
        await trio.sleep(1000)
    assert syncs.count == 0


def failing(descriptor: int, *, code: int = errno.EIO) -> None:
    raise OSError(code, os.strerror(code))


async def test_a_failed_sync_drops_what_was_new(
    store: Store, frozen: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(store, 0, b"abc")
    await store.checkpoint()
    await write(store, 3, b"def")
    stream = store.streams.find(KEY)
    assert stream is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(StorageError, match="dropped"):
            await store.checkpoint()
    assert stream.present() == SpanSet([Span(0, 3)])
    assert await stream.read(3, 3) is None
    await stream.write(3, b"DEF")
    assert await stream.read(0, 6) == b"abcDEF"
    await store.checkpoint()
    assert await present_after_power_cut(frozen(store)) == SpanSet([Span(0, 6)])


async def test_a_failed_sync_drops_what_was_written_while_it_ran(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be called present on the word of the next sync, which has not seen it."""
    await write(store, 0, b"abc")
    stream = store.streams.find(KEY)
    assert stream is not None

    def late(descriptor: int) -> None:
        stream.write_sync(500, b"late")
        failing(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", late)
        with pytest.raises(StorageError, match="dropped"):
            await store.checkpoint()
    assert not stream.present()
    assert await stream.read(500, 4) is None


@pytest.mark.expects_log("store.checkpoint.failed")
async def test_a_checkpoint_that_cannot_begin_is_logged_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(tmp_path, checkpoint_bytes=1, checkpoint_s=1e6) as store:
        (tmp_path / "leases").rename(tmp_path / "gone")
        await write(store, 0, b"abc")
        with trio.fail_after(60):
            while "store.checkpoint.failed" not in caplog.text:
                await trio.lowlevel.checkpoint()
        with pytest.raises(StorageError, match="checkpoint"):
            await store.checkpoint()
        (tmp_path / "gone").rename(tmp_path / "leases")


@pytest.mark.expects_log("store.checkpoint.failed")
async def test_a_failed_sync_in_the_background_is_logged_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(tmp_path, checkpoint_bytes=1, checkpoint_s=1e6) as store:
        stream = await store.streams.open(KEY, 1000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing)
            await stream.write(0, b"abc")
            with trio.fail_after(60):
                while stream.present() or "store.checkpoint.failed" not in caplog.text:
                    await trio.lowlevel.checkpoint()
        syncs = Syncs(monkeypatch)
        await stream.write(0, b"abc")
        with trio.fail_after(60):
            await syncs.wait()


async def test_a_file_that_cannot_be_opened_keeps_no_other_from_its_checkpoint(
    store: Store, frozen: Freeze, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await store.streams.open(StreamKey("01" * 32), 1000)  # the first of the two
    await other.write(0, b"abc")
    await write(store, 0, b"abc")

    def closed(path: Path, flags: int = os.O_RDONLY) -> int:
        if path.name.startswith("01"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return open_file(path, flags)

    with monkeypatch.context() as patch:
        patch.setattr("cafs.store.streams.checkpointing.open_file", closed)
        with pytest.raises(StorageError, match="0101"):
            await store.checkpoint()
        assert await present_after_power_cut(frozen(store)) == SpanSet([Span(0, 3)])
    assert await other.read(0, 3) == b"abc"
    await store.checkpoint()
    async with open_store(frozen(store), boot_id="next") as opened:
        assert opened.streams.find(StreamKey("01" * 32)) is not None


async def test_a_stream_that_has_gone_is_no_obstacle(store: Store) -> None:
    await write(store, 0, b"abc")
    for path in store.path.glob("streams/*/*"):
        path.unlink()
    await store.checkpoint()
    stream = await store.streams.open(StreamKey("cd" * 32), 10)
    await stream.write(0, b"abc")
    await stream.discard()
    await store.checkpoint()


async def test_spans_of_a_former_file_do_not_come_back(store: Store, frozen: Freeze) -> None:
    """A checkpoint that was under way while the stream was discarded and filled anew."""
    await write(store, 0, b"old")
    ledger = store.streams._shelf.ledger
    pending = store._checkpointer.pending
    spans = pending.spans()
    stream = store.streams.find(KEY)
    assert stream is not None
    await stream.discard()
    await stream.write(500, b"new")
    await trio.to_thread.run_sync(partial(pending.keep, spans))
    assert stream.present() == SpanSet([Span(500, 503)])
    with ledger._index.read() as snapshot:
        assert ledger._durable.by_owner(snapshot) == {}
    await store.checkpoint()
    assert await present_after_power_cut(frozen(store)) == SpanSet([Span(500, 503)])


async def test_what_is_taken_out_while_a_checkpoint_looks_does_not_come_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await store.streams.open(KEY, 2 * PIECE)
    await stream.write(0, bytes(2 * PIECE))
    look = Ledger.record

    def looking(ledger: Ledger, key: StreamKey) -> StreamRecord | None:
        monkeypatch.setattr(Ledger, "record", look)
        assert store.remover.cut(key, [Span(0, PIECE)]) == PIECE
        return look(ledger, key)

    # Between the spans and the record that a checkpoint looks up.
    monkeypatch.setattr(Ledger, "record", looking)
    await store.checkpoint()
    assert stream.present() == SpanSet([Span(PIECE, 2 * PIECE)])


async def test_spans_that_were_dropped_meanwhile_are_not_kept(store: Store) -> None:
    """One process found that the disk had failed; another was about to keep the same spans."""
    await write(store, 0, b"abc")
    pending = store._checkpointer.pending
    spans = pending.spans()
    key, record = next(iter(spans))
    await trio.to_thread.run_sync(partial(pending.drop, key, record))
    await trio.to_thread.run_sync(partial(pending.keep, spans))
    stream = store.streams.find(KEY)
    assert stream is not None
    assert not stream.present()


async def test_what_was_written_stays_when_something_else_is_taken_out_during_a_checkpoint(
    store: Store,
) -> None:
    await write(store, 0, b"first")
    await store.checkpoint()
    await write(store, 500, b"second")
    ledger = store.streams._shelf.ledger
    pending = store._checkpointer.pending
    spans = pending.spans()
    record = ledger.record(KEY)
    assert record is not None
    assert await trio.to_thread.run_sync(ledger.take_out, KEY, record, [Span(0, 5)])
    await trio.to_thread.run_sync(pending.keep, spans)
    stream = store.streams.find(KEY)
    assert stream is not None
    assert stream.present() == SpanSet([Span(500, 506)])
    await store.checkpoint()
    assert await stream.read(500, 6) == b"second"
