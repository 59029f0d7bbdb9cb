"""Runs the command as people do: in a process, with a home, a store and a project of its own.

A mount made here always ends with its context, whatever happened, and what its keeper and workers
logged is looked at: an unexpected warning or traceback fails the test.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import msgspec

from cafs.control import keeper

_COMMAND: Final = (sys.executable, "-P", "-m", "cafs")
_RUN_S: Final = 120.0
_END_S: Final = 60.0
"""A keeper gives its worker 15 s to end."""
_POLL_S: Final = 0.02
_ALARM: Final = re.compile(
    r"^.*(?:\b(?:WARNING|ERROR|CRITICAL)\b|Traceback \(most recent).*", re.MULTILINE
)
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ", "COVERAGE_PROCESS_START", "CAFS_KEEPER")


class Ready(msgspec.Struct, frozen=True):
    """What ``cafs mount --json`` says, as far as it is used here."""

    mount_point: str
    pid: int
    log: str
    control: str = ""


class RefFacts(TypedDict):
    """What a status says of one ref, as far as it is used here; sizes in bytes."""

    name: str
    state: str
    present: int
    size: int | None
    error: str | None


class RoomFacts(TypedDict):
    """How full the store is, in bytes."""

    used: int
    quota: int | None


class Facts(TypedDict):
    """What ``.cafs/status.json`` says, as far as it is used here; sizes in bytes."""

    fetched: int
    inflight: list[object]
    room: RoomFacts
    refs: list[RefFacts]
    requests: dict[str, int]
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Mount:
    """A live mount: where it is, who holds it, where that one and its workers log.

    ``pid`` is the keeper's, or the worker's when there is no keeper; ``control`` is the keeper's
    socket, or empty.
    """

    path: Path
    pid: int
    log_file: Path
    control: str

    @property
    def worker(self) -> int:
        """The pid of the worker that serves now, as the keeper says; 0 when none does."""
        return keeper.status(self.control).worker if self.control else self.pid

    def status(self) -> Facts:
        """What the worker says of itself, through the mount."""
        return msgspec.json.decode((self.path / ".cafs" / "status.json").read_bytes(), type=Facts)

    def log(self) -> str:
        """What keeper and workers have logged so far."""
        if not self.log_file.is_file():
            return "(no log)"
        return self.log_file.read_text(errors="replace")

    def ref(self, name: str) -> Path:
        """The place of a named ref, when the mount shows everything."""
        return self.path / "ref" / name

    def is_mounted(self) -> bool:
        """Whether the kernel has a mount there; asks the file system nothing."""
        return f" {self.path} " in Path("/proc/self/mountinfo").read_text()


class Cafs:
    """The command, in a world below one directory.

    ``directory`` is the project and working directory; ``environment`` is all that a process gets,
    and may be changed.

    Concurrency: one thread.
    """

    def __init__(self, root: Path, command: Sequence[str] = _COMMAND) -> None:
        self._command = command
        self.directory = root / "project"
        self.store = root / "cache" / "cafs" / "store"
        self.directory.mkdir(parents=True)
        self._expected: list[re.Pattern[str]] = []
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment = {**kept, "HOME": str(root / "home"), "NO_COLOR": "1"}
        for name in ("cache", "config", "state", "data", "runtime"):
            (root / name).mkdir(mode=0o700)
            kind = "XDG_RUNTIME_DIR" if name == "runtime" else f"XDG_{name.upper()}_HOME"
            self.environment[kind] = str(root / name)
        (root / "home").mkdir()

    def beside(self, root: Path) -> "Cafs":
        """The same command in a world of its own: another machine."""
        return Cafs(root, self._command)

    def project(self, toml: str) -> Path:
        """Write the project's ``cafs.toml``; its path."""
        path = self.directory / "cafs.toml"
        path.write_text(toml)
        return path

    def expect_log(self, pattern: str) -> None:
        """Let keeper and workers log lines with this, though they be warnings."""
        self._expected.append(re.compile(pattern))

    def popen(self, *arguments: str | Path) -> "subprocess.Popen[str]":
        """Start ``cafs ARGUMENTS`` with pipes for stdout and stderr; the caller ends it."""
        return subprocess.Popen(
            [*self._command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            cwd=self.directory,
            env=self.environment,
        )

    def run(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = _RUN_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run ``cafs ARGUMENTS`` in the project to its end.

        Raises:
            AssertionError: ``check``, and the exit code is not 0; with what was said.
        """
        process = self.popen(*arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        if check and process.returncode:
            text = " ".join(map(str, arguments))
            raise AssertionError(f"cafs {text}: exit {process.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @contextmanager
    def mount(self, toml: str | None = None, *arguments: str | Path) -> Iterator[Mount]:
        """Mount by ``cafs mount --json ARGUMENTS``, and unmount at the end.

        Without a ``[mount]`` path and without a mount point among the arguments it is ``cafs``
        in the project.

        Raises:
            AssertionError: it cannot be mounted, leaves something behind, or its keeper or worker
                logged something that ``expect_log`` does not know.
        """
        if toml is not None:
            has_path = re.search(r"^\[mount\]", toml, re.MULTILINE)
            self.project(toml if has_path else f'[mount]\npath = "cafs"\n{toml}')
        done = self.run("mount", "--json", *arguments)
        ready = msgspec.json.decode(done.stdout, type=Ready)
        mount = Mount(Path(ready.mount_point), ready.pid, Path(ready.log), ready.control)
        try:
            yield mount
        except BaseException:
            self._show_log(mount)
            raise
        finally:
            clean = self._end(mount)
        self._judge(mount, clean=clean)

    def _end(self, mount: Mount) -> bool:
        """Unmount by all means, and end who served; whether the first attempt was enough."""
        clean = (
            not mount.is_mounted() or self.run("unmount", mount.path, check=False).returncode == 0
        )
        for command in (["fusermount3", "-uz"], ["umount", "-l"]):
            if mount.is_mounted():
                clean = False
                subprocess.run([*command, mount.path], check=False, capture_output=True)
        for pid in _left(mount):
            clean = False
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return clean

    def _show_log(self, mount: Mount) -> None:
        sys.stderr.write(f"--- {mount.log_file}\n{mount.log()}\n")

    def _judge(self, mount: Mount, *, clean: bool) -> None:
        lines = [match.group() for match in _ALARM.finditer(mount.log())]
        bad = [line for line in lines if not any(known.search(line) for known in self._expected)]
        if bad or not clean:
            self._show_log(mount)
            raise AssertionError(f"the worker logged: {bad}" if bad else "unmount failed")


def start_programs_by_fork() -> None:
    """Let an origin in this process answer while ``subprocess`` starts a program.

    What exec or chdir reads from a cold mount is read while the parent is suspended in vfork with
    the GIL held, so the origin's thread could not run. After a fork it can.
    """
    # The switch that the documentation of subprocess names.
    subprocess._USE_VFORK = False  # type: ignore[misc] # noqa: SLF001 - Final in typeshed


def _left(mount: Mount) -> list[int]:
    """Wait for the keeper and the workers of a mount; those that have not ended in time."""
    limit = time.monotonic() + _END_S
    while (left := _serving(mount)) and time.monotonic() < limit:
        time.sleep(_POLL_S)
    return left


def _serving(mount: Mount) -> list[int]:
    """Processes that have the mount point as an argument; zombies have none."""
    place = os.fsencode(mount.path)
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # gone, or another user's
            if place in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
