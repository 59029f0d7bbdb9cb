"""Streams: what is written is present, what is not is absent, and nothing else is ever read."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from typing_extensions import Buffer

from cafs.errors import SizeMismatchError, StorageError, StorageFullError
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.disk import locking
from cafs.store.disk.files import Files
from cafs.store.disk.locking import LOCK_LENGTH
from cafs.store.store import Store, open_store
from cafs.store.streams.stream import Stream

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)


def stream_file(store: Store) -> Path:
    (path,) = store.path.glob("streams/*/*")
    return path


async def test_a_new_stream_is_empty(store: Store) -> None:
    stream = await store.streams.open(KEY, 100)
    assert (stream.key, stream.size) == (KEY, 100)
    assert stream.present() == SpanSet()
    assert stream.digest() is None
    assert await stream.read(0, 1) is None


async def test_what_is_written_is_read(store: Store) -> None:
    stream = await store.streams.open(KEY, 100)
    await stream.write(10, b"hello")
    assert await stream.read(10, 5) == b"hello"
    assert await stream.read(11, 3) == b"ell"
    assert stream.present() == SpanSet([Span(10, 15)])


@pytest.mark.parametrize(("offset", "length"), [(9, 2), (14, 2), (0, 100), (50, 1)])
async def test_a_read_that_touches_a_hole_is_absent(store: Store, offset: int, length: int) -> None:
    stream = await store.streams.open(KEY, 100)
    await stream.write(10, b"hello")
    assert await stream.read(offset, length) is None


async def test_reads_are_short_only_at_the_size(store: Store) -> None:
    stream = await store.streams.open(KEY, 10)
    await stream.write(0, b"0123456789")
    assert await stream.read(8, 100) == b"89"
    assert await stream.read(10, 5) == b""
    assert await stream.read(99, 5) == b""


async def test_neighbouring_writes_join(store: Store) -> None:
    stream = await store.streams.open(KEY, 100)
    for offset in (20, 0, 10, 40):
        await stream.write(offset, b"x" * 10)
    assert stream.present() == SpanSet([Span(0, 30), Span(40, 50)])


async def test_what_lies_beyond_a_size_that_another_process_found_is_read_by_nobody(
    store: Store,
) -> None:
    """Two that believe different sizes: the one writes while the other says his."""
    stream = await store.streams.open(KEY, None)
    await stream.write(0, bytes(range(256)) * 512)
    record = stream._shelf.ledger.record(KEY)
    assert record is not None
    assert stream._shelf.ledger.update(KEY, record, replace(record, size=100_000))
    os.truncate(stream_file(store), 100_000)
    with trio.fail_after(60):
        assert await stream.read(70_000, 10) is None
    assert await stream.read(0, 10) is None  # all of it begins anew
    await (await store.streams.open(KEY, 100_000)).write(70_000, b"ten bytes!")
    assert await stream.read(70_000, 10) == b"ten bytes!"


async def test_nobody_writes_beyond_a_size_that_becomes_known_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, b"0123456789")
    hold, said = locking.hold_gate, [12]

    def sized_by_another(descriptor: int) -> None:
        if said:
            Stream(stream._shelf, KEY, None).set_size_sync(said.pop())
        hold(descriptor)

    monkeypatch.setattr(locking, "hold_gate", sized_by_another)
    with pytest.raises(SizeMismatchError):
        await stream.write(10, b"abc")
    assert stream.present() == SpanSet([Span(0, 10)])
    assert stream_file(store).stat().st_size == 12


async def test_a_size_is_not_set_below_what_is_written_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, b"0123456789")
    hold, more = locking.hold_gate, [b"abc"]

    def written_by_another(descriptor: int) -> None:
        if more:
            Stream(stream._shelf, KEY, None).write_sync(10, more.pop())
        hold(descriptor)

    monkeypatch.setattr(locking, "hold_gate", written_by_another)
    with pytest.raises(SizeMismatchError):
        await stream.set_size(10)
    assert await stream.read(0, 13) == b"0123456789abc"
    await stream.set_size(13)


async def test_present_bytes_are_not_overwritten(store: Store) -> None:
    stream = await store.streams.open(KEY, 12)
    await stream.write(4, b"good")
    await stream.write(0, b"xxxxxxxxxxxx")
    assert await stream.read(0, 12) == b"xxxxgoodxxxx"


async def test_an_empty_write_changes_nothing(store: Store) -> None:
    stream = await store.streams.open(KEY, 12)
    await stream.write(4, b"")
    assert not stream.present()


async def test_writing_beyond_the_size_is_refused(store: Store) -> None:
    stream = await store.streams.open(KEY, 10)
    with pytest.raises(ValueError, match="beyond its 10 bytes"):
        await stream.write(8, b"abc")
    assert not stream.present()


async def test_the_size_may_become_known_later(store: Store) -> None:
    stream = await store.streams.open(KEY, None)
    unknown = stream.size
    await stream.write(0, b"abc")
    await stream.set_size(3)
    assert (unknown, stream.size) == (None, 3)
    assert await stream.read(0, 10) == b"abc"
    again = await store.streams.open(KEY, None)
    assert again.size == 3


async def test_a_size_below_what_is_present_is_refused(store: Store) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, b"abc")
    with pytest.raises(SizeMismatchError):
        await stream.set_size(2)
    assert await stream.read(0, 3) == b"abc"


async def test_what_came_under_another_size_is_forgotten(store: Store) -> None:
    """A source that told a wrong size, and was interrupted, does not spoil the digest for ever."""
    stream = await store.streams.open(KEY, 10)
    await stream.write(0, b"abc")
    with pytest.raises(SizeMismatchError):
        await stream.set_size(11)
    again = await store.streams.open(KEY, 11)
    assert again.size == 11
    assert not again.present()


async def test_a_blob_has_one_size(store: Store) -> None:
    stream = await store.streams.open(KEY, 3)
    await stream.write(0, b"abc")
    await store.blobs.admit(KEY, media_type="", name="x")
    with pytest.raises(SizeMismatchError):
        await store.streams.open(KEY, 4)
    assert await stream.read(0, 3) == b"abc"


async def test_an_empty_stream_may_turn_out_to_have_another_size(store: Store) -> None:
    await store.streams.open(KEY, 10)
    assert (await store.streams.open(KEY, 11)).size == 11


async def test_find_knows_only_what_was_opened(store: Store) -> None:
    assert store.streams.find(KEY) is None
    await store.streams.open(KEY, 5)
    found = store.streams.find(KEY)
    assert found is not None
    assert found.size == 5


async def test_two_handles_see_each_others_spans(store: Store) -> None:
    one, two = await store.streams.open(KEY, 9), await store.streams.open(KEY, 9)
    await one.write(0, b"abc")
    assert await two.read(0, 3) == b"abc"


async def test_streams_do_not_mix(store: Store) -> None:
    one, two = await store.streams.open(KEY, 9), await store.streams.open(OTHER, 9)
    await one.write(0, b"abc")
    assert await two.read(0, 3) is None


async def test_a_thread_may_write(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await trio.to_thread.run_sync(stream.write_sync, 0, b"abc")
    assert await stream.read(0, 3) == b"abc"


async def test_discard_forgets_and_removes(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    await stream.discard()
    assert not stream.present()
    assert await stream.read(0, 3) is None
    assert list(store.path.glob("streams/*/*")) == []
    await stream.discard()


async def test_a_handle_can_be_written_after_a_discard(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    await stream.discard()
    await stream.write(3, b"def")
    assert await stream.read(3, 3) == b"def"
    assert await stream.read(0, 3) is None


async def test_a_vanished_file_voids_its_records(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    stream_file(store).unlink()
    assert not stream.present()
    assert store.streams.find(KEY) is None
    again = await store.streams.open(KEY, 9)
    assert await again.read(0, 3) is None
    await again.write(0, b"new")
    assert await again.read(0, 3) == b"new"


async def test_a_vanished_file_is_noticed_by_a_read_and_by_a_write(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    stream_file(store).unlink()
    assert await stream.read(0, 3) is None
    await stream.write(0, b"abc")
    stream_file(store).unlink()
    await stream.write(3, b"def")
    assert stream.present() == SpanSet([Span(3, 6)])


@pytest.mark.parametrize("warm", [False, True])
async def test_a_truncated_file_voids_its_records(store: Store, warm: bool) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    if warm:
        assert await stream.read(0, 3) == b"abc"
    os.truncate(stream_file(store), 2)
    assert await stream.read(0, 3) is None
    assert not stream.present()
    await stream.write(0, b"abc")
    assert await stream.read(0, 3) == b"abc"


async def test_a_write_into_a_truncated_file_starts_another(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    os.truncate(stream_file(store), 0)
    await stream.write(6, b"ghi")
    assert stream.present() == SpanSet([Span(6, 9)])
    assert await stream.read(6, 3) == b"ghi"


async def test_opening_a_truncated_stream_starts_another(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abc")
    os.truncate(stream_file(store), 3)
    assert not (await store.streams.open(KEY, 9)).present()


def full_disk(
    descriptor: int, data: Buffer, offset: int, *, write: Callable[[int, Buffer, int], int]
) -> int:
    if offset >= 4:
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(descriptor, memoryview(data)[:1], offset)


async def test_a_full_disk_is_said_and_leaves_the_stream_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"ab")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", partial(full_disk, write=os.pwrite))
        with pytest.raises(StorageFullError, match=KEY) as caught:
            await stream.write(0, b"abcdefghi")
    assert "free space" in caught.value.hint
    assert stream.present() == SpanSet([Span(0, 2)])
    await stream.write(0, b"abcdefghi")
    assert await stream.read(0, 9) == b"abcdefghi"


async def test_short_writes_are_continued(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await store.streams.open(KEY, 4)
    monkeypatch.setattr(os, "pwrite", partial(full_disk, write=os.pwrite))
    await stream.write(0, b"abcd")
    assert await stream.read(0, 4) == b"abcd"


async def test_a_failing_disk_is_a_storage_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    stream = await store.streams.open(KEY, 4)
    await stream.write(0, b"abcd")
    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        await stream.read(0, 4)


async def test_what_is_not_cached_is_read_in_a_thread(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cold(*arguments: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "not cached")

    readers: list[threading.Thread] = []
    pread = os.pread

    def noting(descriptor: int, length: int, offset: int) -> bytes:
        readers.append(threading.current_thread())
        return pread(descriptor, min(length, 2), offset)

    stream = await store.streams.open(KEY, 5)
    await stream.write(0, b"abcde")
    monkeypatch.setattr(os, "preadv", cold)
    monkeypatch.setattr(os, "pread", noting)
    assert await stream.read(0, 5) == b"abcde"
    assert threading.main_thread() not in readers


async def test_many_streams_are_read_with_few_open_files(store: Store) -> None:
    streams: list[Stream] = []
    for number in range(300):
        stream = await store.streams.open(StreamKey(f"{number:064x}"), 3)
        await stream.write(0, b"%03d" % number)
        streams.append(stream)
    for number, stream in enumerate(streams):
        assert await stream.read(0, 3) == b"%03d" % number
    names = [os.readlink(f"/proc/self/fd/{each.name}") for each in list_descriptors()]
    assert 0 < sum(str(store.path / "streams") in name for name in names) <= 256
    assert await streams[0].read(0, 3) == b"000"


def list_descriptors() -> list[Path]:
    return [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]


async def test_locks_exclude_each_other(store: Store) -> None:
    stream = await store.streams.open(KEY, 1 << 30)
    lock = stream.try_lock(Span(0, 100))
    assert lock is not None
    assert stream.try_lock(Span(99, 200)) is None
    beside = stream.try_lock(Span(100, 200))
    assert beside is not None
    lock.release()
    lock.release()
    with beside:
        again = stream.try_lock(Span(0, 100))
        assert again is not None
        again.release()
    again = stream.try_lock(Span(100, 200))
    assert again is not None
    again.release()


async def test_a_lock_keeps_nobody_from_reading_and_writing(store: Store) -> None:
    stream = await store.streams.open(KEY, 10)
    lock = stream.try_lock(Span(0, 10))
    assert lock is not None
    with lock:
        await stream.write(0, b"abc")
        assert await stream.read(0, 3) == b"abc"


@pytest.mark.parametrize("span", [Span(5, 5), Span(0, LOCK_LENGTH + 1)])
async def test_a_lock_is_neither_empty_nor_huge(store: Store, span: Span) -> None:
    stream = await store.streams.open(KEY, 1 << 30)
    with pytest.raises(ValueError, match="cannot lock"):
        stream.try_lock(span)


async def test_a_stream_without_a_file_has_nothing_to_lock(store: Store) -> None:
    stream = await store.streams.open(KEY, 10)
    await stream.discard()
    lock = stream.try_lock(Span(0, 10))
    assert lock is not None
    lock.release()


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await (await store.streams.open(KEY, 9)).write(2, b"abc")
    async with open_store(tmp_path) as store:
        found = store.streams.find(KEY)
        assert found is not None
        assert await found.read(2, 3) == b"abc"


async def test_a_span_that_is_taken_away_during_a_read_is_absent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eviction: the removal is recorded, then the bytes go, all between look-up and read."""
    stream = await store.streams.open(KEY, 10)
    await stream.write(5, b"56789")
    await store.checkpoint()
    await stream.write(0, b"01234")
    shelf = store.streams._shelf
    record = shelf.ledger.record(KEY)
    assert record is not None
    path = stream_file(store)
    read = Files.read

    async def evicted(files: Files, where: Path, offset: int, length: int) -> bytes:
        await trio.to_thread.run_sync(store._checkpointer.pending.drop, KEY, record)
        with path.open("r+b") as file:
            file.write(bytes(5))
        return await read(files, where, offset, length)

    monkeypatch.setattr(Files, "read", evicted)
    assert await stream.read(0, 10) is None
    monkeypatch.undo()
    assert await stream.read(5, 5) == b"56789"


