"""Starting a plugin's process: by a fork, in a thread that nobody has to wait for.

The program, or a directory of PATH, may lie on a disk that nobody answers for, or in the very mount
that waits for the plugin. So nothing here may keep this process from answering the kernel: it is
started by a fork and not by a vfork, during which the whole process would stand still; and who
gives up the start goes on at once, whatever the thread does. A process that comes of it after that
is killed by the thread.

It has a session of its own, so that a signal to the terminal is not for it and one signal reaches
its children too; and an environment without the credentials that are cafs's own.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio

from cafs.transport.forking import forked

_OURS: Final = "CAFS_LOGIN_"
"""How the variables begin that hold credentials for cafs."""


class Start:
    """One start of a program.

    Args:
        command: the program (a path, or a name to look for in PATH) and its arguments.
        environ: our environment.

    Concurrency: ``make`` in a thread; ``forget`` anywhere.
    """

    def __init__(self, command: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self._command = command
        self._environ = {
            name: value for name, value in environ.items() if not name.startswith(_OURS)
        }
        self._lock = threading.Lock()
        self._made: subprocess.Popen[bytes] | None = None
        self._given_up = threading.Event()

    def make(self) -> "subprocess.Popen[bytes] | None":
        """Start it; blocks. None when nobody waits any more: then no process is left.

        Raises:
            OSError: it cannot be started.
            ValueError: its command is none: a NUL in it.
        """
        if self._given_up.is_set():
            return None
        made = forked(self._command, self._environ, stderr=subprocess.PIPE)
        with self._lock:
            if not self._given_up.is_set():
                self._made = made
                return made
        # It may have children, and none of them is of use to anybody.
        with made, suppress(ProcessLookupError):
            os.killpg(made.pid, signal.SIGKILL)
        return None

    def forget(self) -> "subprocess.Popen[bytes] | None":
        """Nobody waits any more; what has been made is the caller's."""
        with self._lock:
            self._given_up.set()
            return self._made


class Process:
    """A process that was started here.

    Concurrency: any number of tasks may wait for its end.
    """

    def __init__(self, made: "subprocess.Popen[bytes]") -> None:
        self.pid = made.pid
        self._made = made
        self._end = os.pidfd_open(made.pid)
        self._waiting = trio.Lock()

    @property
    def returncode(self) -> int | None:
        """How it ended: an exit code, or a signal below zero; None while it runs."""
        return self._made.poll()

    async def wait(self) -> int:
        """Wait for its end; how that was.

        Cancellation: no effect.
        """
        async with self._waiting:  # one task for one descriptor
            if self._made.poll() is None:
                await trio.lowlevel.wait_readable(self._end)
            return self._made.wait()

    def kill(self) -> None:
        """Kill it with its children; nothing when it has ended."""
        if self._made.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for it no more. It has ended."""
        os.close(self._end)
