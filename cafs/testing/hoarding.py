"""The blobs scenario of ``scripts/bench``: a store of very many small blobs.

Each step is a process of its own, which tells how long it took and what it had in memory. Blobs are
taken as fetches give them: many at once. The reference writes as many files beside each other, each
synced and renamed, as a home-made cache would; for a sample, the rest in proportion.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import msgspec
import trio

from cafs.model.digest import digest_of
from cafs.model.identity import raw_stream
from cafs.store.store import Store, open_store
from cafs.testing.benching import Site
from cafs.testing.measuring import Measured

_AT_ONCE: Final = 256
"""Takes under way at one time: more than a prefetch has, and enough to see what groups give."""
_SAMPLE: Final = 5000
_LOOKS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Step:
    """What one process did: seconds, and the most bytes that it had which no file backs."""

    took_s: float
    anonymous: int


class Hoard:
    """The scenario.

    Args:
        site: where it works.
        blobs: how many.

    Concurrency: one thread.
    """

    def __init__(self, site: Site, blobs: int) -> None:
        self._site = site
        self._blobs = blobs

    def measure(self) -> Iterator[Measured]:
        """Take blobs, synced and not; look at some; let go of half."""
        store = self._site.scratch / "hoard"
        name = f"{self._blobs:,} blobs"
        files = _files(self._site.scratch / "files", min(_SAMPLE, self._blobs), self._blobs)
        taken = _step("take", store, self._blobs)
        yield Measured(f"{name}, taken", taken.took_s, files, note=_note(taken, self._blobs))
        looked = _step("stat", store, self._blobs)
        each_us = 1e6 * looked.took_s / _LOOKS
        yield Measured(f"stat of {_LOOKS:,} of them", looked.took_s, note=f"{each_us:.1f} us each")
        unsynced = _step("take-unsynced", self._site.scratch / "loose", self._blobs)
        yield Measured(f"{name}, never synced", unsynced.took_s, taken.took_s)


def _note(step: Step, blobs: int) -> str:
    rate, memory = blobs / step.took_s, step.anonymous / (1 << 20)
    return f"{rate:,.0f} a second, {memory:.0f} MiB anonymous memory"


def _files(folder: Path, sample: int, blobs: int) -> float:
    """Seconds for as many files that are written, synced and renamed, one after the other."""
    folder.mkdir()
    began = time.perf_counter()
    for number in range(sample):
        data = _content(number)
        target = folder / digest_of(data).hex[:2] / digest_of(data).hex
        target.parent.mkdir(exist_ok=True)
        with (folder / "new").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (folder / "new").rename(target)
    return (time.perf_counter() - began) * blobs / sample


def _content(number: int) -> bytes:
    return b"content of blob %d\n" % number


def _step(verb: str, store: Path, blobs: int) -> Step:
    command = [sys.executable, "-m", "cafs.testing.hoarding", verb, str(store), str(blobs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Step)


async def _take(store: Store, blobs: int) -> None:
    numbers = count()

    async def work() -> None:
        while (number := next(numbers)) < blobs:
            data = _content(number)
            digest = digest_of(data)
            if (
                await store.blobs.take(
                    raw_stream(digest), data, media_type="", claims=(digest,), name="blob"
                )
                is None
            ):
                raise RuntimeError(f"blob {number} could not be taken")

    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(work)


async def _stat(store: Store, blobs: int) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    for _ in range(_LOOKS):
        digest = digest_of(_content(chance.randrange(blobs)))
        if store.blobs.stat(digest) is None:
            raise RuntimeError(f"{digest} is not there")
        await trio.lowlevel.checkpoint()


def _anonymous() -> int:
    """Source: proc(5), /proc/pid/status: RssAnon, in KiB."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.partition("RssAnon:")[2].split()[0])


def _leave_it(_: int) -> None:
    """What becomes of syncing where its cost is to be known."""


async def _run(verb: str, path: Path, blobs: int) -> Step:
    if verb == "take-unsynced":
        os.fsync = os.fdatasync = _leave_it  # type: ignore[assignment]
    async with open_store(path) as store:
        began = time.perf_counter()
        await (_stat if verb == "stat" else _take)(store, blobs)
        return Step(time.perf_counter() - began, _anonymous())


def main() -> None:
    """Do one step, and tell of it on standard output."""
    verb, store, blobs = sys.argv[1:]
    step = trio.run(partial(_run, verb, Path(store), int(blobs)))
    sys.stdout.write(json.dumps({"took_s": step.took_s, "anonymous": step.anonymous}))


if __name__ == "__main__":
    main()
