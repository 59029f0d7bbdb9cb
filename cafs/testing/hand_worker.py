"""Workers whose every move a test makes by hand.

The keeper starts a worker by its command line, so the program is a stub of a few lines: it passes
its descriptors 3, 4 and 5 to the test by a socket and then only lives, or ends as it is told. The
test holds the same descriptions, reads the requests and writes the replies. The stub keeps its own
descriptors too, so that to the keeper its death looks like any worker's: the sockets close when it
ends, provided that the test closes its copies first, which ``kill`` and the like do.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cafs.testing.fuse_wire import MESSAGE_MAX, InitOut, Opcode, Reply, Request

DEADLINE_S: Final = 30.0
"""How long something that has to happen may take, unless a test says otherwise."""
_FDS: Final = 3
_PEER: Final = struct.Struct("=3i")
_STATFS: Final = bytes(80)
_LOST: Final = struct.Struct("=QQ")
_BEAT: Final = 1 << 63
_STUB: Final = """
import _signal, _socket, os, sys
line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
line.connect("\\0" + sys.argv[1])
numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in (3, 4, 5))
line.sendmsg([b"here"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
while order := line.recv(64):
    verb, number = order.split()
    if verb == b"exit":
        os._exit(int(number))
    _signal.signal(int(number), _signal.SIG_IGN)
    line.send(b"done")
"""


def readable(source: int | socket.socket, timeout_s: float) -> bool:
    """Wait until there is something to read, an end included; whether there is."""
    poller = select.poll()
    poller.register(source, select.POLLIN)
    return bool(poller.poll(max(0.0, timeout_s) * 1000))


def writable(target: socket.socket, timeout_s: float) -> bool:
    """Wait until something can be sent without waiting; whether it can."""
    poller = select.poll()
    poller.register(target, select.POLLOUT)
    return bool(poller.poll(max(0.0, timeout_s) * 1000))


def wait_readable(source: int | socket.socket, timeout_s: float, what: str) -> None:
    """Wait until there is something to read.

    Raises:
        TimeoutError: there is not; the message names ``what`` was waited for.
    """
    if not readable(source, timeout_s):
        raise TimeoutError(f"{what}: nothing within {timeout_s:.1f} s")


class Ending:
    """The end of a process, be it our child or not.

    Concurrency: one thread.
    """

    def __init__(self, pid: int) -> None:
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = None

    def has_come(self, timeout_s: float = 0.0) -> bool:
        """Wait for it that long; whether the process has ended, a zombie included."""
        return self._pidfd is None or readable(self._pidfd, timeout_s)

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, if it lives."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Look no longer."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class HandWorker:
    """A worker process, and the test's hold of its descriptors.

    ``requests`` is its descriptor 3, ``channel`` 4, ``word`` 5. With ``beats`` (as it begins) every
    heartbeat that ``receive`` meets is answered and not shown.

    Concurrency: one thread.
    """

    def __init__(self, line: socket.socket, fds: Sequence[int]) -> None:
        self._line = line
        self.pid: int = _PEER.unpack(
            line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        )[0]
        self.requests = socket.socket(fileno=fds[0])
        self.channel = socket.socket(fileno=fds[1])
        self.word = fds[2]
        self.beats = True
        self._ending = Ending(self.pid)

    def receive(self, timeout_s: float = DEADLINE_S) -> Request:
        """The next request.

        Raises:
            TimeoutError: none came.
            EOFError: none will come.
        """
        limit = time.monotonic() + timeout_s
        while True:
            wait_readable(self.requests, limit - time.monotonic(), f"worker {self.pid}")
            message = self.requests.recv(MESSAGE_MAX)
            if not message:
                raise EOFError(f"worker {self.pid}: its requests have ended")
            request = Request.decode(message)
            if not (self.beats and is_beat(request)):
                return request
            self.reply(request, _STATFS)

    def waiting(self) -> list[Request]:
        """All requests that can be read now."""
        found = []
        while readable(self.requests, 0.0):
            try:
                found.append(self.receive(0.0))
            except TimeoutError:
                break
        return found

    def beat(self, timeout_s: float = DEADLINE_S) -> Request:
        """The next request, which has to be a heartbeat; not answered.

        Raises:
            AssertionError: it is none.
        """
        wait_readable(self.requests, timeout_s, f"worker {self.pid}: a heartbeat")
        request = Request.decode(self.requests.recv(MESSAGE_MAX))
        if not is_beat(request):
            raise AssertionError(f"not a heartbeat: {request}")
        return request

    def reply(self, request: Request, body: bytes = b"", error: int = 0) -> None:
        """Answer a request."""
        self.send(Reply(request.unique, error, body).encode())

    def reply_beat(self, request: Request) -> None:
        """Answer a heartbeat."""
        self.reply(request, _STATFS)

    def send(self, message: bytes) -> None:
        """Send whatever it be to where replies go.

        Raises:
            TimeoutError: the keeper does not read.
        """
        if not writable(self.requests, DEADLINE_S):
            raise TimeoutError(f"worker {self.pid}: the keeper does not read replies")
        self.requests.send(message)

    def notify(self, code: int, body: bytes) -> None:
        """Send a notification."""
        self.send(Reply.pack(0, code, body))

    def lease(self, *fds: int, text: bytes = b"L") -> None:
        """Send ``L``, or whatever it be, with these descriptors on the channel."""
        socket.send_fds(self.channel, [text], fds)

    def ask_again(self, node: int, offset: int) -> None:
        """Say on the channel that the answer to a READ or READDIR has been lost."""
        self.channel.send(b"A" + _LOST.pack(node, offset))

    def told(self, timeout_s: float = DEADLINE_S) -> bytes:
        """What the keeper says next on the channel; empty when it has closed it.

        Raises:
            TimeoutError: nothing.
        """
        wait_readable(self.channel, timeout_s, f"worker {self.pid}: the channel")
        return self.channel.recv(MESSAGE_MAX)

    def begin(self, answer: InitOut | None = None, timeout_s: float = DEADLINE_S) -> Request:
        """Answer INIT, which has to be the first request; what INIT was.

        Raises:
            AssertionError: something else came first.
        """
        request = self.receive(timeout_s)
        if request.opcode != Opcode.INIT:
            raise AssertionError(f"not INIT: {request}")
        self.reply(request, (answer or InitOut()).encode())
        return request

    def take_over(self, answer: InitOut | None = None) -> None:
        """Answer INIT, the heartbeat that a later worker is tried by, and that of its service."""
        self.begin(answer)
        self.reply_beat(self.beat())
        self.reply_beat(self.beat())

    def ignore_term(self) -> None:
        """Have the process ignore SIGTERM from now on."""
        self._line.send(f"ignore {signal.SIGTERM:d}".encode())
        wait_readable(self._line, DEADLINE_S, f"worker {self.pid}: an order")
        self._line.recv(64)

    def exit(self, code: int) -> None:
        """End the process with a code, and wait for that."""
        self.let_go()
        self._line.send(f"exit {code}".encode())
        self.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process with a signal, and wait for that."""
        self.let_go()
        self._ending.send(number)
        self.wait()

    def stop(self) -> None:
        """Stop the process, as SIGSTOP does."""
        self._ending.send(signal.SIGSTOP)

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Wait that long for the process to end; whether it has."""
        return self._ending.has_come(timeout_s)

    def wait(self, timeout_s: float = DEADLINE_S) -> None:
        """Wait for the process to end.

        Raises:
            TimeoutError: it lives on.
        """
        if not self.has_ended(timeout_s):
            raise TimeoutError(f"worker {self.pid} lives on")

    def proc(self, name: str) -> str:
        """A file of the process in /proc."""
        return Path(f"/proc/{self.pid}/{name}").read_text(errors="replace")

    def let_go(self) -> None:
        """Close the test's copies of the descriptors; the process keeps its own."""
        self.requests.close()
        self.channel.close()
        if self.word >= 0:
            os.close(self.word)
            self.word = -1

    def close(self) -> None:
        """Let go of everything, and end the process, if it has not ended."""
        self.let_go()
        self._line.close()
        self._ending.send(signal.SIGKILL)
        self._ending.close()


class HandWorkers:
    """Where the workers of one keeper report.

    The name is in the abstract namespace, so that a worker of another user may connect too.

    Concurrency: one thread.
    """

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind("")
        self._listener.listen(64)
        name: bytes = self._listener.getsockname()
        self.command: Sequence[str] = (
            str(Path(sys.executable).resolve()),
            "-I",
            "-S",
            "-c",
            _STUB,
            name[1:].decode("ascii"),
        )
        self._all: list[HandWorker] = []

    def next(self, timeout_s: float = DEADLINE_S) -> HandWorker:
        """The next worker that was started.

        Raises:
            TimeoutError: none was.
        """
        limit = time.monotonic() + timeout_s
        while True:
            wait_readable(self._listener, limit - time.monotonic(), "a new worker")
            line, _ = self._listener.accept()
            wait_readable(line, limit - time.monotonic(), "a new worker's descriptors")
            message, fds, _, _ = socket.recv_fds(line, 64, _FDS, socket.MSG_CMSG_CLOEXEC)
            if message:
                worker = HandWorker(line, fds)
                self._all.append(worker)
                return worker
            line.close()

    def none_comes(self, timeout_s: float) -> bool:
        """Whether nobody reports for that long."""
        return not readable(self._listener, timeout_s)

    def end_all(self) -> None:
        """End those who have reported."""
        for worker in self._all:
            worker.close()

    def close(self) -> None:
        """End those who have reported, and listen no longer."""
        self.end_all()
        self._listener.close()


def is_beat(request: Request) -> bool:
    """Whether it is the keeper's heartbeat and no reader's question."""
    return request.opcode == Opcode.STATFS and request.unique >= _BEAT
