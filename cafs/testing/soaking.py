"""A mount under load, and what is done to its worker meanwhile.

``Ground`` is what is read: a tree of many files and one large blob at an origin, and the right
bytes of both. ``Keeper`` is the mount's keeper as it answers on its control socket. ``Scene`` is a
mounted ground and what can happen to its worker. Who uses them: ``scripts/soak``, which is
``cafs.testing.soak``, and the keeper's tests.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.control import keeper
from cafs.control.keeper import KeeperStatus
from cafs.testing.archives import Compression, small_files, write_tar
from cafs.testing.bodies import Generated
from cafs.testing.command import Cafs, Mount
from cafs.testing.loading import Expected, Figures, Load, compiled, write_expected
from cafs.testing.origin import Origin

_POLL_S: Final = 0.02
_SERVING_S: Final = 120.0
_PIECE: Final = 1 << 20
KEEPER_LINES: Final = r"(?:WARNING|ERROR) cafs\.keeper: "
"""What a keeper logs of workers that ended or did not answer."""
HANG: Final = signal.SIGUSR2
"""The signal at which a worker of ``plant_hang`` hangs."""
_HANGING: Final = f"""\
import signal, time
signal.signal({int(HANG)}, lambda *_: time.sleep(3600))
"""


@dataclass(frozen=True, slots=True)
class Keeper:
    """The keeper of a mount. It is asked by its socket, never through the mount."""

    control: str

    def status(self) -> KeeperStatus:
        """What it says now.

        Raises:
            MountError: it does not answer.
        """
        return keeper.status(self.control)

    def wait_until(
        self, holds: Callable[[KeeperStatus], bool], limit_s: float = _SERVING_S
    ) -> KeeperStatus:
        """Ask until the status is as ``holds`` wants it; that.

        Raises:
            TimeoutError: it is not, in time.
        """
        limit = time.monotonic() + limit_s
        while not holds(found := self.status()):
            if time.monotonic() > limit:
                raise TimeoutError(f"not seen: {found}")
            time.sleep(_POLL_S)
        return found

    def wait_for_another(self, worker: int) -> KeeperStatus:
        """Wait until another worker than this one serves."""
        return self.wait_until(lambda now: now.state == "serving" and now.worker not in {0, worker})

    def wait_serving(self) -> KeeperStatus:
        """Wait until a worker serves."""
        return self.wait_for_another(0)

    def memory(self) -> int:
        """Bytes of memory that it occupies, its libraries' pages among them.

        Source: proc(5), /proc/pid/status: VmRSS, in KiB.
        """
        text = Path(f"/proc/{self.status().pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) << 10


def plant_hang(cafs: Cafs, directory: Path) -> None:
    """Let the workers of mounts made from now on hang when they get ``HANG``: alive, and silent."""
    directory.mkdir(exist_ok=True)
    (directory / "sitecustomize.py").write_text(_HANGING)
    cafs.environment["PYTHONPATH"] = str(directory)


@dataclass(frozen=True, slots=True)
class Ground:
    """What a load reads, and where its programs are."""

    scratch: Path
    expected: Expected
    toml: str
    programs: Path

    @classmethod
    def make(cls, scratch: Path, origin: Origin, *, files: int, blob: int) -> "Ground":
        """Put a tree of so many files and a blob of so many bytes at an origin."""
        items = list(small_files(files))
        body = Generated(blob, seed=1)
        archive = write_tar(scratch / "tree.tar.gz", items, Compression.GZIP)
        urls = origin.put("/tree.tar.gz", archive), origin.put("/blob", body)
        toml = f'[ref.tree]\nfrom = "{urls[0]}"\n[ref.data]\nfrom = "{urls[1]}"\n'
        return cls(scratch, write_expected(scratch, items, body), toml, scratch)

    def load(self, mount: Mount, *, threads: int, dropping: bool) -> Load:
        """Start reading the mount at random."""
        files = self.expected.write_list(self.scratch / "list", mount.ref("tree"))
        return Load(
            compiled("load", self.programs),
            files,
            self.expected,
            blob=mount.ref("data"),
            threads=threads,
            dropping=mount.path if dropping else None,
        )


@dataclass(slots=True)
class Outcome:
    """What a disturbed load came to.

    ``took_s`` has how long each disturbance took; ``memory`` is the keeper's, before and after.
    """

    figures: Figures
    before: KeeperStatus
    after: KeeperStatus
    memory: tuple[int, int]
    took_s: list[float]

    @property
    def relayed(self) -> int:
        """Requests that crossed the keeper to a worker."""
        return self.after.relayed - self.before.relayed

    @property
    def workers(self) -> int:
        """Workers that were started."""
        return self.after.workers - self.before.workers


@dataclass(frozen=True, slots=True)
class Scene:
    """A mounted ground, and what can be done to its worker."""

    cafs: Cafs
    ground: Ground
    mount: Mount
    keeper: Keeper

    def kill(self) -> None:
        """Kill the worker, once one serves."""
        os.kill(self.keeper.wait_serving().worker, signal.SIGKILL)

    def stop(self) -> None:
        """Stop the worker."""
        os.kill(self.keeper.wait_serving().worker, signal.SIGSTOP)

    def reload(self) -> None:
        """Change the worker for another by the command."""
        self.cafs.run("reload", self.mount.path)

    def hang(self) -> None:
        """Let the worker hang, and wait until it is replaced; ``plant_hang`` came before."""
        worker = self.keeper.wait_serving().worker
        os.kill(worker, HANG)
        self.keeper.wait_for_another(worker)

    def disturbed(
        self,
        disturb: Callable[["Scene"], None],
        *,
        seconds: float,
        every_s: float = 2.0,
        threads: int = 16,
        least: tuple[int, int] = (0, 0),
    ) -> Outcome:
        """Read at random for so long, and disturb regularly; as root, drop its caches each second.

        It takes longer where ``least`` does: so many disturbances, and so many requests that cross
        the keeper.

        Raises:
            AssertionError: a reader sticks.
            TimeoutError: no worker serves any more, or a request is never answered.
        """
        before, memory = self.keeper.status(), self.keeper.memory()
        disturbances, requests = least
        took_s: list[float] = []
        with self.ground.load(self.mount, threads=threads, dropping=os.geteuid() == 0) as load:
            began = time.monotonic()
            for due in _ticks(began, began + seconds, every_s, disturbances):
                time.sleep(max(0, due - time.monotonic()))
                start = time.monotonic()
                disturb(self)
                took_s.append(time.monotonic() - start)
            time.sleep(max(0, began + seconds - time.monotonic()))
            self.keeper.wait_until(lambda now: now.relayed - before.relayed >= requests)
            figures = load.stop()
        # The kernel may still be reading ahead for readers that have ended; none may be forgotten.
        after = self.keeper.wait_until(lambda now: now.state == "serving" and not now.waiting)
        return Outcome(figures, before, after, (memory, self.keeper.memory()), took_s)


DISTURBANCES: Final[dict[str, Callable[[Scene], None]]] = {
    "kill": Scene.kill,
    "stop": Scene.stop,
    "reload": Scene.reload,
    "hang": Scene.hang,
}


def _ticks(began: float, end: float, every_s: float, least: int) -> Iterator[float]:
    """The times at which to disturb, and at least so many; one that was missed is left out."""
    due, done = began + every_s, 0
    while due < end or done < least:
        yield due
        done += 1
        while due <= time.monotonic():
            due += every_s


@contextmanager
def mounted(cafs: Cafs, ground: Ground, *, local: bool = True) -> Iterator[Scene]:
    """Mount the ground, its tree indexed and its blob local, or not."""
    with cafs.mount(ground.toml) as mount:
        assert any(mount.ref("tree").iterdir())  # noqa: S101
        with mount.ref("data").open("rb", buffering=0) as blob:
            while local and blob.read(_PIECE):
                pass
        yield Scene(cafs, ground, mount, Keeper(mount.control))
