"""Uploads on disk: what is left of them by processes and power cuts, and who may throw them away.

What every writer promises is in ``contract``.
"""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cafs.errors import NotFoundError, StorageError, StorageFullError
from cafs.model.descriptor import Descriptor
from cafs.model.digest import digest_of
from cafs.model.item import Item
from cafs.store.blobs.uploads import Upload
from cafs.store.store import Store, open_store
from cafs.store.tables.sums import PIECE

DATA = b"some bytes that are written in pieces"
DIGEST = digest_of(DATA)
HOLDER = """
import sys, trio
from pathlib import Path
from cafs.store.store import open_store

async def main():
    async with open_store(Path(sys.argv[1]), boot_id="first") as store:
        writer = await store.blobs.create("text/plain")
        await writer.write(b"some bytes")
        print(writer.id, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def uploads(store: Store) -> list[Upload]:
    return await trio.to_thread.run_sync(store.uploads.all)


def open_files() -> set[str]:
    """The paths of this process's open files."""
    links = Path("/proc/self/fd").iterdir()
    return {os.readlink(link) for link in links if link.exists()}


async def test_b14_an_upload_is_on_record_before_its_first_byte(store: Store) -> None:
    writer = await store.blobs.create("text/plain")
    [upload] = await uploads(store)
    assert (upload.id, upload.started_ns) == (writer.id, writer.started_ns)
    assert (upload.media_type, upload.size, upload.active) == ("text/plain", 0, True)


async def test_uploads_are_listed_oldest_first_with_what_they_have(store: Store) -> None:
    writers = [await store.blobs.create() for _ in range(5)]
    for number, writer in enumerate(writers):
        await writer.write(b"x" * number)
    await writers[1].close()
    found = await uploads(store)
    assert [each.id for each in found] == [each.id for each in writers]
    assert [each.size for each in found] == [0, 1, 2, 3, 4]
    assert [each.active for each in found] == [True, False, True, True, True]
    stream = store.streams.find(found[4].key)
    assert stream is not None
    assert await stream.read(0, 4) == b"xxxx"


async def test_an_upload_is_not_let_go_of_while_it_is_written(store: Store) -> None:
    """Who makes room for others leaves what is held."""
    writer = await store.blobs.create()
    await writer.write(DATA[:10])
    [upload] = await uploads(store)
    item = Item.stream(upload.key)
    assert store.holds.held(item)
    await writer.close()
    assert not store.holds.held(item)
    resumed = await store.blobs.resume(writer.id)
    assert store.holds.held(item)
    await resumed.write(DATA[10:])
    await resumed.commit(DIGEST, None)
    assert not store.holds.held(item)


async def test_what_could_not_be_put_leaves_no_upload(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing)
        with pytest.raises(StorageFullError):
            await store.blobs.put("", DATA)
    assert await uploads(store) == []
    assert list(store.path.glob("streams/*/*")) == []


async def test_a_cancelled_beginning_holds_nothing(store: Store) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.blobs.create()
    assert scope.cancelled_caught
    assert str(store.path / "leases" / "uploads") not in open_files()


async def test_b_s6_looking_at_uploads_ends_none_of_them(store: Store) -> None:
    writer = await store.blobs.create()
    for number, byte in enumerate(DATA):
        assert [each.size for each in await uploads(store)] == [number]
        await writer.write(bytes([byte]))
    assert (await writer.commit(DIGEST, len(DATA))).digest == DIGEST


async def test_r36_a_blob_whose_file_has_gone_is_removed_with_all_its_names(store: Store) -> None:
    await store.blobs.put("", DATA, digest_of(DATA, "sha512"))
    path = store.path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    path.unlink()
    assert list(store.blobs.digests()) == [DIGEST]
    await store.blobs.delete(digest_of(DATA, "sha512"))
    assert list(store.blobs.digests()) == []
    path.write_bytes(DATA)
    assert store.blobs.stat(DIGEST) is None


async def test_b16_nothing_is_left_of_an_upload_that_was_committed(store: Store) -> None:
    """Not even its stream, under a name that nobody would ever ask for."""
    for claim in (DIGEST, digest_of(DATA, "sha512"), DIGEST):
        writer = await store.blobs.create()
        await writer.write(DATA)
        [upload] = await uploads(store)
        await writer.commit(claim, None)
        assert store.streams.find(upload.key) is None
    assert await uploads(store) == []
    assert list(store.path.glob("streams/*/*")) == []
    await store.blobs.delete(DIGEST)
    index = store.uploads._index
    with index.read() as snapshot:
        assert list(snapshot.scan(index.table("streams"), b"", b"\xff" * 33)) == []


async def test_b16_an_upload_that_a_crash_left_committed_is_committed_again(
    store: Store, frozen: Callable[[Store], Path]
) -> None:
    """The blob is on record before the upload is forgotten: here, nothing was forgotten yet."""
    writer = await store.blobs.create("text/plain")
    await writer.write(DATA)
    await store.blobs.put("", DATA)
    async with open_store(frozen(store), boot_id="first") as copy:
        resumed = await copy.blobs.resume(writer.id)
        descriptor = await resumed.commit(DIGEST, len(DATA))
        assert descriptor == Descriptor("text/plain", DIGEST, len(DATA))
        assert await uploads(copy) == []


