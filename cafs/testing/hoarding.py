"""The blobs scenario of ``scripts/bench``: a store of very many small blobs.

Each step is a process of its own, which tells how long it took; what memory it has that no file
backs is looked at all the time. Blobs are taken as fetches give them: many at once, half of them as
if two days ago; so ``cafs gc`` finds half of them old. The reference writes as many files beside
each other, each synced and renamed, as a home-made cache would, and removes half; for a sample, the
rest in proportion.
"""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
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
from cafs.testing.command import Cafs
from cafs.testing.measuring import Measured, anonymous

_AT_ONCE: Final = 256
"""Takes under way at one time: more than a prefetch has, and enough to see what groups give."""
_SAMPLE: Final = 5000
_LOOKS: Final = 20_000
_LOOSE: Final = 50_000
"""How many are taken at most without being synced."""


_LATE: Final = 2 * _AT_ONCE
"""How many blobs may be taken before some that were begun earlier, and as many more."""
_DAYS_NS: Final = 2 * 24 * 3600 * 10**9
_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Step:
    """What one process did: seconds, and the most bytes that it had which no file backs.

    ``paces`` are items a second in the first tenth and the last, where it says so; ``said`` is what
    it printed.
    """

    took_s: float
    anonymous: int
    paces: tuple[float, float] | None = None
    said: str = ""


class _Told(msgspec.Struct):
    """What one of the processes here says of itself."""

    took_s: float
    paces: tuple[float, float] | None = None


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
        """Take blobs, synced and not; look at some; let go of half; look at the others."""
        world, blobs = self._site.world("hoard"), self._blobs
        name = f"{blobs:,} blobs"
        written, removed = _files(self._site.scratch / "files", min(_SAMPLE, blobs), blobs)
        taken = _step("take", world.store, blobs)
        yield Measured(f"{name}, taken", taken.took_s, written, note=_note(taken, blobs))
        yield self._look(world.store, "all")
        for words in (("du",), ("verify", "--quiet", "--sample", "1")):
            done = _command(world, *words)
            yield Measured(f"cafs {' '.join(words)}", done.took_s, note=_memory(done))
        collected = _command(world, "gc", "--older-than", "24h")
        gone = _removed(collected.said)
        note = f"{gone:,} removed: {_note(collected, gone)}"
        yield Measured("cafs gc of half", collected.took_s, removed, note=note)
        yield self._look(world.store, "half")
        shutil.rmtree(world.store)
        loose = min(_LOOSE, blobs)
        unsynced = _step("take-unsynced", self._site.scratch / "loose", loose)
        same = taken.took_s * loose / blobs
        yield Measured(f"{loose:,} blobs, never synced", unsynced.took_s, same)
        shutil.rmtree(self._site.scratch / "loose")

    def _look(self, store: Path, which: str) -> Measured:
        looked = _step(f"stat-{which}", store, self._blobs)
        note = f"{1e6 * looked.took_s / _LOOKS:.1f} us each, {_memory(looked)}"
        return Measured(f"stat of {_LOOKS:,} of {which}", looked.took_s, note=note)


def _note(step: Step, count: int) -> str:
    text = f"{count / step.took_s:,.0f} a second"
    if step.paces is not None:
        text += ", the first tenth {:,.0f}, the last {:,.0f}".format(*step.paces)
    return f"{text}; {_memory(step)}"


def _memory(step: Step) -> str:
    return f"{step.anonymous / (1 << 20):.0f} MiB anonymous memory at most"


def _removed(said: str) -> int:
    """How many blobs ``cafs gc`` says that it has removed."""
    [count] = [line.split()[0] for line in said.splitlines() if line.split()[1:2] == ["blob"]]
    return int(count)


def _files(folder: Path, sample: int, blobs: int) -> tuple[float, float]:
    """Seconds for as many files that are written, synced and renamed, and to remove half of them.

    One after the other.
    """
    folder.mkdir()
    made: list[Path] = []
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
        made.append(target)
    written = time.perf_counter()
    for path in made[: sample // 2]:
        path.unlink()
    removed = time.perf_counter()
    shutil.rmtree(folder)
    return (written - began) * blobs / sample, (removed - written) * blobs / sample


def _content(number: int) -> bytes:
    return b"content of blob %d\n" % number


def _step(verb: str, store: Path, blobs: int) -> Step:
    command = [sys.executable, "-m", "cafs.testing.hoarding", verb, str(store), str(blobs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    step = _watched(process)
    told = msgspec.json.decode(step.said, type=_Told)
    return Step(told.took_s, step.anonymous, told.paces)


def _command(world: Cafs, *words: str) -> Step:
    return _watched(world.popen(*words))


def _watched(process: "subprocess.Popen[str]") -> Step:
    """Wait for a process, and look at its memory and that of its children meanwhile.

    Raises:
        RuntimeError: it failed.
    """
    began, most, ended = time.perf_counter(), 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not ended.wait(_LOOK_S):
            most = max([most, *map(anonymous, _family(process.pid))])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        said, complained = process.communicate()
    finally:
        ended.set()
        looking.join()
    if process.returncode:
        raise RuntimeError(f"{process.args!r}: exit {process.returncode}\n{complained}")
    return Step(time.perf_counter() - began, most, said=said)


def _family(pid: int) -> Iterator[int]:
    """A process and its children. Source: proc(5), /proc/pid/task/tid/children."""
    yield pid
    with suppress(OSError):  # it has ended
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                yield from _family(int(child))


async def _take(store: Store, blobs: int) -> tuple[float, float]:
    """Take them; how many a second in the first tenth, and in the last."""
    numbers, tenth = count(), max(1, blobs // 10)
    marks = {tenth: 0.0, blobs - tenth: 0.0}
    began = time.perf_counter()

    async def work() -> None:
        while (number := next(numbers)) < blobs:
            if number in marks:
                marks[number] = time.perf_counter()
            data = _content(number)
            digest = digest_of(data)
            if (
                await store.blobs.take(
                    raw_stream(digest), data, media_type="", claims=(digest,), name="blob"
                )
                is None
            ):
                raise RuntimeError(f"blob {number} could not be taken")
            if number == blobs // 2:
                time.time_ns = now_ns

    now_ns = time.time_ns
    time.time_ns = lambda: now_ns() - _DAYS_NS
    async with trio.open_nursery() as nursery:
        for _ in range(_AT_ONCE):
            nursery.start_soon(work)
    first, last = marks[tenth] - began, time.perf_counter() - marks[blobs - tenth]
    return tenth / first, tenth / last


async def _stat(store: Store, among: range) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret
    for _ in range(_LOOKS):
        digest = digest_of(_content(chance.choice(among)))
        if store.blobs.stat(digest) is None:
            raise RuntimeError(f"{digest} is not there")
        await trio.lowlevel.checkpoint()


def _leave_it(_: int) -> None:
    """What becomes of syncing where its cost is to be known."""


async def _run(verb: str, path: Path, blobs: int) -> _Told:
    if verb == "take-unsynced":
        os.fsync = os.fdatasync = _leave_it  # type: ignore[assignment]
    async with open_store(path) as store:
        began, paces = time.perf_counter(), None
        if verb == "stat-all":
            await _stat(store, range(blobs))
        elif verb == "stat-half":
            await _stat(store, range(blobs // 2 + _LATE, blobs))
        else:
            paces = await _take(store, blobs)
        return _Told(time.perf_counter() - began, paces)


def main() -> None:
    """Do one step, and tell of it on standard output."""
    verb, store, blobs = sys.argv[1:]
    told = trio.run(partial(_run, verb, Path(store), int(blobs)))
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    main()
