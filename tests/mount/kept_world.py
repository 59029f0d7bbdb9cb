"""The planted world of ``fuse_child``, mounted by a keeper."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from cafs.control import keeper
from cafs.control.keeper import KeeperStatus, MountOptions
from cafs.errors import MountError
from tests.mount.fuse_world import Levers

_ROOT: Final = Path(__file__).parents[2]
_WAIT_S: Final = 60.0
_POLL_S: Final = 0.01


@dataclass(frozen=True)
class Kept:
    """A mount: its keeper, and what can be done to its worker.

    The worker's ``print`` and log are in ``log``, with the keeper's.
    """

    path: Path
    keeper: "subprocess.Popen[bytes]"
    levers: Levers
    log: Path
    control: Path

    @property
    def gcc(self) -> Path:
        return self.path / "ref" / "gcc"

    def status(self) -> KeeperStatus:
        """What the keeper says of itself."""
        return keeper.status(str(self.control))

    def counters(self) -> Counter[str]:
        """The worker's counters; to ask for them moves none."""
        return self.levers.status()

    def kill(self, signal_: int) -> None:
        """Send the worker a signal; wait until another one serves, if that ends it."""
        former = self.status().worker
        os.kill(former, signal_)
        wait_for(lambda: self.status().worker not in {0, former})
        wait_for(lambda: self.status().state == "serving")


def wait_for(holds: Callable[[], bool], limit_s: float = _WAIT_S) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: it does not come true.
    """
    limit = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > limit:
            raise TimeoutError(f"not within {limit_s} s")
        time.sleep(_POLL_S)


@contextmanager
def keeping(directory: Path) -> Iterator[Kept]:
    """Mount below a directory, and serve with ``fuse_child``; unmount whatever happens."""
    path, control, log = directory / "mount", directory / "control", directory / "log"
    path.mkdir()
    reading, word = os.pipe()
    with os.fdopen(reading) as said, log.open("ab") as lines:
        worker = [sys.executable, "-m", "tests.mount.fuse_child", path, directory / "store"]
        command = keeper.command(
            _program(),
            path,
            [str(each) for each in (*worker, "--kept", "--levers", directory)],
            options=MountOptions(),
            user=None,
            control=control,
            live=directory / "live",
            word=word,
        )
        process = subprocess.Popen(command, cwd=_ROOT, stderr=lines, pass_fds=[word])
        os.close(word)
        try:
            assert said.read() == "ready\n", log.read_text()
            yield Kept(path, process, Levers(directory), log, control)
        finally:
            _end(process, path)


def _program() -> Path:
    try:
        return keeper.find_program(os.environ)
    except MountError as error:
        if os.environ.get("CI"):
            pytest.fail(error.line)
        pytest.skip(error.line)


def _end(process: "subprocess.Popen[bytes]", path: Path) -> None:
    process.terminate()
    try:
        process.wait(_WAIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        subprocess.run(["umount", "-l", path], check=False)
        raise
