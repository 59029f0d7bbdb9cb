"""Reads under disturbance for as long as you like: ``scripts/soak [kill|stop|...|crowd|evicting]``.

First those in which the worker is disturbed:

16 threads read files and blocks at random out of a tree of 20,000 files and a blob of 1 GiB, and
compare every byte, while the mount's caches are dropped every second (as root) and:

- kill, stop, reload: every 2 s the worker is killed, stopped or reloaded.
- hang: the worker hangs, again as soon as another one serves.
- quiet: nothing else happens.
- memory: a million questions that no cache answers, instead of reads.

Then the source: silence: it says nothing for 20 s in the middle of a read of the blob, with each
``on-error``; the deadline is half as long. That has a mount and a store of its own each time.

Then the store: crowd: eight processes read, prefetch, collect, verify, remove and are killed on a
store that may hold a tenth of what they use. And evicting: processes read what others let go of.

By name only: image: every file of a Debian root file system, as an image in three forms, is read in
random order by eight readers and compared with what tar unpacks (``--image-dir``, as of the bench).

Prints what it came to. Exit code 1 when a call failed, a byte was wrong, or the keeper grew.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from cafs.testing.command import Cafs, start_programs_by_fork
from cafs.testing.crowd import crowd
from cafs.testing.debian import LackingError
from cafs.testing.evicting import evict_beside_readers
from cafs.testing.loading import Reader, compiled
from cafs.testing.origin import running_origin
from cafs.testing.sameness import compare_forms
from cafs.testing.silence import fall_silent
from cafs.testing.soaking import (
    DISTURBANCES,
    KEEPER_LINES,
    Ground,
    Outcome,
    Scene,
    mounted,
    plant_hang,
)

_SCENARIOS: Final = ("quiet", *DISTURBANCES, "memory")
_SILENCE: Final = "silence"
_CROWD: Final = "crowd"
_EVICTING: Final = "evicting"
_IMAGE: Final = "image"
_READERS: Final = 8
_KEEPER_LIMIT: Final = 4 << 20
_FLAT: Final = 256 << 10
"""Bytes by which the keeper's memory may differ: the pages of its stack and of the C library."""


def _nothing(scene: Scene) -> None:
    """Leave the worker alone."""


def _soak(scene: Scene, name: str, seconds: float, threads: int) -> bool:
    """Read while the scenario's disturbance happens; whether nothing was wrong."""
    disturb: Callable[[Scene], None] = DISTURBANCES.get(name, _nothing)
    outcome = scene.disturbed(disturb, seconds=seconds, threads=threads)
    _say(_told(name, outcome))
    figures = outcome.figures
    return not figures.errors and not figures.wrong and _slim(*outcome.memory)


def _told(name: str, outcome: Outcome) -> str:
    figures, resent = outcome.figures, outcome.after.resent - outcome.before.resent
    before, after = (size >> 10 for size in outcome.memory)
    told = f"""\
{name}: {figures.operations} reads in {figures.took_s:.1f} s: {figures.files} files, \
{figures.blocks} blocks, {figures.lists} listings, {figures.bytes >> 20} MiB
  {outcome.relayed} requests crossed the keeper, {resent} were sent again, \
{outcome.workers} workers started
  longest wait {figures.longest_s:.3f} s ({figures.longest_of}), {figures.over_100ms} above 0.1 s, \
{figures.over_1s} above 1 s
  {figures.errors} errors, {figures.wrong} wrong  {figures.trouble}
  keeper: {before} KiB before, {after} KiB after"""
    if outcome.took_s and name in {"reload", "hang"}:
        longest, usual = max(outcome.took_s), median(outcome.took_s)
        told += f"\n  until another served: median {usual:.2f} s, longest {longest:.2f} s"
    return told


