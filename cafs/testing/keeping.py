"""A keeper between a kernel and workers that are both played by the test.

The kernel is one end of a SOCK_SEQPACKET pair whose other end the keeper gets as ``--fd``; it is as
strict about replies as Linux is. Workers are those of ``hand_worker``. So every message that the
keeper handles is written and read by the test, one by one, and nothing has to be mounted.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from cafs.control import keeper
from cafs.control.keeper import KeeperStatus
from cafs.testing.fake_kernel import FakeKernel
from cafs.testing.fuse_wire import MESSAGE_MAX, InitIn, InitOut, Opcode
from cafs.testing.hand_worker import (
    DEADLINE_S,
    Ending,
    HandWorker,
    HandWorkers,
    readable,
    wait_readable,
)

_POLL_S: Final = 0.005
_LINE: Final = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) cafs\.keeper: (\S.*)"
)


class Status(KeeperStatus, frozen=True, forbid_unknown_fields=True):
    """What a keeper says of itself, and nothing besides."""


class Reloaded(keeper.Reloaded, frozen=True, forbid_unknown_fields=True):
    """How a reload ended, and nothing besides."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the keeper's log."""

    level: str
    text: str


class Command:
    """A command that a keeper got on its control socket, and the answer to come.

    Concurrency: one thread.
    """

    def __init__(self, path: Path, message: bytes, fds: Sequence[int] = ()) -> None:
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.connect(str(path))
        if message:
            socket.send_fds(self.line, [message], fds)

    def answer(self, timeout_s: float = DEADLINE_S) -> bytes:
        """The answer; empty when the keeper ended the connection without one.

        Raises:
            TimeoutError: there is none.
        """
        try:
            wait_readable(self.line, timeout_s, "an answer of the keeper")
            return self.line.recv(MESSAGE_MAX)
        except ConnectionResetError:
            return b""
        finally:
            self.line.close()

    def reloaded(self, timeout_s: float = DEADLINE_S) -> Reloaded:
        """The answer to ``reload``."""
        return msgspec.json.decode(self.answer(timeout_s), type=Reloaded)


