"""The command in processes that are forked from one which has imported everything already.

Most of what a short verb takes is Python importing modules. Where that is not what is tested, and a
test runs many verbs, each is a process of its own all the same: with its own directory, variables,
standard streams and exit code.
"""

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from typing_extensions import override

from cafs.cli.main import main
from cafs.testing.command import Cafs

_LONGEST: Final = 1 << 20
"""Bytes of a request: arguments, and variables."""
_WAIT_S: Final = 120.0
_ROOT: Final = Path(__file__).parents[2]
_LIFE_S: Final = 3600
"""Of the process that forks, whatever becomes of who has started it."""
_MODULES: Final = (
    "cafs.assemble",
    "cafs.cli.locks.lock_checking",
    "cafs.cli.locks.lock_diff",
    "cafs.cli.locks.lock_making",
    "cafs.distribution.comparing",
    "cafs.distribution.locking",
    "cafs.settings.editing",
    "cafs.settings.loading",
)
"""What takes long to import."""


class Forks:
    """The process that forks. Concurrency: one thread."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def run(
        self, arguments: list[str], directory: Path, environment: dict[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run ``cafs ARGUMENTS`` to its end."""
        request = {"arguments": arguments, "directory": str(directory), "environment": environment}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            data = json.dumps(request).encode()
            socket.send_fds(self._end, [data], [out.fileno(), err.fileno()])
            code = int(self._end.recv(64) or b"-1")
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="surrogateescape"))
        return subprocess.CompletedProcess(["cafs", *arguments], code, *texts)


class ForkedCafs(Cafs):
    """As ``Cafs``, with ``run`` by way of ``Forks``."""

    def __init__(self, root: Path, forks: Forks) -> None:
        super().__init__(root)
        self._forks = forks

    @override
    def run(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = _WAIT_S
    ) -> "subprocess.CompletedProcess[str]":
        done = self._forks.run([*map(str, arguments)], self.directory, self.environment)
        if check and done.returncode:
            text = " ".join(map(str, arguments))
            raise AssertionError(f"cafs {text}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def forking() -> Iterator[Forks]:
    """Start the process that forks, and end it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        number = theirs.fileno()
        command = [sys.executable, "-m", "tests.cli.forked", str(number)]
        with subprocess.Popen(
            command, pass_fds=[number], stdin=subprocess.DEVNULL, cwd=_ROOT
        ) as process:
            theirs.close()
            ours.settimeout(_WAIT_S)
            try:
                yield Forks(ours)
            finally:
                ours.close()
                process.wait(_WAIT_S)


def _serve(end: socket.socket) -> None:
    for name in _MODULES:
        importlib.import_module(name)
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(end, _LONGEST, 2)
        if not data:
            return
        child = os.fork()
        if not child:
            _become(end, descriptors, json.loads(data))
            return
        for each in descriptors:
            os.close(each)
        _, status = os.waitpid(child, 0)
        end.send(str(os.waitstatus_to_exitcode(status)).encode())


def _become(end: socket.socket, descriptors: list[int], request: dict[str, object]) -> None:
    """Be the command, as if it had been started. In the child."""
    end.close()
    for number, each in enumerate(descriptors, 1):
        os.dup2(each, number)
        os.close(each)
    os.chdir(str(request["directory"]))
    os.environ.clear()
    os.environ.update(request["environment"])  # type: ignore[call-overload]
    sys.argv = ["cafs", *request["arguments"]]  # type: ignore[misc]
    main()


if __name__ == "__main__":
    signal.alarm(_LIFE_S)
    with socket.socket(fileno=int(sys.argv[1])) as served:
        _serve(served)
