"""A process that flips bits in the records of a store, one at a time, and says what came of it.

Usage: ``flip_child.py STORE WHICH NUMBER SEED``, where WHICH is ``index`` or ``recent``. For each
flip it forks: what reads damaged pages may die, or never end. It prints one JSON object a line.
"""

import functools
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import lmdb
import trio

from cafs.errors import NotFoundError
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import StreamKey
from cafs.store.db.btree import BrokenRecord, Walk
from cafs.store.db.btree_pages import metas
from cafs.store.db.transactions import mark_broken
from cafs.store.health.opening import INDEX, RECENT
from cafs.store.health.redress import redress
from cafs.store.health.walker import walk
from cafs.store.store import Store, open_store

BOOT = "boot"
PAGE = 4096
VERSIONS = {"index": INDEX, f"recent-{BOOT}": RECENT}
FINE, WRONG, SILENT, UNUSABLE, FOUND = 0, 3, 4, 5, 6


@functools.cache
def content(number: int) -> bytes:
    """What stream number ``number`` has."""
    return random.Random(number).randbytes(2500 + 311 * number)


def key_of(number: int) -> StreamKey:
    return StreamKey(random.Random(1000 + number).randbytes(32).hex())


BLOBS, STREAMS = range(20), range(20, 34)


async def fill(store: Store) -> None:
    """Blobs, and streams with holes, some checkpointed; some things were removed again."""
    for number in (*BLOBS, *STREAMS):
        data = content(number)
        stream = await store.streams.open(key_of(number), len(data))
        if number in BLOBS:
            await stream.write(0, data)
            await store.blobs.admit(
                key_of(number), media_type="a/b", name="x", claims=[digest_of(data, "sha512")]
            )
        else:
            for at in range(0, len(data) - 2000, 5000):
                await stream.write(at, data[at : at + 2000])
        if number == 27:
            await store.checkpoint()
    for number in (3, 7, 11):
        await store.blobs.delete(digest_of(content(number)))


async def right(store: Store) -> bool:
    """Whether nothing that can be read is wrong. Absent is right."""
    for number in BLOBS:
        data = content(number)
        for digest in (digest_of(data), digest_of(data, "sha512")):
            found = store.blobs.stat(digest)
            if found is not None and await read_blob(store, found.digest) not in {None, data}:
                return False
    for number in (*BLOBS, *STREAMS):
        data = content(number)
        one = store.streams.find(key_of(number))
        for at in range(0, len(data), 4000):
            got = None if one is None else await one.read(at, 4000)
            if got is not None and got != data[at : at + 4000]:
                return False
    return True


async def read_blob(store: Store, digest: Digest) -> bytes | None:
    try:
        return await store.blobs.read(digest, 0, 1 << 20)
    except NotFoundError:
        return None


def apart(work: Callable[[], int]) -> str:
    """Do it in a process of its own; how that ended."""
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        code = 70
        try:
            code = work()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return str(os.WEXITSTATUS(status))


def reading(path: Path) -> int:
    """Read all that can be read, while somebody else has the store, so that nothing is swept."""

    async def read() -> bool:
        async with open_store(path, boot_id=BOOT) as store:
            return await right(store)

    return FINE if trio.run(read) else WRONG


def dump(path: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """All records, as LMDB gives them."""
    with (
        lmdb.open(str(path), readonly=True, max_dbs=64, lock=False) as environment,
        environment.begin() as transaction,
    ):
        names = [key for key, _ in transaction.cursor()]
        return {
            name.decode(): list(transaction.cursor(environment.open_db(name, transaction)))
            for name in names
        }


def in_use(path: Path) -> list[int]:
    """The pages that hold records, or lead to them."""
    descriptor = os.open(path, os.O_RDONLY)
    first, second = metas(descriptor)
    one = Walk(descriptor, max(first, second, key=lambda meta: meta.number), {})
    one._free = lambda _node, value: None  # type: ignore[method-assign]
    one.run()
    os.close(descriptor)
    return [number for number, seen in enumerate(one._seen) if seen]


def verifying(path: Path, which: str, truth: dict[str, list[tuple[bytes, bytes]]]) -> int:
    """What ``cafs verify`` does; afterwards the store is right, and takes new things."""
    found = walk(path / which, dict(VERSIONS[which]))
    if not found.damage and not found.broken and dump(path / which) != truth:
        return SILENT
    if found.damage:
        mark_broken(path / which)

    async def mend() -> bool:
        async with open_store(path, boot_id=BOOT) as store:
            environment = store.verifier._environments[path / which]
            redress(environment, [broken(each) for each in found.broken])
            good = await right(store)
            extra = await store.streams.open(StreamKey("ab" * 32), 100)
            await extra.write(0, b"x" * 100)
            await store.checkpoint()
            return good and await extra.read(0, 100) == b"x" * 100

    if not trio.run(mend):
        return WRONG
    again = walk(path / which, dict(VERSIONS[which]))
    if again.damage or again.broken:
        return UNUSABLE
    return FOUND if found.damage or found.broken else FINE


def broken(said: object) -> BrokenRecord:
    table, low, key, high = (getattr(said, name) for name in ("table", "low", "key", "high"))
    upper = None if high is None else bytes.fromhex(high)
    return BrokenRecord(table, bytes.fromhex(low), bytes.fromhex(key), upper)


def made(source: Path, which: str) -> str:
    """Make a store whose user was killed; the name of the directory of ``which`` records in it."""

    async def make() -> None:
        async with open_store(
            source, boot_id=BOOT, checkpoint_bytes=1 << 40, checkpoint_s=1e6
        ) as store:
            await fill(store)
            os.kill(os.getpid(), signal.SIGKILL)  # so that recent keeps what it has

    assert apart(partial(trio.run, make)) == "SIGKILL"
    (source / "ballast").unlink(missing_ok=True)
    return "index" if which == "index" else f"recent-{BOOT}"


def main() -> None:
    source, which, count, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    which = made(source, which)
    truth = dump(source / which)
    data = (source / which / "data.mdb").read_bytes()
    used = in_use(source / which / "data.mdb")
    chance = random.Random(seed)
    for number in range(count):
        page = chance.choice(used) if number % 4 else chance.randrange(len(data) // PAGE)
        at, bit = page * PAGE + chance.randrange(PAGE), chance.randrange(8)
        spoilt = bytearray(data)
        spoilt[at] ^= 1 << bit
        results = {}
        works: dict[str, Callable[[Path], int]] = {
            "read": reading,
            "verify": partial(verifying, which=which, truth=truth),
        }
        for name, work in works.items():
            copy = source.with_name("copy")
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("lock.mdb"))
            (copy / which / "data.mdb").write_bytes(spoilt)
            results[name] = apart(partial(work, copy))
            shutil.rmtree(copy)
        sys.stdout.write(json.dumps({"at": at, "bit": bit, **results}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
