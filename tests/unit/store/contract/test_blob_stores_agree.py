"""Whatever is done to a store of blobs, in whatever order: disk and memory answer alike."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio

from cafs.errors import CafsError
from cafs.model.descriptor import OCTETS
from cafs.model.digest import EMPTY, Digest, digest_of
from cafs.store.blobs.memory import MemoryBlobs
from cafs.store.interfaces import BlobStore, Writer
from cafs.store.store import Store

CONTENTS = (b"", b"a", b"ab", b"abc", b"abab", b"x" * 70_000)
ALGORITHMS = ("sha256", "sha384", "sha512", "sha1", "md5")
STEPS = 120


@dataclass
class Side:
    """One of the two stores, and the writers that were begun in it."""

    blobs: BlobStore
    writers: list[Writer] = field(default_factory=list)


Step = Callable[[Side], Awaitable[object]]


async def answer(step: Step, side: Side) -> object:
    """What a step gives, or how it fails, without what is random in it."""
    try:
        return await step(side)
    except (CafsError, trio.ClosedResourceError, trio.BusyResourceError) as error:
        return type(error)


def some_digest(draw: random.Random) -> Digest:
    return draw.choice([EMPTY, digest_of(draw.choice(CONTENTS), draw.choice(ALGORITHMS))])


def begin(draw: random.Random) -> Step:
    media_type = draw.choice(["", OCTETS, "a/b", "c/d"])

    async def step(side: Side) -> object:
        side.writers.append(await side.blobs.create(media_type))
        return side.writers[-1].size

    return step


def on_a_writer(draw: random.Random) -> Step:
    number, word = draw.randrange(1 << 20), draw.choice(["write", "write", "close", "cancel"])
    data = draw.choice([b"", b"a", b"ab", b"b", b"x" * 70_000])

    async def step(side: Side) -> object:
        if not side.writers:
            return None
        writer = side.writers[number % len(side.writers)]
        if word == "write":
            await writer.write(data)
        else:
            await (writer.close() if word == "close" else writer.cancel())
        return writer.size

    return step


def commit(draw: random.Random) -> Step:
    number, claim = draw.randrange(1 << 20), draw.choice([None, None, some_digest(draw)])
    size = draw.choice([None, None, 0, 1, 2, 4])

    async def step(side: Side) -> object:
        if not side.writers:
            return None
        return await side.writers[number % len(side.writers)].commit(claim, size)

    return step


def resume(draw: random.Random) -> Step:
    number = draw.randrange(1 << 20)

    async def step(side: Side) -> object:
        if not side.writers:
            return None
        at = number % len(side.writers)
        resumed = side.writers[at] = await side.blobs.resume(side.writers[at].id)
        return resumed.size

    return step


def put(draw: random.Random) -> Step:
    media_type, data = draw.choice(["", "a/b", "c/d"]), draw.choice(CONTENTS)
    claim = draw.choice([None, some_digest(draw)])

    async def step(side: Side) -> object:
        return await side.blobs.put(media_type, data, claim)

    return step


def delete(draw: random.Random) -> Step:
    digest = some_digest(draw)

    async def step(side: Side) -> object:
        await side.blobs.delete(digest)
        return side.blobs.stat(digest)

    return step


def look(draw: random.Random) -> Step:
    digest, offset, length = some_digest(draw), draw.randrange(4), draw.randrange(5)

    async def step(side: Side) -> object:
        found = side.blobs.stat(digest), list(side.blobs.digests())
        return *found, await side.blobs.read(digest, offset, length)

    return step


STEP_KINDS = (begin, on_a_writer, on_a_writer, on_a_writer, commit, resume, put, delete, look)


@pytest.mark.parametrize("seed", range(6))
async def test_disk_and_memory_answer_alike(store: Store, seed: int) -> None:
    draw = random.Random(seed)
    sides = [Side(store.blobs), Side(MemoryBlobs())]
    done: list[str] = []
    for _ in range(STEPS):
        kind = draw.choice(STEP_KINDS)
        step = kind(draw)
        on_disk, in_memory = [await answer(step, side) for side in sides]
        done.append(f"{kind.__name__}: {on_disk!r:.80}")
        assert on_disk == in_memory, "\n".join(done)
    for data in CONTENTS:
        for algorithm in ALGORITHMS:
            digest = digest_of(data, algorithm)
            assert len({str(side.blobs.stat(digest)) for side in sides}) == 1
