"""Eight processes on one store that is much too small for them: ``scripts/soak crowd``.

Two mounts are read at random, two loops prefetch, one collects garbage, one verifies, one pins,
measures and removes, and one kills prefetches half way. The data is ten times what the store may
hold. Every byte that is read is compared; what lies on the disk is measured all the time: it may be
above the quota only by what is being read and prefetched at that time. At the end what was pinned
is there, and the whole store is verified.
"""

import os
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from typing_extensions import override

from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.faults import Latency, Rate
from cafs.testing.origin import Origin

_MIB: Final = 1 << 20
_SIZES: Final = (3_000, 40_000, 300_000, _MIB, 6 * _MIB)
"""Bytes of the contents, in turn."""
_TENTH: Final = 10
_READERS: Final = 3
"""Threads that read through each mount."""
_PINNED: Final = ("c0", "c1", "c2")
_BLOCK: Final = 512
_LOOK_S: Final = 0.1
_LATELY: Final = 10
"""Looks within which what was in flight may still lie there: room is made a moment later."""
_TAKEN: Final = 5
"""Contents that one prefetch fetches."""
_HARMLESS: Final = frozenset({0, 7})
"""Exit codes of commands beside others: all well; no room."""


@dataclass(slots=True)
class Crowd:
    """What eight processes came to. Sizes are bytes."""

    quota: int
    data: int
    reads: int = 0
    read_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    most: int = 0
    in_flight: int = 0
    looks: int = 0
    above: int = 0
    over: int = 0
    kept: bool = False
    verified: bool = False

    @property
    def well(self) -> bool:
        """Whether all is as it was promised."""
        right = self.verified and self.kept and not self.wrong and not self.failed
        return right and not self.over and self.reads > 0

    @override
    def __str__(self) -> str:
        commands = ", ".join(f"{count} {name}" for name, count in sorted(self.commands.items()))
        failed = "; ".join(f"{count} x {what}" for what, count in self.failed.most_common(8))
        return (
            f"crowd: {self.data // _MIB} MiB of data, quota {self.quota // _MIB} MiB\n"
            f"  {self.reads} reads, {self.read_bytes // _MIB} MiB; {commands}\n"
            f"  at most {self.most / _MIB:.1f} MiB on the disk, and {self.in_flight / _MIB:.1f} in "
            f"flight; above the quota in {self.above} of {self.looks} looks, by more than what was "
            f"in flight in {self.over}\n"
            f"  wrong: {'; '.join(self.wrong[:5]) or 'nothing'}\n"
            f"  failed: {failed or 'nothing'}; verified at the end: {self.verified}, "
            f"pinned still there: {self.kept}"
        )


