"""The image scenario of ``scripts/bench``: a compiler out of an image that nobody has unpacked.

A Debian root file system with gcc lies in a real registry, in three forms (``debian``). Each is
mounted with an empty store, and hello.c in it is compiled by the gcc in it: of the plain one there
is a lock, made on another machine, so to speak; the others have tables of contents of their own.
The reference fetches all of the plain one with skopeo and unpacks it with tar before it compiles.

What was fetched is what the registry says that it sent. It is held against the bytes in the layer
of the segments that lie under what was read of files (``touching``).
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from cafs.testing.benching import Site
from cafs.testing.command import Cafs, Mount
from cafs.testing.daemons import Registry
from cafs.testing.debian import FORMS, SOURCE, DebianImage, need, need_root
from cafs.testing.measuring import Measured, in_turn, seconds
from cafs.testing.touching import Touched, touched

_COMPILE: Final = """\
mount -t tmpfs tmpfs "$0/tmp"
exec chroot "$0" /usr/bin/env -i PATH=/usr/bin:/bin /bin/sh -c \
    'gcc -o /tmp/hello "$0" && exec /tmp/hello' "$1"
"""
"""Compiles and runs; the image is read-only, and what is put over its /tmp is seen by nobody else
and ends with the shell."""
_REF: Final = "debian"
_SETTLE_S: Final = 60.0
_LOOK_S: Final = 0.3
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took from an empty store: seconds, and bytes and requests as the registry says."""

    took_s: float
    mounted_s: float
    sent: int
    requests: int
    touched: Touched | None = None


