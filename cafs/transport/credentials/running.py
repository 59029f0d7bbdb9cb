"""Running helper programs: bounded in time and in what they say, and in nobody's way.

A helper, or a directory of PATH, may lie in the very mount that waits for it. So nothing that
starts it may keep this process from answering the kernel: it is started by a fork and not by a
vfork, during which the whole process would stand still, and by a thread that nobody has to wait
for.

What a helper writes to standard error goes nowhere: it may hold what it should not.
"""

import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Final

import trio

from cafs.transport.credentials.credential import UnusableError
from cafs.transport.forking import forked

PATIENCE_S: Final = 10.0
"""How long a helper may take."""
_OUTPUT: Final = 1 << 20
_INPUT: Final = 4096
"""What every pipe takes at once, so that writing never waits."""
_AT_ONCE: Final = 8
_SPARE_S: Final = 1.0
"""What the thread has beyond the helper's time, before nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a program said, and its exit code."""

    code: int
    output: bytes = field(repr=False)


class Runner:
    """Runs helpers.

    Args:
        environ: all that they get to see of the environment.
        patience_s: how long each may take.

    Concurrency: any number of tasks; those above a few wait, for no longer than the helpers
        before them may take.
    """

    def __init__(self, environ: Mapping[str, str], patience_s: float = PATIENCE_S) -> None:
        self._environ = dict(environ)
        self._patience_s = patience_s
        self._threads = trio.CapacityLimiter(_AT_ONCE)

    async def run(self, command: tuple[str, ...], given: bytes, name: str) -> Spoken:
        """Run a program to its end.

        Args:
            command: the program (a path, or a name to look for in PATH) and its arguments.
            given: what it reads, at most 4 KiB.
            name: what messages call it.

        Raises:
            UnusableError: it cannot be started, is too slow or says too much.

        Cancellation: the program is killed.
        """
        if len(given) > _INPUT:
            raise UnusableError(name, f"asked with more than {_INPUT} bytes")
        task = _Task(command, given, name, self._environ, self._patience_s)
        try:
            with trio.fail_after(self._patience_s + _SPARE_S):
                return await trio.to_thread.run_sync(
                    task.run, limiter=self._threads, abandon_on_cancel=True
                )
        except trio.TooSlowError as error:
            raise task.too_slow() from error
        finally:
            task.forget()


class _Task:
    """One run of a program.

    Concurrency: ``run`` in a thread; the others anywhere.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        given: bytes,
        name: str,
        environ: Mapping[str, str],
        patience_s: float,
    ) -> None:
        self._command = command
        self._given = given
        self._name = name
        self._environ = environ
        self._patience_s = patience_s
        self._limit = 0.0
        # The far end comes to its end when nobody waits any more. It is closed by who begins first.
        self._ours, self._wanted = socket.socketpair()
        self._begun = threading.Lock()

    def forget(self) -> None:
        """Nobody waits any more: what still runs is killed, what has not begun never will."""
        self._ours.close()
        if self._begun.acquire(blocking=False):
            self._wanted.close()

    def too_slow(self) -> UnusableError:
        """The error of a program that took too long."""
        return UnusableError(self._name, f"no answer within {self._patience_s:g} s")

    def run(self) -> Spoken:
        """Run the program to its end; blocks."""
        if not self._begun.acquire(blocking=False):
            raise self.too_slow()
        self._limit = time.monotonic() + self._patience_s
        with self._wanted, self._started() as process:
            try:
                return self._talk(process)
            except BaseException:
                # It may have children, and none of them is of use to anybody.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise

    def _started(self) -> "subprocess.Popen[bytes]":
        try:
            return forked(self._command, self._environ, stderr=subprocess.DEVNULL)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else "improper arguments"
            raise UnusableError(self._name, f"cannot be run: {what}") from error

    def _talk(self, process: "subprocess.Popen[bytes]") -> Spoken:
        reads, writes = _pipe(process.stdout), _pipe(process.stdin)
        with suppress(BrokenPipeError):  # it need not read
            writes.write(self._given)
        writes.close()
        os.set_blocking(reads.fileno(), False)
        said = bytearray()
        # A helper may leave a daemon behind that keeps its output open: its own end counts.
        end = os.pidfd_open(process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for each in (reads.fileno(), end, self._wanted.fileno()):
                    selector.register(each, selectors.EVENT_READ)
                while not self._ended(selector, end):
                    if not self._take(reads, said):
                        selector.unregister(reads.fileno())
                        break
                while not self._ended(selector, end):
                    pass
            self._take(reads, said)
        finally:
            os.close(end)
        return Spoken(process.wait(), bytes(said))

    def _ended(self, selector: selectors.BaseSelector, end: int) -> bool:
        """Wait until something happens; whether that is the end of the program.

        Raises:
            UnusableError: nothing happens in time, or nobody waits for it.
        """
        ready = {key.fd for key, _ in selector.select(max(0.0, self._limit - time.monotonic()))}
        if not ready or self._wanted.fileno() in ready:
            raise self.too_slow()
        return end in ready

    def _take(self, reads: IO[bytes], said: bytearray) -> bool:
        """Take what is there now; whether more may come."""
        while True:
            try:
                data = os.read(reads.fileno(), _OUTPUT)
            except BlockingIOError:
                return True
            if not data:
                return False
            said += data
            if len(said) > _OUTPUT:
                raise UnusableError(self._name, "says more than a MiB")


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("no pipe")
    return pipe
