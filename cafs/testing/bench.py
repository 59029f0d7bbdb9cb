"""Measures the goals, as ratios on one machine in one run: ``scripts/bench [SCENARIO]``.

- warm: stat, open+read+close, ``find``, ``ls -lR`` and ``grep -r`` over a tree of 20,000 files, and
  ``cat`` through symlinks, beside the disk's own file system and a mount without a keeper, all with
  warm kernel caches; and who was asked meanwhile.
- cold: from an empty store, the first byte, a file, a whole blob, a whole archive; seconds beside
  those of curl and tar, and bytes and requests as the origin counted them; the blob without a
  keeper too.
- network: whole files over lines of 1 Gbit/s and 1 ms, and 100 Mbit/s and 30 ms, beside curl; four
  at once; many small files prefetched over 30 ms, beside one at a time. ``--blob`` is 1024 here.
- blobs: a million small blobs taken, looked at, and let go of; beside as many files. ``--blobs``
  says how many.
- restart: until a mount is ready, until it answers after its worker was killed, and a reload;
  beside a bare Python.
- help: ``cafs --help`` beside a bare Python.
- entries: an archive of a million files is mounted by its index, and listed; ``--entries`` says how
  many.
- image: hello.c compiled by the gcc of an image with a Debian root file system, in three forms,
  each mounted from an empty store, beside skopeo and tar; ``--image-dir`` says where the image is,
  or is to be made. It takes root, debootstrap, and programs of containers.

The last two are not among ``all``.

Prints a table, and writes JSON with the commit and the machine.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from cafs import __version__
from cafs.testing.benching import Site
from cafs.testing.command import start_programs_by_fork
from cafs.testing.cooling import Cold
from cafs.testing.debian import LackingError
from cafs.testing.faults import Latency, Rate
from cafs.testing.hoarding import Hoard
from cafs.testing.imaging import ImageBench
from cafs.testing.measuring import Measured, alternating, output, seconds, table
from cafs.testing.multitude import Multitude
from cafs.testing.networking import Network
from cafs.testing.origin import running_origin
from cafs.testing.restarting import Restart
from cafs.testing.warming import Warm

_SCENARIOS: Final = ("warm", "cold", "network", "blobs", "restart", "help")
_ALONE: Final = ("entries", "image")
"""Scenarios that are run when they are named."""
_MIB: Final = 1 << 20


def _usage(rounds: int) -> Iterator[Measured]:
    """How long ``--help`` takes."""
    commands = (["-m", "cafs", "--help"], ["-c", "pass"])
    ours, bare = alternating(lambda side: seconds([sys.executable, *commands[side]]), rounds)
    yield Measured("cafs --help", ours, bare)


def _circumstances() -> dict[str, str | int]:
    return {
        "cafs": __version__,
        "commit": output(["git", "describe", "--always", "--dirty"]).strip(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count() or 0,
    }


def _scenarios(
    site: Site, given: argparse.Namespace
) -> dict[str, Callable[[], Iterator[Measured]]]:
    return {
        "warm": Warm(site, given.rounds).measure,
        "cold": Cold(site, given.rounds, (given.blob or 256) * _MIB).measure,
        "network": Network(site, given.rounds, (given.blob or 1024) * _MIB, given.files).measure,
        "blobs": Hoard(site, given.blobs).measure,
        "restart": Restart(site, given.rounds).measure,
        "help": lambda: _usage(given.rounds),
        "entries": Multitude(site, given.entries).measure,
        "image": ImageBench(site, given.rounds, given.image_dir or site.scratch / "image").measure,
    }


def main() -> None:
    """Run scenarios and report them."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n")[0])
    parser.add_argument("scenario", nargs="?", default="all", choices=(*_SCENARIOS, *_ALONE, "all"))
    parser.add_argument("--rounds", type=int, default=5, help="medians are of so many (5)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--rate", type=float, help="bytes/s that the origin sends, in all")
    parser.add_argument("--blob", type=int, help="MiB of the large file (256, network: 1024)")
    parser.add_argument("--files", type=int, default=5000, help="small files of network (5000)")
    parser.add_argument("--blobs", type=int, default=1_000_000, help="of blobs (1000000)")
    parser.add_argument("--entries", type=int, default=1_000_000, help="of entries (1000000)")
    parser.add_argument("--image-dir", type=Path, help="where image keeps what it has made")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    given = parser.parse_args()
    start_programs_by_fork()
    with tempfile.TemporaryDirectory(prefix="cafs-bench.") as scratch, running_origin() as origin:
        if given.latency:
            origin.fault("/*", Latency(given.latency))
        if given.rate:
            origin.fault("/*", Rate(given.rate, shared=True))
        scenarios = _scenarios(Site(Path(scratch), origin), given)
        wanted = _SCENARIOS if given.scenario == "all" else (given.scenario,)
        found: dict[str, list[Measured]] = {}
        for name in wanted:
            try:
                found[name] = list(scenarios[name]())
            except LackingError as error:
                sys.exit(f"scripts/bench {name}: {error}")
            sys.stdout.write(table(name, found[name]))
            sys.stdout.flush()
    settings = {
        "rounds": given.rounds,
        "latency_s": given.latency,
        "rate": given.rate,
        "blob_mib": given.blob,
        "files": given.files,
        "blobs": given.blobs,
    }
    results = {name: [asdict(one) for one in measured] for name, measured in found.items()}
    given.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": _circumstances(), "settings": settings, "results": results}
    given.json.write_text(json.dumps(document, indent=2))
    sys.stdout.write(f"written to {given.json}\n")


if __name__ == "__main__":
    main()
