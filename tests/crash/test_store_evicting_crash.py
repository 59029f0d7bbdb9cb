"""Evicting, by several processes and by one that is killed: no leak, and no zero is ever read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from cafs.errors import NotFoundError
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.store.store import Store, open_store
from cafs.testing.evicting import evict_beside_readers

KEY = StreamKey("ab" * 32)
PIECE = 1 << 20
SIZE = 8 * PIECE
CHILD = Path(__file__).with_name("evicting_child.py")
ENOUGH_S = (3, 10, 30)
"""How long several are at work, until each has done something: on a loaded machine it is longer."""


def content(offset: int) -> bytes:
    """A MiB of the stream: no zeros."""
    return bytes([offset // PIECE + 1]) * PIECE


async def fill(store: Store) -> list[Digest]:
    """A stream, half of it checkpointed, and some blobs."""
    stream = await store.streams.open(KEY, SIZE)
    for offset in range(0, SIZE, PIECE):
        await stream.write(offset, content(offset))
        if offset == SIZE // 2:
            await store.checkpoint()
    digests = []
    for number in range(3):
        writer = await store.blobs.create()
        await writer.write(bytes([number + 1]) * 50_000)
        digests.append((await writer.commit(None, None)).digest)
    return digests


def child(store: Path, role: str, number: int) -> "subprocess.Popen[str]":
    arguments = [sys.executable, str(CHILD), str(store), "boot", role, str(number)]
    root = Path(__file__).parents[2]
    environ = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environ)


async def test_killed_at_any_step_it_leaves_nothing_that_the_next_does_not_remove(
    tmp_path: Path,
) -> None:
    origin = tmp_path / "origin"
    async with open_store(origin, checkpoint_s=1e6, boot_id="boot") as store:
        digests = await fill(store)
    for number in range(1, 200):
        path = tmp_path / "store"
        await trio.run_process(["cp", "-a", "--sparse=always", str(origin), str(path)])
        dying = child(path, "die", number)
        told, _ = await trio.to_thread.run_sync(dying.communicate)
        async with open_store(path, boot_id="boot") as store:
            await check(store, digests)
        shutil.rmtree(path)
        if dying.returncode == 0:
            assert told == "done\n"
            break
    assert number > 10


async def check(store: Store, digests: list[Digest]) -> None:
    """Right bytes or none; no file without a record, no block without a span."""
    recorded = {each.hex for each in store.blobs.digests()}
    assert {path.name for path in store.path.glob("blobs/sha256/*/*")} == recorded
    for number, digest in enumerate(digests):
        if store.blobs.stat(digest) is not None:
            assert await store.blobs.read(digest, 0, 50_000) == bytes([number + 1]) * 50_000
    stream = store.streams.find(KEY)
    files = list(store.path.glob("streams/*/*"))
    assert len(files) == (stream is not None)
    present = 0 if stream is None else stream.present().total
    assert sum(path.stat().st_blocks * 512 for path in files) == present
    for offset in range(0, SIZE if stream is not None else 0, PIECE):
        assert stream is not None
        assert await stream.read(offset, PIECE) in {None, content(offset)}
    assert store.room.recount() == 0


async def test_who_reads_what_another_process_lets_go_of_reads_no_zero(tmp_path: Path) -> None:
    path = tmp_path / "store"
    absent = right = freed = 0
    async with open_store(path, boot_id="boot") as store:
        digests = await fill(store)
        for seconds in ENOUGH_S:
            other = child(path, "go-on", seconds)
            assert other.stdout is not None
            assert await trio.to_thread.run_sync(other.stdout.readline) == "begun\n"
            while other.poll() is None:
                found = await _read_stream(store)
                absent += found.count(False) + await _read_blobs(store, digests)
                right += found.count(True)
            freed += int(await trio.to_thread.run_sync(other.stdout.read))
            other.stdout.close()
            if freed > SIZE and min(absent, right) > 10:
                break
        assert freed > SIZE
        assert absent > 10
        assert right > 10
        assert store.room.recount() == 0


async def _read_stream(store: Store) -> list[bool]:
    """Read pieces, and write those that are absent; which of them were there."""
    stream, found = await store.streams.open(KEY, SIZE), list[bool]()
    for offset in [each for each in range(0, SIZE, PIECE) for _ in range(4)]:
        data = await stream.read(offset, PIECE)
        found.append(data is not None)
        if data is None:
            await stream.write(offset, content(offset))
        else:
            assert data == content(offset)
    return found


async def _read_blobs(store: Store, digests: list[Digest]) -> int:
    absent = 0
    for number, digest in enumerate(digests):
        data = bytes([number + 1]) * 50_000
        try:
            assert await store.blobs.read(digest, 0, 50_000) == data
        except NotFoundError:
            absent += 1
            writer = await store.blobs.create()
            await writer.write(data)
            await writer.commit(digest, None)
    return absent


async def test_what_one_process_holds_no_other_lets_go_of(tmp_path: Path) -> None:
    path = tmp_path / "store"
    async with open_store(path, boot_id="boot") as store:
        digests = await fill(store)
        async with store.streams.hold(KEY), store.blobs.hold(digests[1]):
            other = child(path, "go-on", 1)
            await trio.to_thread.run_sync(other.communicate)
            stream = store.streams.find(KEY)
            assert stream is not None
            assert stream.present().total == SIZE
            assert [store.blobs.stat(each) is not None for each in digests] == [False, True, False]


def test_readers_writers_and_evicting_processes_agree_on_what_is_there(tmp_path: Path) -> None:
    """Longer: ``scripts/soak evicting``."""
    for seconds in ENOUGH_S:
        outcome = evict_beside_readers(tmp_path / f"store-{seconds}", seconds=seconds)
        assert not outcome.wrong, str(outcome)
        assert not outcome.lost, str(outcome)
        assert not outcome.failed, str(outcome)
        assert not outcome.miscounted, str(outcome)
        if outcome.counts["reads"] and outcome.counts["cuts"]:
            return
    pytest.fail(f"in {ENOUGH_S[-1]} s nothing was read, or no range taken out")