@pytest.mark.parametrize("boot_id", ["first", "second"])
async def test_b15_a_killed_upload_goes_on_behind_what_is_left_of_it(
    store: Store, frozen: Callable[[Store], Path], boot_id: str
) -> None:
    """Of a power cut, that is what was checkpointed."""
    writer = await store.blobs.create()
    await writer.write(DATA[:10])
    await store.checkpoint()
    await writer.write(DATA[10:20])
    async with open_store(frozen(store), boot_id=boot_id) as copy:
        resumed = await copy.blobs.resume(writer.id)
        assert resumed.size == (20 if boot_id == "first" else 10)
        await resumed.write(DATA[resumed.size :])
        assert (await resumed.commit(DIGEST, len(DATA))).digest == DIGEST
        assert await copy.blobs.get(DIGEST) == DATA


@pytest.mark.expects_log("store.stream.damaged")
async def test_b15_what_lies_behind_a_gap_of_an_upload_is_written_anew(store: Store) -> None:
    """What a disk has lost in the middle is a gap; what came behind it is not asked for again."""
    writer = await store.blobs.create()
    await writer.write(bytes(200_000))
    await writer.close()
    [path] = store.path.glob("streams/*/*")
    with path.open("r+b") as file:
        file.seek(70_000)
        file.write(b"changed")
    with pytest.raises(NotFoundError, match="have vanished"):
        await store.blobs.resume(writer.id)
    again = await store.blobs.resume(writer.id)
    assert again.size == PIECE
    await again.write(b"x" * 150_000)
    data = bytes(PIECE) + b"x" * 150_000
    found = await again.commit(digest_of(data), len(data))
    assert await store.blobs.read(found.digest, 0, len(data)) == data


async def test_an_upload_whose_file_has_gone_begins_anew(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    await writer.close()
    for path in store.path.glob("streams/*/*"):
        path.unlink()
    assert [each.size for each in await uploads(store)] == [0]
    resumed = await store.blobs.resume(writer.id)
    assert resumed.size == 0
    await resumed.write(DATA)
    assert (await resumed.commit(DIGEST, None)).digest == DIGEST


async def test_b24_a_left_upload_can_be_thrown_away_and_an_active_one_cannot(store: Store) -> None:
    left, active = await store.blobs.create(), await store.blobs.create()
    for writer in (left, active):
        await writer.write(DATA[:10])
    await left.close()
    assert await store.uploads.discard(left.id)
    assert not await store.uploads.discard(left.id)
    assert not await store.uploads.discard("nonsense")
    assert not await store.uploads.discard(active.id)
    with pytest.raises(NotFoundError):
        await store.blobs.resume(left.id)
    assert [each.id for each in await uploads(store)] == [active.id]
    assert len(list(store.path.glob("streams/*/*"))) == 1
    await active.write(DATA[10:])
    assert (await active.commit(DIGEST, None)).digest == DIGEST


async def test_b24_an_upload_is_its_processs_until_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "store"
    child = await trio.lowlevel.open_process(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        identity = (await child.stdout.receive_some()).decode().strip()
        async with open_store(path, boot_id="first") as store:
            assert [(each.id, each.active) for each in await uploads(store)] == [(identity, True)]
            assert not await store.uploads.discard(identity)
            with pytest.raises(trio.BusyResourceError):
                await store.blobs.resume(identity)
            child.kill()
            await child.wait()
            assert [each.active for each in await uploads(store)] == [False]
            resumed = await store.blobs.resume(identity)
            assert resumed.size == len(b"some bytes")
            await resumed.cancel()
            assert await uploads(store) == []
    finally:
        child.kill()
        await child.wait()


async def test_a_commit_that_was_begun_is_the_end_of_writing(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    limiter = store.blobs._threads.limiter
    others = [object() for _ in range(int(limiter.total_tokens))]
    for each in others:
        limiter.acquire_on_behalf_of_nowait(each)
    with trio.move_on_after(0.2) as scope:
        await writer.commit(DIGEST, len(DATA))
    assert scope.cancelled_caught
    for each in others:
        limiter.release_on_behalf_of(each)
    with pytest.raises(trio.ClosedResourceError, match="being committed"):
        await writer.write(b"more")
    await writer.close()
    resumed = await store.blobs.resume(writer.id)
    with pytest.raises(trio.ClosedResourceError, match="being committed"):
        await resumed.write(b"more")
    assert (await resumed.commit(DIGEST, len(DATA))).digest == DIGEST


async def test_a_disk_that_fails_a_commit_leaves_an_upload_that_says_what_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk could not write once is not there any more, whatever is in memory."""
    writer = await store.blobs.create()
    await writer.write(DATA)

    def failing(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StorageError):
            await writer.commit(DIGEST, None)
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        await writer.commit(DIGEST, None)
    resumed = await store.blobs.resume(writer.id)
    assert resumed.size == 0
    await resumed.write(DATA)
    assert (await resumed.commit(DIGEST, None)).digest == DIGEST


async def test_b13_a_directory_in_place_of_a_blob_is_none(store: Store) -> None:
    data = b"x" * os.stat(store.path / "blobs").st_size
    digest = (await store.blobs.put("", data)).digest
    path = store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.unlink()
    path.mkdir()
    assert path.stat().st_size == len(data)
    assert store.blobs.stat(digest) is None
    with pytest.raises(NotFoundError):
        await store.blobs.read(digest, 0, 5)


@pytest.mark.parametrize("left", [None, 0, 5])
async def test_b19_a_reader_of_a_blob_without_all_of_its_file_gets_an_error_and_no_end(
    store: Store, left: int | None
) -> None:
    await store.blobs.put("", DATA)
    reader = store.blobs.open(DIGEST)
    path = store.path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    path.unlink()
    if left is not None:
        path.write_bytes(DATA[:left])
    with pytest.raises(NotFoundError):
        await reader.read(3)
    assert reader.offset == 0
