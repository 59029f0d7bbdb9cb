"""The command in processes that are forked from one which has imported everything already.

Most of what a short verb takes is Python importing modules. Where that is not what is tested, each
verb is a process of its own all the same: with its own directory, variables, standard streams and
exit code. Where starting is tested, or what Python itself does then, ``Cafs`` starts one.
"""

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from typing_extensions import override

import cafs
from cafs.cli.main import main
from cafs.testing.command import Cafs

_LONGEST: Final = 1 << 20
"""Bytes of a request: arguments, and variables."""
_WAIT_S: Final = 120.0
_ROOT: Final = Path(__file__).parents[1]
_LIFE_S: Final = 3600
"""Of the process that forks, whatever becomes of who has started it."""
_SKIPPED: Final = ("cafs.testing", "cafs.__main__", "cafs.store.health.walker")
"""What no verb imports."""


class Forks:
    """The process that forks. Concurrency: any thread, several at once."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def run(
        self,
        arguments: list[str],
        directory: Path,
        environment: dict[str, str],
        timeout_s: float = _WAIT_S,
    ) -> "subprocess.CompletedProcess[str]":
        """Run ``cafs ARGUMENTS`` to its end.

        Raises:
            subprocess.TimeoutExpired: it had not ended in time, and is killed.
        """
        request = {"arguments": arguments, "directory": str(directory), "environment": environment}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with _file("stdout") as out, _file("stderr") as err, ours:
            with theirs:
                descriptors = [theirs.fileno(), out.fileno(), err.fileno()]
                socket.send_fds(self._end, [json.dumps(request).encode()], descriptors)
            code = _code_of(ours, timeout_s)
            if code is None:
                raise subprocess.TimeoutExpired(["cafs", *arguments], timeout_s)
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
    def beside(self, root: Path) -> Cafs:
        return ForkedCafs(root, self._forks)

    @override
    def run(
        self, *arguments: str | Path, check: bool = True, timeout_s: float = _WAIT_S
    ) -> "subprocess.CompletedProcess[str]":
        words = [*map(str, arguments)]
        done = self._forks.run(words, self.directory, self.environment, timeout_s)
        if check and done.returncode:
            text = " ".join(words)
            raise AssertionError(f"cafs {text}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def forking(prefix: Sequence[str] = ()) -> Iterator[Forks]:
    """Start the process that forks, and end it; ``prefix`` is a program that executes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for each in (ours, theirs):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LONGEST)
        number = theirs.fileno()
        command = [*prefix, sys.executable, "-m", "tests.forked", str(number)]
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


def _file(name: str) -> IO[bytes]:
    return open(os.memfd_create(name), "r+b", buffering=0)


def _code_of(end: socket.socket, timeout_s: float) -> int | None:
    """Wait for what a nanny says; None, and the command is killed, when that takes too long."""
    end.settimeout(_WAIT_S)
    _, (held,), _, _ = socket.recv_fds(end, 1, 1)
    end.settimeout(timeout_s)
    try:
        return int(end.recv(64))
    except TimeoutError:
        signal.pidfd_send_signal(held, signal.SIGKILL)
        return None
    except BaseException:  # of the test, from outside
        signal.pidfd_send_signal(held, signal.SIGKILL)
        raise
    finally:
        os.close(held)


def _serve(end: socket.socket) -> None:
    for module in pkgutil.walk_packages(cafs.__path__, "cafs."):
        if not module.name.startswith(_SKIPPED):
            importlib.import_module(module.name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nannies are nobody's to wait for
    while True:
        data, descriptors, _, _ = socket.recv_fds(end, _LONGEST, 3)
        if not data:
            return
        if not os.fork():
            end.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _nurse(descriptors, json.loads(data))
            return
        for each in descriptors:
            os.close(each)


def _nurse(descriptors: list[int], request: dict[str, object]) -> None:
    """Fork the command, hand over its pidfd, wait for its end, say its exit code. In a child."""
    told, *streams = descriptors
    child = os.fork()
    if not child:
        os.close(told)
        _become(streams, request)
        return
    for each in streams:
        os.close(each)
    with socket.socket(fileno=told) as end:
        held = os.pidfd_open(child)
        socket.send_fds(end, [b"."], [held])
        _, status = os.waitpid(child, 0)
        with suppress(BrokenPipeError):  # who asked has had enough of waiting
            end.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(streams: list[int], request: dict[str, object]) -> None:
    """Be the command, as if it had been started. In a child of a child."""
    for number, each in enumerate(streams, 1):
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