class ImageBench:
    """The scenario.

    Args:
        site: where it works.
        rounds: medians are of so many.
        directory: where the image is, or is to be made.

    Concurrency: one thread.
    """

    def __init__(self, site: Site, rounds: int, directory: Path) -> None:
        self._site = site
        self._rounds = rounds
        self._image = DebianImage(directory)

    def measure(self) -> Iterator[Measured]:
        """Compile in each form.

        Raises:
            LackingError: something is not on this machine.
        """
        need_root()
        self._image.make()
        with self._image.registry() as registry:
            locked = self._lock(registry)
            runs: list[Callable[[], Cost]] = [partial(self._eager, registry)]
            runs += [partial(self._lazy, registry, form, locked) for form in FORMS]
            passes = [[run() for run in runs] for _ in range(self._rounds)]
            eager, *lazy = (_middle(costs) for costs in zip(*passes, strict=True))
            for form, cost in zip(FORMS, lazy, strict=True):
                name = f"hello.c, {form}{' + lock' if form == 'plain' else ''}"
                yield _measured(name, cost, eager)
            sent = f"{eager.sent / _MIB:.1f} MiB in {eager.requests} requests"
            yield Measured("hello.c, skopeo | tar", eager.took_s, note=sent)
            yield self._remounted(registry, locked)
            yield self._first_pass(registry)

    def _lock(self, registry: Registry) -> Path:
        """Lock the plain form, in a world of its own; the directory with the lock in it."""
        world = self._site.world("locking")
        world.project(self._toml(registry, "plain"))
        world.run("lock", timeout_s=600)
        return world.directory

    def _toml(self, registry: Registry, form: str) -> str:
        return toml_of(self._image.reference(registry, form))

    @contextmanager
    def _mounted(self, world: Cafs, registry: Registry, form: str, locked: Path) -> Iterator[Mount]:
        if form == "plain":
            copy_lock(locked, world.directory)
        with world.mount(self._toml(registry, form)) as mount:
            yield mount

    def _lazy(self, registry: Registry, form: str, locked: Path) -> Cost:
        """Mount one form, compile, and look what was read."""
        world = self._site.world()
        before, began = len(registry.requests()), time.perf_counter()
        with self._mounted(world, registry, form, locked) as mount:
            mounted_s = time.perf_counter() - began
            compile_in(mount.ref(_REF))
            took_s = time.perf_counter() - began
            settle(mount)
            sent = registry.requests()[before:]
            what = touched(world.store, mount.ref(_REF))
        return Cost(took_s, mounted_s, sum(one.bytes_sent for one in sent), len(sent), what)

    def _first_pass(self, registry: Registry) -> Measured:
        """What the first look into the plain form costs whoever has no lock: all of it is read."""
        project = self._toml(registry, "plain")

        def run(side: int) -> float:
            world = self._site.world()
            if side:
                world.project(project)
                told = json.loads(world.run("resolve", "--json").stdout)
                out = world.directory / "unpacked"
                out.mkdir()
                pipe = 'curl -sf "$0" | tar -xz'
                return seconds(["sh", "-c", pipe, told["parts"][0]["urls"][0]], out)
            with world.mount(project) as mount:
                began = time.perf_counter()
                list_directory(mount.ref(_REF))
                return time.perf_counter() - began

        ours, reference = in_turn(run, self._rounds)
        return Measured("first pass, to curl | tar -xz", ours, reference)

    def _eager(self, registry: Registry) -> Cost:
        """Fetch all of the plain form, unpack it, and compile."""
        place = self._site.scratch / "eager"
        root = place / "root"
        root.mkdir(parents=True)
        before, began = len(registry.requests()), time.perf_counter()
        source = f"docker://{self._image.reference(registry, 'plain')}"
        command = [need("skopeo"), "copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]
        subprocess.run([*command, source, f"dir:{place / 'dir'}"], check=True)
        [layer] = (path for path in (place / "dir").iterdir() if path.stat().st_size > _MIB)
        subprocess.run([need("tar"), "-xzf", str(layer), "-C", str(root)], check=True)
        compile_in(root)
        took_s = time.perf_counter() - began
        sent = registry.requests()[before:]
        shutil.rmtree(place)
        return Cost(took_s, 0.0, sum(one.bytes_sent for one in sent), len(sent))

    def _remounted(self, registry: Registry, locked: Path) -> Measured:
        """How long the first ``ls`` takes of what was mounted before, the mount included."""
        world = self._site.world()
        with self._mounted(world, registry, "plain", locked) as mount:
            list_directory(mount.ref(_REF))
        times, alone = [], []
        for _ in range(max(3, self._rounds)):
            began = time.perf_counter()
            with world.mount() as mount:
                mounted = time.perf_counter()
                list_directory(mount.ref(_REF))
                ended = time.perf_counter()
            times.append(ended - began)
            alone.append(ended - mounted)
        note = f"of which the ls {1e3 * median(alone):.1f} ms"
        return Measured("remounted, to the first ls", median(times), note=note)


def toml_of(reference: str) -> str:
    """A project that shows the image, ``host:port/name:tag``, as ``debian``."""
    return f'[mount]\npath = "cafs"\n[ref.{_REF}]\nfrom = "docker://{reference}"\n'


def compile_in(root: Path) -> None:
    """Compile the program in a root file system by the compiler in it, and run what comes of it.

    Raises:
        subprocess.CalledProcessError: it failed.
        AssertionError: the program says something else.
    """
    command: Sequence[str] = ["unshare", "-m", "sh", "-ec", _COMPILE, str(root), f"/{SOURCE}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    if said != b"hello\n":
        raise AssertionError(f"the program says {said!r}")


def settle(mount: Mount) -> None:
    """Wait until nothing is fetched ahead any more, nor read ahead by the kernel.

    Raises:
        TimeoutError: it is still busy after a minute.
    """
    limit = time.monotonic() + _SETTLE_S
    before: object = None
    while before != (now := _activity(mount)) or mount.status()["inflight"]:
        if time.monotonic() > limit:
            raise TimeoutError("there is still something fetched")
        before = now
        time.sleep(_LOOK_S)


def _activity(mount: Mount) -> tuple[int, int]:
    """What moves while anything is read or fetched."""
    facts = mount.status()
    return facts["fetched"], facts["counters"].get("fetch.verified", 0)


def list_directory(path: Path) -> None:
    """Run ls on a directory."""
    seconds(["ls", str(path)])


def copy_lock(source: Path, target: Path) -> None:
    """Copy what a lock consists of from project to project; large indexes do not lie beside it."""
    shutil.copy(source / "cafs.lock", target)
    (target / "cafs.lock.d").mkdir()
    for path in (source / "cafs.lock.d").glob("*.idx"):
        shutil.copy(path, target / "cafs.lock.d")


def _middle(costs: Sequence[Cost]) -> Cost:
    """The cost of the run with the median time; bytes and requests are that run's."""
    return sorted(costs, key=lambda cost: cost.took_s)[len(costs) // 2]


def _measured(name: str, cost: Cost, eager: Cost) -> Measured:
    what = cost.touched
    if what is None:
        raise AssertionError("a lazy run says what was touched")
    note = (
        f"{what.segments} segments touched, {what.packed / _MIB:.1f} MiB; "
        f"decoded {what.decoded / _MIB:.1f} MiB; {what.read / _MIB:.1f} MiB of files read; "
        f"of the time, mounting {1e3 * cost.mounted_s:.0f} ms"
    )
    found = Measured(name, cost.took_s, eager.took_s, sent=cost.sent, requests=cost.requests)
    return replace(found, needed=what.packed, note=note)