def _ask(scene: Scene, requests: int) -> bool:
    """Ask, half of it the worker and half of it the keeper; whether its memory stayed flat."""
    reader = compiled("reader", scene.ground.scratch)
    sizes, before = [], scene.keeper.status()
    for _ in range(4):
        with Reader(reader, "ask", scene.mount.path, requests // 8) as asking:
            _, said = asking.process.communicate()
        if asking.process.returncode:
            raise RuntimeError(said.decode())
        sizes.append(scene.keeper.memory())
    after = scene.keeper.status()
    _say(
        f"memory: {after.relayed - before.relayed} requests crossed the keeper, "
        f"{after.answered - before.answered} it answered"
    )
    _say(f"  keeper after each quarter: {', '.join(str(size >> 10) for size in sizes)} KiB")
    return _slim(sizes[0], max(sizes))


def _fall_silent(blob: int, silent_s: float) -> bool:
    """Let the source be silent, for readers that wait and for others; whether all went well."""
    well = True
    for on_error in ("wait", "fail"):
        with tempfile.TemporaryDirectory(prefix="cafs-soak.") as place, running_origin() as origin:
            cafs = Cafs(Path(place) / "world")
            outcome = fall_silent(
                cafs,
                origin,
                on_error=on_error,
                blob=blob,
                silent_s=silent_s,
                deadline_s=silent_s / 2,
            )
        _say(str(outcome))
        well &= outcome.well
    return well


def _crowd(contents: int, seconds: float) -> bool:
    """Let many work on one small store; whether all went well."""
    with tempfile.TemporaryDirectory(prefix="cafs-soak.") as place, running_origin() as origin:
        outcome = crowd(Cafs(Path(place) / "world"), origin, contents=contents, seconds=seconds)
    _say(str(outcome))
    return outcome.well


def _evict(seconds: float) -> bool:
    """Let processes read what others let go of; whether every byte was right."""
    with tempfile.TemporaryDirectory(prefix="cafs-soak.") as place:
        outcome = evict_beside_readers(Path(place) / "store", seconds=seconds)
    _say(str(outcome))
    return outcome.well


def _same(directory: Path | None) -> bool:
    """Compare an image in all its forms with what it is made of; whether nothing differs."""
    well = True
    with tempfile.TemporaryDirectory(prefix="cafs-soak.") as place:
        for outcome in compare_forms(directory or Path(place), readers=_READERS):
            _say(str(outcome))
            well &= outcome.well
    return well


def _slim(before: int, after: int) -> bool:
    return after < _KEEPER_LIMIT and after - before <= _FLAT


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run scenarios, each on a mount of its own of one store."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.split("\n")[0])
    parser.add_argument(
        "scenario",
        nargs="?",
        default="all",
        choices=("all", *_SCENARIOS, _SILENCE, _CROWD, _EVICTING, _IMAGE),
    )
    parser.add_argument("--seconds", type=float, default=60, help="of each scenario (60)")
    parser.add_argument("--threads", type=int, default=16, help="readers (16)")
    parser.add_argument("--files", type=int, default=20_000, help="in the tree (20000)")
    parser.add_argument("--blob", type=int, default=1 << 30, help="bytes of the blob (1 GiB)")
    parser.add_argument("--cold", action="store_true", help="the blob is fetched meanwhile")
    parser.add_argument("--silent", type=float, default=20, help="seconds of silence (20)")
    parser.add_argument("--contents", type=int, default=200, help="files of crowd (200)")
    parser.add_argument("--requests", type=int, default=1_000_000, help="of memory (1000000)")
    parser.add_argument("--image-dir", type=Path, help="where image keeps what it has made")
    given = parser.parse_args()
    start_programs_by_fork()
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    _say(f"{platform.platform()}, {os.cpu_count()} processors, load average {load}")
    if given.scenario == _IMAGE:
        try:
            return 0 if _same(given.image_dir) else 1
        except LackingError as error:
            _say(f"scripts/soak image: {error}")
            return 1
    well = given.scenario not in {_SILENCE, "all"} or _fall_silent(given.blob, given.silent)
    well &= given.scenario not in {_CROWD, "all"} or _crowd(given.contents, given.seconds)
    well &= given.scenario not in {_EVICTING, "all"} or _evict(given.seconds)
    if given.scenario in {_SILENCE, _CROWD, _EVICTING}:
        return 0 if well else 1
    with tempfile.TemporaryDirectory(prefix="cafs-soak.") as place, running_origin() as origin:
        scratch = Path(place)
        ground = Ground.make(scratch, origin, files=given.files, blob=given.blob)
        cafs = Cafs(scratch / "world")
        cafs.expect_log(KEEPER_LINES)
        plant_hang(cafs, scratch / "planted")
        for name in _SCENARIOS if given.scenario == "all" else (given.scenario,):
            if given.cold and cafs.store.exists():
                shutil.rmtree(cafs.store)
            with mounted(cafs, ground, local=not given.cold) as scene:
                if name == "memory":
                    well &= _ask(scene, given.requests)
                else:
                    well &= _soak(scene, name, given.seconds, given.threads)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
