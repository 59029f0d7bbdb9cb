"""Measures the goals, as ratios on one machine in one run: ``scripts/bench [warm|cold|help|all]``.

- warm: stat, open+read+close, ``find`` and ``grep -r`` over a tree of 20,000 files, through the
  mount and on the disk's own file system, both with warm kernel caches.
- cold: from an empty store, the first byte, a file, a whole blob, a whole archive; seconds beside
  those of curl and tar, and bytes and requests as the origin counted them.
- help: ``cafs --help`` beside a bare Python.

Prints a table, and writes JSON with the commit and the machine.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cafs import __version__
from cafs.testing import archives
from cafs.testing.archives import Compression
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, start_programs_by_fork
from cafs.testing.faults import Latency, Rate
from cafs.testing.measuring import Measured, alternating, output, seconds, table
from cafs.testing.origin import Origin, running_origin

_FILES: Final = 20_000
_BLOB: Final = 256 << 20
_WALKS: Final = {
    "find": ("find", "-size", "+1"),
    "grep -r": ("grep", "-rc", "needle"),
}
_PROBE: Final = Path(__file__).with_name("probe.c")


@dataclass(frozen=True, slots=True)
class Errand:
    """Something to do with a ref from an empty store, and what curl does instead.

    ``run`` gets the ref's place in the mount and gives the seconds that it took; ``reference`` is
    arguments for curl, or the tar that it is piped into; ``needed`` is bytes, None when no
    number would be fair.
    """

    name: str
    ref: str
    url: str
    run: Callable[[Path], float]
    reference: tuple[str, ...]
    needed: int | None


class Bench:
    """The scenarios, in one scratch directory and with one origin.

    Concurrency: one thread.
    """

    def __init__(self, scratch: Path, origin: Origin, rounds: int) -> None:
        self._scratch = scratch
        self._origin = origin
        self._rounds = rounds

    def warm(self) -> Iterator[Measured]:
        """Everything is in the kernel's caches on both sides."""
        archive = self._tree()
        native = self._scratch / "native"
        native.mkdir()
        seconds(["tar", "xzf", str(archive), "-C", str(native)])
        probe = self._scratch / "probe"
        seconds(["cc", "-O2", "-o", str(probe), str(_PROBE)])
        with self._world().mount(self._toml("tree", self._origin.url("/tree.tar.gz"))) as mount:
            roots = (mount.ref("tree"), native)
            lists = tuple(self._list(root, native) for root in roots)
            for verb in ("stat", "read"):
                _probe([(probe, verb, lists[0])], 0)
            for command in _WALKS.values():
                _walk(command, roots, 0)
            before = mount.status()["requests"]
            for verb in ("stat", "read"):
                yield self._pair(verb, partial(_probe, [(probe, verb, one) for one in lists]))
            for name, command in _WALKS.items():
                yield self._pair(name, partial(_walk, command, roots))
            after = mount.status()["requests"]
            asked = {name: after[name] - before.get(name, 0) for name in after}
            yield Measured(
                "requests that reached the worker",
                note=", ".join(f"{name} {count}" for name, count in asked.items() if count) or "0",
            )

    def cold(self) -> Iterator[Measured]:
        """Each from an empty store."""
        archive = self._tree()
        self._origin.put("/blob", Generated(_BLOB))
        blob, tree = self._origin.url("/blob"), self._origin.url("/tree.tar.gz")
        some = "tree/000/007/077.c"
        first = ("-r", "0-0")
        yield self._against(Errand("first byte of 256 MiB", "data", blob, _head, first, None))
        yield self._against(Errand("256 MiB, whole", "data", blob, _whole, (), _BLOB))
        size = archive.stat().st_size
        one = ("tar", "-xzO", some)
        yield self._against(
            Errand(
                "one of 20,000 files", "tree", tree, lambda place: _whole(place / some), one, size
            )
        )
        everything = ("tar", "-xz")
        yield self._against(Errand("all of 20,000 files", "tree", tree, _copy, everything, size))

    def usage(self) -> Iterator[Measured]:
        """How long ``--help`` takes."""
        commands = (["-m", "cafs", "--help"], ["-c", "pass"])
        yield self._pair("cafs --help", lambda side: seconds([sys.executable, *commands[side]]))

    def _pair(self, name: str, run: Callable[[int], float]) -> Measured:
        ours, theirs = alternating(run, self._rounds)
        return Measured(name, ours, theirs)

    def _against(self, errand: "Errand") -> Measured:
        """Our time from an empty store beside that of curl, and what the origin sent us."""
        costs: list[tuple[int, int]] = []

        def once(side: int) -> float:
            if side:
                return self._curl(errand.url, errand.reference)
            self._origin.forget()
            with self._world().mount(self._toml(errand.ref, errand.url)) as mount:
                spent = errand.run(mount.ref(errand.ref))
                self._origin.settle()
                costs.append((self._origin.bytes_sent(), len(self._origin.requests)))
            return spent

        ours, theirs = alternating(once, self._rounds)
        sent, requests = costs[-1]
        return Measured(
            errand.name, ours, theirs, sent=sent, needed=errand.needed, requests=requests
        )

    def _curl(self, url: str, arguments: Sequence[str]) -> float:
        """Curl with these arguments, or piped into the command that they are."""
        if "tar" not in arguments:
            return seconds(["curl", "-sfo", "/dev/null", *arguments, url])
        with tempfile.TemporaryDirectory(dir=self._scratch) as out:
            pipe = f'curl -sf "$0" | {" ".join(arguments)} >/dev/null'
            return seconds(["sh", "-c", pipe, url], Path(out))

    def _world(self) -> Cafs:
        """A world with an empty store; the one before is thrown away."""
        place = self._scratch / "world"
        if place.exists():
            shutil.rmtree(place)
        return Cafs(place)

    def _toml(self, name: str, url: str) -> str:
        return f'[ref.{name}]\nfrom = "{url}"\n'

    def _tree(self) -> Path:
        path = self._scratch / "tree.tar.gz"
        if not path.exists():
            archives.write_tar(path, archives.small_files(_FILES), Compression.GZIP)
            self._origin.put("/tree.tar.gz", path)
        return path

    def _list(self, root: Path, like: Path) -> Path:
        """The paths of the files below ``root``, in the order in which ``like`` has them."""
        listed = self._scratch / f"list-{root.name}"
        found = sorted(path for path in like.rglob("*") if path.is_file())
        listed.write_text("".join(f"{root / path.relative_to(like)}\n" for path in found))
        return listed


