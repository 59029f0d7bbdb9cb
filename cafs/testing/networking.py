"""The network scenario of ``scripts/bench``: sources that are far away, or slow, from empty stores.

What the origin limits is what a line does: bytes a second of all connections together, and time
before each answer. Connections are made at once. Small files come from nginx over a line in C
(``line.c``): an origin in Python would take as much of the processors as what is measured.
"""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from cafs.testing.benching import Site, toml
from cafs.testing.bodies import Generated
from cafs.testing.daemons import find_program, running_nginx
from cafs.testing.faults import Latency, Rate
from cafs.testing.loading import compiled
from cafs.testing.measuring import Measured, in_turn, seconds

_MIB: Final = 1 << 20
_GIGABIT: Final = 125e6
_SMALL: Final = 3000
"""Bytes of a small file, on average."""
_SAMPLE: Final = 100
"""Small files that are fetched one at a time; the time of all is in proportion."""
_READERS: Final = 4
_POLL_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Line:
    """What the way to a source is like."""

    name: str
    rate: float
    latency_s: float


FAST: Final = Line("1 Gbit/s, 1 ms", _GIGABIT, 0.001)
SLOW: Final = Line("100 Mbit/s, 30 ms", _GIGABIT / 10, 0.03)


class Network:
    """The scenario.

    Args:
        site: where it works.
        rounds: medians are of so many.
        blob: bytes of the large file; that over the slow line is an eighth of it.
        files: how many small files are prefetched.

    Concurrency: one thread.
    """

    def __init__(self, site: Site, rounds: int, blob: int, files: int) -> None:
        self._site = site
        self._rounds = rounds
        self._blob = blob
        self._files = files

    def measure(self) -> Iterator[Measured]:
        """Read whole files over both lines, four at once, and prefetch many small ones."""
        yield self._whole(FAST, self._blob)
        yield self._whole(SLOW, self._blob // 8)
        yield self._side_by_side(FAST, self._blob // 8)
        yield from self._many()

    def _put(self, path: str, line: Line, size: int, seed: int = 0) -> str:
        origin = self._site.origin
        origin.heal(path)
        origin.fault(path, Latency(line.latency_s), Rate(line.rate, shared=True))
        return origin.put(path, Generated(size, seed=seed))

    def _whole(self, line: Line, size: int) -> Measured:
        """A file from end to end, by ``cat`` and by ``curl``."""
        origin, url = self._site.origin, self._put("/whole", line, size)
        costs = (0, 0)

        def run(side: int) -> float:
            nonlocal costs
            if side:
                return seconds(["curl", "-sfo", "/dev/null", url])
            origin.forget()
            with self._site.mount("data", url) as mount:
                spent = seconds(["cat", str(mount.ref("data"))])
                origin.settle()
                costs = (origin.bytes_sent(), len(origin.requests))
            return spent

        ours, reference = in_turn(run, self._rounds)
        return Measured(
            f"{size // _MIB} MiB, {line.name}",
            ours,
            reference,
            sent=costs[0],
            needed=size,
            requests=costs[1],
            note=f"{reference / ours:.3f} x the rate of curl",
        )

    def _side_by_side(self, line: Line, size: int) -> Measured:
        """Several files, each read by one reader, all at once; and how evenly they end."""
        names = [f"side{number}" for number in range(_READERS)]
        urls = [self._put(f"/{name}", line, size, seed) for seed, name in enumerate(names)]
        spreads: list[float] = []

        def run(side: int) -> float:
            if side:
                return _all_at_once([["curl", "-sfo", "/dev/null", url] for url in urls])[-1]
            project = "".join(map(toml, names, urls))
            with self._site.world().mount(project) as mount:
                ends = _all_at_once([["cat", str(mount.ref(name))] for name in names])
            spreads.append(ends[-1] / ends[0])
            return ends[-1]

        ours, reference = in_turn(run, self._rounds)
        return Measured(
            f"{_READERS} x {size // _MIB} MiB at once, {line.name}",
            ours,
            reference,
            note=f"the last ends {median(spreads):.2f} times as late as the first",
        )

    def _many(self) -> Iterator[Measured]:
        """Small files 30 ms away: prefetched; read one at a time; by curl over one connection."""
        with self._far_away() as base:
            yield from self._many_at([f"{base}/{number}" for number in range(self._files)])

    @contextmanager
    def _far_away(self) -> Iterator[str]:
        """Small files, 0, 1, and so on, at the end of a long line; their URL but for the number."""
        scratch = self._site.scratch
        with running_nginx(scratch / "nginx", find_program("nginx") or "nginx") as nginx:
            many = nginx.files / "many"
            many.mkdir()
            for number in range(self._files):
                body = Generated(_SMALL - 500 + number % 1000, seed=number)
                (many / str(number)).write_bytes(body.read(0, body.size))
            delay_us = int(1e6 * SLOW.latency_s)
            command = [str(compiled("line", scratch)), str(nginx.port), str(delay_us)]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as line:
                if line.stdout is None:
                    raise AssertionError("a pipe was asked for")
                yield f"http://127.0.0.1:{line.stdout.readline().strip()}/many"
                line.communicate()

    def _many_at(self, urls: Sequence[str]) -> Iterator[Measured]:
        project = "".join(toml(f"f{number}", url) for number, url in enumerate(urls))
        sample = min(_SAMPLE, self._files)
        scale = self._files / sample
        listing = self._site.scratch / "urls"
        listing.write_text("".join(f'url = "{url}"\noutput = /dev/null\n' for url in urls[:sample]))

        def run(side: int) -> float:
            if side == 0:
                return self._prefetched(project)
            if side == 1:
                return scale * self._read_in_turn(project, sample)
            return scale * seconds(["curl", "-sfK", str(listing)])

        ours, reading, curl = in_turn(run, self._rounds, 3)
        what = f"{self._files:,} files, 30 ms"
        yield Measured(f"{what}; to cat", ours, reading, note=f"{reading / ours:.1f} times as fast")
        yield Measured(f"{what}; to curl", ours, curl, note=f"{curl / ours:.1f} times as fast")

    def _prefetched(self, project: str) -> float:
        world = self._site.world()
        world.project(project)
        began = time.perf_counter()
        world.run("prefetch", "-q", timeout_s=3600.0)
        return time.perf_counter() - began

    def _read_in_turn(self, project: str, count: int) -> float:
        with self._site.world().mount(project) as mount:
            paths: list[Path] = [mount.ref(f"f{number}") for number in range(count)]
            return seconds(["cat", *map(str, paths)])


def _all_at_once(commands: Sequence[Sequence[str]]) -> list[float]:
    """Run commands side by side; after how many seconds each ended, the first first.

    Raises:
        subprocess.CalledProcessError: one failed.
    """
    began = time.perf_counter()
    left = {
        process.pid: process
        for process in [subprocess.Popen(each, stdout=subprocess.DEVNULL) for each in commands]
    }
    ends: list[float] = []
    while left:
        for pid, process in list(left.items()):
            if process.poll() is not None:
                ends.append(time.perf_counter() - began)
                del left[pid]
                if process.returncode:
                    raise subprocess.CalledProcessError(process.returncode, process.args)
        time.sleep(_POLL_S)
    return ends
