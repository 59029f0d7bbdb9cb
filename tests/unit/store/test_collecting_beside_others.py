"""Collecting in one process while another writes and a third reads: nobody is told a lie."""

import os
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from cafs.errors import NotFoundError
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey, TreeIdentity, raw_stream
from cafs.store.space.findings import Terms
from cafs.store.space.purging import Outcome
from cafs.store.store import Store, open_store
from tests.unit.store.keeping_world import blob, body, planted, tree

BODIES = [body(f"shared {number}", 3000 + number) for number in range(20)]
RUN_S = 1.5
MOST_S = 60.0
"""For how long each goes on until it has done its part: on a loaded machine that takes longer."""
PART = 4


def started(path: Path, work: Callable[[Store, random.Random], Awaitable[int]], seed: int) -> int:
    """A process that does a piece of work over and over for a while; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        trio.run(_repeat, path, work, seed)
        code = 0
    except BaseException:  # noqa: BLE001 - told, and it is the end of this process
        traceback.print_exc()
    finally:
        os._exit(code)


async def _repeat(
    path: Path, work: Callable[[Store, random.Random], Awaitable[int]], seed: int
) -> None:
    chance, done, began = random.Random(seed), 0, time.monotonic()
    async with open_store(path, boot_id="boot") as store:
        while time.monotonic() < began + (RUN_S if done >= PART else MOST_S):
            done += await work(store, chance)
    assert done >= PART


async def gather(store: Store, chance: random.Random) -> int:
    """Collect all that can go, with an age of nothing."""
    told: list[Outcome] = []
    terms = Terms(age_s=0.0, unused=chance.random() < 0.8, now_ns=time.time_ns())
    await store.housekeeping.collect(terms, told.extend)
    assert not [each.error for each in told if each.error]
    return 1


async def write(store: Store, chance: random.Random) -> int:
    """Put blobs, uploads, streams and trees, each of which is whole or gone."""
    data = chance.choice(BODIES)
    assert await blob(store, data) == digest_of(data)
    writer = await store.blobs.create()
    parts = [chance.randbytes(chance.randrange(1, 9000)) for _ in range(3)]
    for each in parts:
        await writer.write(each)
        await trio.sleep(0.002)
    assert (await writer.commit(None, None)).digest == digest_of(b"".join(parts))
    raw = StreamKey(chance.randbytes(32).hex())
    record = tree(store, TreeIdentity(chance.randbytes(32).hex()), ())
    assert store.trees.entry(record.number, 1).name == b"a"
    await planted(store, raw, data)
    return 1


async def read(store: Store, chance: random.Random) -> int:
    """Read blobs in both ways: right bytes, or none."""
    data = chance.choice(BODIES)
    digest = digest_of(data)
    start = chance.randrange(len(data))
    with suppress(NotFoundError):
        assert await store.blobs.read(digest, start, 500) == data[start : start + 500]
    stream = store.streams.find(raw_stream(digest))
    found = None if stream is None else await stream.read(start, 500)
    assert found in {None, data[start : start + 500]}
    await trio.lowlevel.checkpoint()
    return 1


def test_b_s4_gc_beside_writers_loses_nothing_of_theirs(tmp_path: Path) -> None:
    async def begin() -> None:
        async with open_store(tmp_path / "store", boot_id="boot") as store:
            await blob(store, BODIES[0])

    trio.run(begin)
    works = [gather, gather, write, write, read]
    pids = [started(tmp_path / "store", work, seed) for seed, work in enumerate(works)]
    codes = [os.waitpid(pid, 0)[1] for pid in pids]
    assert codes == [0] * len(works)

    async def check() -> None:
        async with open_store(tmp_path / "store", boot_id="boot") as store:
            present = [each for each in store.blobs.digests() if store.blobs.stat(each)]
            assert present == list(store.blobs.digests())
            for digest in present:
                known = store.blobs.stat(digest)
                assert known is not None
                assert digest_of(await store.blobs.read(digest, 0, known.size)) == digest
            for record in store.trees.all():
                assert store.trees.entry(record.number, 1).name == b"a"
            assert store.uploads.all() == []
            assert store.room.recount() == 0

    trio.run(check)