def _probe(passes: Sequence[tuple[Path, str, Path]], side: int) -> float:
    return int(output(list(map(str, passes[side])))) / 1e9


def _walk(command: Sequence[str], roots: Sequence[Path], side: int) -> float:
    return seconds(command, roots[side])


def _head(path: Path) -> float:
    return seconds(["head", "-c", "1", str(path)])


def _whole(path: Path) -> float:
    return seconds(["cat", str(path)])


def _copy(path: Path) -> float:
    # To a pipe: GNU tar does not read what it writes to /dev/null.
    return seconds(["sh", "-c", 'tar -cf - -C "$0" . | cat >/dev/null', str(path)])


def _circumstances() -> dict[str, str | int]:
    return {
        "cafs": __version__,
        "commit": output(["git", "describe", "--always", "--dirty"]).strip(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count() or 0,
    }


def main() -> None:
    """Run scenarios and report them."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n")[0])
    parser.add_argument(
        "scenario", nargs="?", default="all", choices=("warm", "cold", "help", "all")
    )
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many (5)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, help="bytes/s that the origin sends, in all")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    given = parser.parse_args()
    start_programs_by_fork()
    with tempfile.TemporaryDirectory(prefix="cafs-bench.") as scratch, running_origin() as origin:
        if given.latency:
            origin.fault("/*", Latency(given.latency))
        if given.rate:
            origin.fault("/*", Rate(given.rate, shared=True))
        bench = Bench(Path(scratch), origin, given.rounds)
        scenarios = {"warm": bench.warm, "cold": bench.cold, "help": bench.usage}
        wanted = (
            scenarios if given.scenario == "all" else {given.scenario: scenarios[given.scenario]}
        )
        found: dict[str, list[Measured]] = {}
        for name, scenario in wanted.items():
            found[name] = list(scenario())
            sys.stdout.write(table(name, found[name]))
            sys.stdout.flush()
    settings = {"rounds": given.rounds, "latency_s": given.latency, "rate": given.rate}
    results = {name: [asdict(one) for one in measured] for name, measured in found.items()}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": _circumstances(), "settings": settings, "results": results}
    given.json.write_text(json.dumps(document, indent=2))
    sys.stdout.write(f"written to {given.json}\n")


if __name__ == "__main__":
    main()