class _Bustle:
    """The crowd at work.

    Concurrency: every worker is a thread, most of which wait for a process of their own.
    """

    def __init__(self, cafs: Cafs, bodies: dict[str, Generated], outcome: Crowd) -> None:
        self._cafs = cafs
        self._bodies = bodies
        self._outcome = outcome
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._asked = 0

    @contextmanager
    def _asking(self, names: Sequence[str]) -> Iterator[None]:
        """For as long as contents are in flight, as far as anybody here knows."""
        size = sum(self._bodies[name].size for name in names)
        with self._lock:
            self._asked += size
        try:
            yield
        finally:
            with self._lock:
                self._asked -= size

    def run(self, mounts: Sequence[Mount], seconds: float) -> None:
        """Let all work for so long."""
        works: list[Callable[[], None]] = [
            *(lambda mount=mount, seed=seed: self._read(mount, seed)
              for mount in mounts for seed in range(_READERS)),
            lambda: self._prefetch(1),
            lambda: self._prefetch(2),
            lambda: self._kill(3),
            lambda: self._repeat("gc", "--older-than", "0s"),
            lambda: self._repeat("verify", "--sample", "30"),
            lambda: self._tidy(4),
            self._measure,
        ]  # fmt: skip
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        self._over.set()
        for thread in threads:
            thread.join()

    def _read(self, mount: Mount, seed: int) -> None:
        chance = random.Random(f"{mount.path}{seed}")  # noqa: S311 - no secret
        names = sorted(self._bodies)
        while not self._over.is_set():
            name = chance.choice(names)
            body = self._bodies[name]
            offset = chance.randrange(body.size)
            length = chance.choice((4096, 100_000, body.size))
            try:
                with self._asking([name]), mount.ref(name).open("rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    found = os.pread(file.fileno(), length, offset)
            except OSError as error:
                self._fail(f"read: {error.strerror}")
                continue
            with self._lock:
                self._outcome.reads += 1
                self._outcome.read_bytes += len(found)
                if not found or found != body.read(offset, len(found)):
                    self._outcome.wrong.append(f"{name} at {offset}, {len(found)} bytes")

    def _prefetch(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while not self._over.is_set():
            names = chance.sample(sorted(self._bodies), _TAKEN)
            with self._asking(names):
                self._command("prefetch", "-q", *names)

    def _kill(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while not self._over.is_set():
            names = chance.sample(sorted(self._bodies), _TAKEN)
            with self._asking(names):
                process = self._cafs.popen("prefetch", "-q", *names)
                self._over.wait(chance.uniform(0.5, 2.0))
                process.send_signal(signal.SIGKILL)
                process.communicate()
            with self._lock:
                self._outcome.commands["killed"] += 1

    def _repeat(self, *words: str) -> None:
        while not self._over.is_set():
            self._command(*words)

    def _tidy(self, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311
        while not self._over.is_set():
            self._command("du")
            self._command("rm", "--force", chance.choice(sorted(set(self._bodies) - {*_PINNED})))

    def _command(self, *words: str) -> None:
        done = self._cafs.run(*words, check=False)
        if done.returncode not in _HARMLESS:
            line = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
            self._fail(f"{words[0]}: exit {done.returncode}: {line[:160]}")
        with self._lock:
            self._outcome.commands[words[0]] += 1

    def _measure(self) -> None:
        lately: deque[int] = deque(maxlen=_LATELY)
        while not self._over.wait(_LOOK_S):
            used, outcome = disk_usage(self._cafs.store), self._outcome
            with self._lock:
                lately.append(self._asked)
                outcome.looks += 1
                outcome.above += used > outcome.quota
                outcome.over += used > outcome.quota + max(lately)
                outcome.most = max(outcome.most, used)
                outcome.in_flight = max(outcome.in_flight, self._asked)

    def _fail(self, what: str) -> None:
        with self._lock:
            self._outcome.failed[what] += 1


def disk_usage(store: Path) -> int:
    """Bytes that content takes on the disk: blobs and streams, holes left out."""
    total = 0
    for kind in ("blobs", "streams"):
        for folder, _, names in os.walk(store / kind):
            for name in names:
                try:
                    total += (Path(folder) / name).stat().st_blocks * _BLOCK
                except FileNotFoundError:
                    continue  # it went meanwhile
    return total


def crowd(cafs: Cafs, origin: Origin, *, contents: int, seconds: float) -> Crowd:
    """Let eight processes work on one store for so many seconds."""
    bodies = {
        f"c{number}": Generated(_SIZES[number % len(_SIZES)] + number, seed=number)
        for number in range(contents)
    }
    data = sum(body.size for body in bodies.values())
    outcome = Crowd(quota=data // _TENTH, data=data)
    origin.fault("/crowd/*", Latency(0.01), Rate(200.0 * _MIB, shared=True))
    lines = ['[mount]\npath = "first"']
    for number, (name, body) in enumerate(bodies.items()):
        url = origin.put(f"/crowd/{name}", body)
        pin = f'integrity = "sha256:{body.sha256()}"\n' if number % 2 else ""
        lines.append(f'[ref.{name}]\nfrom = "{url}"\n{pin}')
    config = Path(cafs.environment["XDG_CONFIG_HOME"]) / "cafs"
    config.mkdir()
    (config / "config.toml").write_text(f'[store]\nquota = "{outcome.quota}"\n')
    cafs.expect_log("store|fetch|prefetch")
    with cafs.mount("\n".join(lines)) as first, cafs.mount(None, "second") as second:
        cafs.run("prefetch", "-q", *_PINNED)
        cafs.run("pin", *_PINNED)
        _Bustle(cafs, bodies, outcome).run((first, second), seconds)
    lines = cafs.run("du", "--json", *_PINNED).stdout.splitlines()
    told = [msgspec.json.decode(line) for line in lines]
    outcome.kept = all(
        any(one.get("name") == name and one["bytes"] >= bodies[name].size for one in told)
        for name in _PINNED
    )
    outcome.verified = cafs.run("verify", check=False).returncode == 0
    return outcome
