"""Running a plugin's process: its pipes, and ending it with all that it started."""

import os
import subprocess
from collections.abc import Mapping
from typing import IO, Final

import msgspec
import trio

from cafs.transport.plugins.starting import Process, Start

_GRACE_S: Final = 2.0
"""How long a plugin may take to end once its stdin has ended."""


class Running(msgspec.Struct, frozen=True):
    """A process and its pipes."""

    process: Process
    stdin: trio.abc.SendStream
    stdout: trio.abc.ReceiveStream
    stderr: trio.abc.ReceiveStream

    def kill(self) -> None:
        """Kill it with its children; nothing when it has ended."""
        self.process.kill()

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
            self.process.close()
            await self.stdout.aclose()
            await self.stderr.aclose()


async def start(
    command: tuple[str, ...],
    threads: trio.CapacityLimiter,
    environ: Mapping[str, str] = os.environ,
) -> Running:
    """Start a program.

    Args:
        command: the program (a path, or a name to look for in PATH) and its arguments.
        threads: how many starts there may be at once, those included that were given up and hang.
        environ: our environment.

    Raises:
        OSError: it cannot be started.
        ValueError: its command is none: a NUL in it.

    Cancellation: at once; no process is left, or none once the start comes to an end.
    """
    begun = Start(command, environ)
    try:
        made = await trio.to_thread.run_sync(
            begun.make, limiter=threads, abandon_on_cancel=True, thread_name="plugin start"
        )
    except BaseException:
        late = begun.forget()
        if late is not None:
            running = _running(late)
            running.kill()
            await running.end()
        raise
    if made is None:
        raise ValueError("who waits for a process gets it")
    return _running(made)


def _running(made: "subprocess.Popen[bytes]") -> Running:
    stdin, stdout, stderr = map(_stream, (made.stdin, made.stdout, made.stderr))
    return Running(Process(made), stdin, stdout, stderr)


def _stream(pipe: IO[bytes] | None) -> trio.lowlevel.FdStream:
    if pipe is None:
        raise ValueError("a process that was started with three pipes has them")
    with pipe:
        return trio.lowlevel.FdStream(os.dup(pipe.fileno()))
