"""A store on a disk that is really full: what is there is read, and things can be removed."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cafs.errors import StorageFullError
from cafs.model.identity import StreamKey
from cafs.model.resolved import Resolved, Shape
from cafs.store.store import Store, open_store
from cafs.store.streams.stream import Stream
from cafs.store.trees.mounts import new_key
from tests.small_disk import TOLD_IN_TIME

pytestmark = TOLD_IN_TIME

MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 80 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m", "none", path], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs: {made.stderr.decode()}")
    yield path
    subprocess.run(["umount", path], check=True)


async def test_rule_6_a_full_disk_reads_and_removes(small_disk: Path) -> None:
    async with open_store(small_disk / "store") as store:
        streams: list[Stream] = []
        with pytest.raises(StorageFullError):
            await fill_with_streams(store, streams)
        with pytest.raises(StorageFullError):
            await fill_with_references(store)
        assert len(streams) > 30
        assert await streams[7].read(0, MIB) == bytes([7]) * MIB
        await streams[3].discard()
        await streams[4].discard()
        await streams[8].discard()
        fresh = await store.streams.open(StreamKey("f" * 64), MIB)
        await fresh.write(0, b"x" * MIB)
        assert await fresh.read(0, MIB) == b"x" * MIB


async def test_rule_6_a_full_disk_keeps_no_status_from_being_told(small_disk: Path) -> None:
    async with open_store(small_disk / "store") as store:
        mount = await store.mounts.open(new_key(), "test")
        fill_to_the_last_block(small_disk / "filler")
        for number in range(500):
            content = b"%05d" % number * 1000
            await store.attachments.attach(
                mount, ".cafs/status.json", content=content, replace=True
            )
            await store.attachments.attach(mount, f"ref/{number}")
        assert store.attachments.at(mount, "ref/499") is not None


async def test_rule_6_a_store_that_is_there_opens_on_a_full_disk(small_disk: Path) -> None:
    async with open_store(small_disk / "store") as store:
        stream = await store.streams.open(StreamKey("a" * 64), 5)
        await stream.write(0, b"bytes")
    fill_to_the_last_block(small_disk / "filler")
    async with open_store(small_disk / "store", boot_id="another") as store:
        found = store.streams.find(StreamKey("a" * 64))
        assert found is not None
        assert await found.read(0, 5) == b"bytes"


async def test_rule_6_uploads_can_be_cancelled_and_go_on_after_a_full_disk(
    small_disk: Path,
) -> None:
    """At 0 bytes free, what is there is read and listed, and what takes room is thrown away."""
    async with open_store(small_disk / "store") as store:
        kept = await store.blobs.put("", b"kept")
        first, second = await store.blobs.create(), await store.blobs.create()
        for writer in (first, second):
            await writer.write(b"begun ")
        await store.checkpoint()
        fill_to_the_last_block(small_disk / "filler")
        with pytest.raises(StorageFullError):
            await first.write(bytes(80 * MIB))
        assert await store.blobs.get(kept.digest) == b"kept"
        await second.cancel()
        left = {each.id: each for each in await trio.to_thread.run_sync(store.uploads.all)}
        assert set(left) == {first.id}
        (small_disk / "filler").unlink()
        resumed = await store.blobs.resume(first.id)
        assert resumed.size == left[first.id].size >= len(b"begun ")
        await resumed.write(b"and ended")
        descriptor = await resumed.commit(None, None)
        data = await store.blobs.read(descriptor.digest, 0, descriptor.size)
        assert data.startswith(b"begun ")
        assert data.endswith(b"and ended")


async def test_rule_6_small_content_that_finds_no_room_leaves_nothing(small_disk: Path) -> None:
    async with open_store(small_disk / "store") as store:
        fill_to_the_last_block(small_disk / "filler")
        key, body = StreamKey("e" * 64), bytes(range(256)) * 1000
        assert await store.blobs.take(key, body, media_type="", claims=(), name="x") is None
        assert list(store.path.glob("streams/*/*")) == []
        assert store.streams.find(key) is None
        (small_disk / "filler").unlink()
        assert await store.blobs.take(key, body, media_type="", claims=(), name="x") is not None


def fill_to_the_last_block(path: Path) -> None:
    done = subprocess.run(
        ["dd", "if=/dev/zero", f"of={path}", "bs=4k"], check=False, capture_output=True, text=True
    )
    assert "No space" in done.stderr


async def fill_with_streams(store: Store, streams: list[Stream]) -> None:
    for number in range(100):
        stream = await store.streams.open(StreamKey(f"{number:064x}"), MIB)
        streams.append(stream)
        await stream.write(0, bytes([number]) * MIB)


async def fill_with_references(store: Store) -> None:
    for number in range(100_000):
        await store.references.record(str(number), _resolved(number))


def _resolved(number: int) -> Resolved:
    return Resolved(ref=str(number), shape=Shape.FILE, digest=None, parts=(), resolved_ns=number)