class RunningKeeper:
    """A keeper process, with its kernel and its workers; as a context it is ended and judged.

    Its sockets lie in ``directory``; ``arguments`` are more options. ``device`` is what it gets
    instead of the fake kernel's end; with ``mount_point`` it gets neither, and mounts there.
    ``command`` is what it starts instead of workers that are played by hand.

    Concurrency: one thread.
    """

    def __init__(
        self,
        program: Path,
        directory: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        device: int | None = None,
        mount_point: Path | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.program = program
        self.kernel = FakeKernel()
        self.workers = HandWorkers()
        self.control = directory / "control"
        self.live = directory / "live"
        self.live.write_text("{}")
        self.device = self.kernel.keepers_end.fileno() if device is None else device
        given = [] if mount_point else ["--fd", str(self.device)]
        options = [*given, "--control", str(self.control), "--live", str(self.live)]
        self._log_end, theirs = os.pipe()
        self.process = subprocess.Popen(
            [
                str(program),
                *options,
                *arguments,
                str(mount_point or directory),
                "--",
                *(command or self.workers.command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            pass_fds=(*([] if mount_point else [self.device]), *pass_fds),
            env={**os.environ, **(environment or {})},
        )
        os.close(theirs)
        self.kernel.keepers_end.close()
        self._ending = Ending(self.process.pid)
        self._output = b""
        self._expected: list[re.Pattern[str]] = []
        self._commands: list[Command] = []
        self._over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.end()
        if kind is None:
            self.judge()
        else:
            sys.stderr.write(f"--- the keeper's log\n{self.output}\n")

    @property
    def output(self) -> str:
        """All that was read of its log, right or wrong."""
        return self._output.decode(errors="replace")

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def begin(self, offer: InitIn | None = None, answer: InitOut | None = None) -> HandWorker:
        """Go through INIT with the first worker; that worker, which serves now."""
        asked = self.kernel.send(Opcode.INIT, (offer or InitIn()).encode(), nodeid=0, pid=0)
        worker = self.workers.next()
        worker.begin(answer)
        self.kernel.reply_to(asked)
        return worker

    def command(self, message: str | bytes, *fds: int) -> Command:
        """Send a command; an empty one only connects.

        Raises:
            TimeoutError: it does not listen.
        """
        limit = time.monotonic() + DEADLINE_S
        while not self.control.is_socket():
            if time.monotonic() > limit:
                raise TimeoutError(f"nobody listens at {self.control}")
            self._read_log(_POLL_S)
        encoded = message.encode() if isinstance(message, str) else message
        self._commands.append(Command(self.control, encoded, fds))
        return self._commands[-1]

    def status(self) -> Status:
        """What it says of itself; fails when it is dead or stuck."""
        return msgspec.json.decode(self.command("status").answer(), type=Status)

    def wait_until(self, holds: Callable[[Status], bool], timeout_s: float = DEADLINE_S) -> Status:
        """Wait for a state.

        Raises:
            TimeoutError: it does not come; with the last one.
        """
        limit = time.monotonic() + timeout_s
        while not holds(status := self.status()):
            if time.monotonic() > limit:
                raise TimeoutError(f"the keeper stays {status}")
            self._read_log(_POLL_S)
        return status

    def reload(self, answer: InitOut | None = None) -> HandWorker:
        """Swap the worker for a new one, which serves when this returns."""
        command = self.command("reload")
        worker = self.workers.next()
        worker.take_over(answer)
        reloaded = command.reloaded()
        if not reloaded.ok:
            raise AssertionError(f"no reload: {reloaded.why}")
        return worker

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Wait that long for its end; whether it has come."""
        return self._ending.has_come(timeout_s)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its end; the exit code, which is not judged any more.

        Raises:
            TimeoutError: it lives on.
        """
        if not self.has_ended(timeout_s):
            raise TimeoutError("the keeper lives on")
        self._over = True
        return self.process.wait()

    def expect_log(self, pattern: str) -> None:
        """Let it log warnings and errors with this."""
        self._expected.append(re.compile(pattern))

    def log(self) -> list[Line]:
        """The lines so far.

        Raises:
            AssertionError: one has not the form that they all have.
        """
        self._read_log(0.0)
        found = []
        for text in self.output.split("\n")[:-1]:
            match = _LINE.fullmatch(text)
            if match is None:
                raise AssertionError(f"not a line of a log: {text!r}\n{self.output}")
            found.append(Line(*match.groups()))
        return found

    def wait_for_log(self, pattern: str, timeout_s: float = DEADLINE_S) -> Line:
        """The first line with this, waited for.

        Raises:
            TimeoutError: there is none; with all that there are.
        """
        limit = time.monotonic() + timeout_s
        while True:
            for line in self.log():
                if re.search(pattern, line.text):
                    return line
            if time.monotonic() > limit:
                raise TimeoutError(f"{pattern!r} is not logged: {self.log()}")
            self._read_log(max(0.0, limit - time.monotonic()))

    def take_output(self) -> str:
        """All of its log until now, right or wrong, which is not judged any more."""
        self._read_log(0.0)
        taken, self._output = self.output, b""
        return taken

    def close_log(self) -> None:
        """Have nobody read its log any more."""
        self._read_log(0.0)
        os.close(self._log_end)
        self._log_end = -1

    def memory_kb(self) -> int:
        """Its memory that is in use, with what it shares, as libc's code; KiB."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])

    def own_memory_kb(self) -> int:
        """Its memory that is nobody else's: pages of files come and go as the kernel likes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0])

    def open_files(self) -> int:
        """How many descriptors it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def end(self) -> None:
        """End it by SIGTERM, unless it has ended; then everything that was started for it."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        self.workers.end_all()
        if not self.has_ended(DEADLINE_S):
            self.process.kill()
        self.process.wait()
        self.workers.close()
        self._ending.close()
        if self._log_end >= 0:
            self.close_log()
        for command in self._commands:
            command.line.close()
        self.kernel.close()

    def judge(self) -> None:
        """Look at the exit code and the log, after the end.

        Raises:
            AssertionError: it did not end in order though nobody waited for its end, or it logged
                what ``expect_log`` does not know, or something that is no line.
        """
        bad = [
            line
            for line in self.log()
            if line.level != "INFO" and not any(known.search(line.text) for known in self._expected)
        ]
        if bad or not (self._over or self.process.returncode == 0):
            said = f"exit {self.process.returncode}, unexpected: {bad}"
            raise AssertionError(f"{said}\n{self.output}")

    def _read_log(self, timeout_s: float) -> None:
        """Read what lies in the pipe; wait that long for the first of it."""
        while self._log_end >= 0 and readable(self._log_end, timeout_s):
            piece = os.read(self._log_end, 1 << 16)
            if not piece:
                break
            self._output += piece
            timeout_s = 0.0


def find_keeper() -> Path | None:
    """The keeper program: what CAFS_KEEPER names, else the one beside the interpreter."""
    named = os.environ.get("CAFS_KEEPER")
    path = Path(named) if named else Path(sys.executable).parent / "cafs-keeper"
    return path if os.access(path, os.X_OK) else None