async def test_a_read_racing_with_removal_never_sees_a_hole(store: Store) -> None:
    """A reader between look-up and read must not be answered with the zeros of a new file."""
    stream = await store.streams.open(KEY, 4096)
    data = b"\x5a" * 4096
    stop = threading.Event()

    def churn() -> None:
        for _ in range(150):
            stream.write_sync(0, data[:2048])
            stream.write_sync(2048, data[2048:])
            trio.from_thread.run(stream.discard)
        stop.set()

    seen: set[bytes | None] = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, churn)
        while not stop.is_set():
            seen.add(await stream.read(1024, 2048))
            await trio.lowlevel.checkpoint()
    assert seen <= {None, data[:2048]}


@pytest.mark.expects_log("store.(stream|blob).damaged")
async def test_what_is_damaged_and_cannot_be_put_aside_is_a_storage_error(store: Store) -> None:
    stream = await store.streams.open(KEY, 9)
    await stream.write(0, b"abcdefghi")
    digest = (await store.blobs.admit(KEY, media_type="", name="x")).digest
    path = store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.chmod(0o600)
    path.write_bytes(b"abcdefghI")
    shutil.rmtree(store.path / "streams")
    (store.path / "streams").write_bytes(b"")
    with pytest.raises(StorageError, match=f"{KEY}: damaged, and cannot be put aside: Not a dir"):
        await stream.read(0, 9)
    with pytest.raises(StorageError, match="Not a directory"):
        await store.streams.open(OTHER, 9)
    (store.path / "streams").unlink()
    (store.path / "streams").mkdir()
    assert await stream.read(0, 9) is None


async def test_whatever_a_disk_refuses_is_a_storage_error(store: Store) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, b"abc")
    folder = stream_file(store).parent
    away = folder.rename(store.path / "away")
    folder.write_bytes(b"")
    with pytest.raises(StorageError, match=r"looking at stream .*: Not a directory"):
        stream.present()
    with pytest.raises(StorageError, match="Not a directory"):
        await stream.set_size(3)
    with pytest.raises(StorageError, match=r"discarding stream .*: Not a directory"):
        await stream.discard()
    with pytest.raises(StorageError, match=r"sizing stream .*: Not a directory|File exists"):
        await stream.set_size(3)
    folder.unlink()
    away.rename(folder)
