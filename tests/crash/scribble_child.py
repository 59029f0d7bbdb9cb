"""A process that writes noise over the records of a store, and says what its next users meet.

Usage: ``scribble_child.py STORE WHICH FIRST NUMBER``, where WHICH is ``index`` or ``recent``, and
FIRST the seed of the first case. For each case it forks twice: what reads damaged pages may die.
It prints one JSON object a line.
"""

import json
import random
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from cafs.errors import CafsError
from cafs.store.store import Store, open_store
from tests.crash.flip_child import BOOT, PAGE, apart, made, right

FINE, WRONG, TOLD, UNTOLD, DAMAGED = 0, 3, 4, 5, 6


def using(path: Path, said: Path) -> int:
    """Read what can be read, count, and write; how that ended."""

    async def use() -> bool:
        async with open_store(path, boot_id=BOOT, checkpoint_s=1e6) as store:
            return await right(store) and await counted(store)

    try:
        return FINE if trio.run(use) else WRONG
    except CafsError as error:
        said.write_text(error.line)
        return DAMAGED if error.code == "storage-broken" and error.hint else TOLD
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - that is what is looked for
        said.write_text(repr(error))
        return UNTOLD


async def counted(store: Store) -> bool:
    """What ``status``, ``du`` and the end of every verb do."""
    measured = store.measurer.measure(list(store.measurer.known()))
    list(store.blobs.digests())
    await store.checkpoint()
    return measured.total >= 0


def noise(data: bytes, seed: int) -> bytes:
    """The same with some stretches written over, none of them on the two meta pages."""
    chance = random.Random(seed)
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 3, 10, 40))):
        at, length = chance.randrange(2 * PAGE, len(data) - 512), chance.choice((1, 8, 64, 512))
        spoilt[at : at + length] = chance.randbytes(length)
    return bytes(spoilt)


def main() -> None:
    source, which, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    which = made(source, which)
    data = (source / which / "data.mdb").read_bytes()
    said = source.with_name("said")
    for seed in range(first, first + int(count)):
        copy = source.with_name("copy")
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("lock.mdb"))
        (copy / which / "data.mdb").write_bytes(noise(data, seed))
        said.write_text("")
        use: Callable[[], int] = partial(using, copy, said)
        result = {"seed": seed, "first": apart(use), "said": said.read_text(), "then": apart(use)}
        sys.stdout.write(json.dumps(result) + "\n")
        shutil.rmtree(copy)


if __name__ == "__main__":
    main()
