"""The warm scenario of ``scripts/bench``: everything is in the kernel's caches.

A tree of 20,000 files, with a symlink to each, is read through the mount, on the disk's own file
system, and through a mount without a keeper, in turn. Each pass is run twice, and the second one is
measured. All start inside of the tree: a walk that starts at the mount's root has the names ``ref``
and ``ref/NAME`` looked up again each second, since these may change.
"""

import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from typing_extensions import override

from cafs.control import keeper
from cafs.testing.benching import KEEPERLESS, Site
from cafs.testing.command import Mount
from cafs.testing.loading import compiled
from cafs.testing.measuring import Measured, in_turn, seconds

_AGAIN: Final = 20
"""How many passes of one measure are run again at most."""
_OURS: Final = 0
_CATS: Final = 'for link; do cat "$link"; done'


@dataclass(frozen=True, slots=True)
class _Pass:
    """A command in a directory of the tree; ``times_itself``: it prints nanoseconds."""

    name: str
    command: tuple[str, ...]
    directory: str
    times_itself: bool = False

    def run(self, top: Path) -> float:
        """Run it; the seconds that it took."""
        started = time.perf_counter()
        # What it prints is read, since grep(1) stops early when nobody does.
        done = subprocess.run(
            self.command, cwd=top / self.directory, check=True, stdout=subprocess.PIPE
        )
        took_s = time.perf_counter() - started
        return int(done.stdout) / 1e9 if self.times_itself else took_s


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who was asked during passes.

    ``answered`` is what the keeper answered by itself, ``relayed`` what it passed on, ``worker``
    what the worker says that came to it.
    """

    relayed: int = 0
    answered: int = 0
    worker: int = 0

    def __add__(self, other: "_Asked") -> "_Asked":
        return _Asked(
            self.relayed + other.relayed,
            self.answered + other.answered,
            self.worker + other.worker,
        )

    @override
    def __str__(self) -> str:
        return f"relayed {self.relayed}, answered {self.answered}, worker {self.worker}"


@dataclass(slots=True)
class _Tally:
    """What the passes of one measure came to.

    ``asked`` is of the measured ones; ``gone`` has, for each that was not warm, how much was asked
    for or read from the disk.
    """

    asked: _Asked
    gone: list[int]

    @override
    def __str__(self) -> str:
        if not self.gone:
            return str(self.asked)
        return f"{self.asked}; {len(self.gone)} passes run again: {sum(self.gone)} not cached"


class Warm:
    """The scenario.

    Concurrency: one thread.
    """

    def __init__(self, site: Site, rounds: int) -> None:
        self._site = site
        self._rounds = rounds

    def measure(self) -> Iterator[Measured]:
        """Measure everything."""
        archive, files, links = self._site.linked_tree()
        native = self._site.scratch / "native"
        native.mkdir()
        seconds(["tar", "xzf", str(archive), "-C", str(native)])
        url = self._site.origin.url(f"/{archive.name}")
        with ExitStack() as stack:
            mounts = [
                stack.enter_context(self._site.mount("tree", url, *arguments))
                for arguments in ((), KEEPERLESS)
            ]
            tops = (mounts[0].ref("tree"), native, mounts[1].ref("tree"))
            for one in self._passes(files, links):
                yield self._measured(one, tops, mounts[0])

    def _passes(self, files: Sequence[str], links: Sequence[str]) -> Iterator[_Pass]:
        probe = str(compiled("probe", self._site.scratch))
        places = {
            name: self._write(f"{name}.list", names)
            for name, names in (("files", files), ("links", links))
        }
        yield _Pass("stat", (probe, "stat", places["files"]), ".", times_itself=True)
        yield _Pass("open, read, close", (probe, "read", places["files"]), ".", times_itself=True)
        yield _Pass(
            "the same through symlinks", (probe, "read", places["links"]), ".", times_itself=True
        )
        yield _Pass("cat of all symlinks", ("cat", *links), ".")
        yield _Pass("cat of a symlink, 100 times", ("sh", "-c", _CATS, "sh", *links[:100]), ".")
        yield _Pass("find", ("find", "."), "tree")
        yield _Pass("find -size", ("find", ".", "-size", "+1"), "tree")
        yield _Pass("ls -lR", ("ls", "-lR"), "tree")
        yield _Pass("grep -r", ("grep", "-rc", "needle", "."), "tree")

    def _write(self, name: str, names: Sequence[str]) -> str:
        path = self._site.scratch / name
        path.write_text("".join(f"{one}\n" for one in names))
        return str(path)

    def _measured(self, one: _Pass, tops: Sequence[Path], mount: Mount) -> Measured:
        """Medians for the three tops, and who was asked in the measured passes."""
        tally = _Tally(_Asked(), [])

        def once(side: int) -> float:
            return _warm(partial(one.run, tops[side]), mount if side == _OURS else None, tally)

        ours, native, without = in_turn(once, self._rounds, len(tops))
        return Measured(one.name, ours, native, without, note=str(tally))


def _warm(run: "partial[float]", mount: Mount | None, tally: _Tally) -> float:
    """The seconds of a pass that follows another at once; ``mount`` is where to count.

    A machine may take back pages and names at any time. A pass that found some gone, so that
    something was asked for or read from the disk, is not warm: it is run again.
    """
    while True:
        run()
        read = resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock
        took_s, asked = _counted(run, mount) if mount else (run(), _Asked())
        gone = asked.relayed + resource.getrusage(resource.RUSAGE_CHILDREN).ru_inblock - read
        if not gone or len(tally.gone) == _AGAIN:
            tally.asked += asked
            return took_s
        tally.gone.append(gone)


def _counted(run: "partial[float]", mount: Mount) -> tuple[float, _Asked]:
    """The seconds of a pass, and who was asked meanwhile."""
    first = _reached(mount)
    before = keeper.status(mount.control)
    took_s = run()
    after = keeper.status(mount.control)
    reached = _reached(mount) - first
    return took_s, _Asked(after.relayed - before.relayed, after.answered - before.answered, reached)


def _reached(mount: Mount) -> int:
    """How many requests came to the worker for files of sources; its own files do not count."""
    return sum(mount.status()["requests"].values())
