"""Running a plugin's process: starting it, and ending it with all that it started.

It has a session of its own, so that a signal to the terminal is not for it and one signal reaches
its children too; and an environment without the credentials that are cafs's own.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import trio

_GRACE_S: Final = 2.0
"""How long a plugin may take to end once its stdin has ended."""
_OURS: Final = "CAFS_LOGIN_"
"""How the variables begin that hold credentials for cafs."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process and its pipes."""

    process: trio.Process
    stdin: trio.abc.SendStream
    stdout: trio.abc.ReceiveStream
    stderr: trio.abc.ReceiveStream

    def kill(self) -> None:
        """Kill it with its children; nothing when it has ended."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def end(self) -> None:
        """End it: by the end of its stdin, and if that does not help, by force.

        Cancellation: not for ``end``; it takes some seconds at most.
        """
        with trio.CancelScope(shield=True):
            await self.stdin.aclose()
            with trio.move_on_after(_GRACE_S):
                await self.process.wait()
            self.kill()
            await self.process.wait()
            await self.stdout.aclose()
            await self.stderr.aclose()


async def start(command: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> Running:
    """Start a program.

    Raises:
        OSError: it cannot be started.
        ValueError: its command is none: a NUL in it.

    Cancellation: no process is left.
    """
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={name: value for name, value in environ.items() if not name.startswith(_OURS)},
        start_new_session=True,
        # The group is the one that we have. Setting it rules vfork out, during which this whole
        # process stands still: the program, or a directory of PATH, may lie in its own mount.
        group=os.getegid(),
    )
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise ValueError("a process that was started with three pipes has them")
    return Running(process, process.stdin, process.stdout, process.stderr)
