"""A keeper whose every move a test makes by hand, over real workers; nothing is mounted.

Workers are started with the command line and the descriptors that a keeper gives them. The test
asks what a kernel would ask, hears what they lend and say, and ends them as a keeper would.
"""

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from cafs.testing.command import Cafs
from cafs.testing.fuse_wire import MESSAGE_MAX, InitIn, Opcode, Reply, Request
from cafs.testing.hand_worker import readable, wait_readable

OWNER: Final = (12, 34)
"""Whose the nodes are."""
_ABOVE: Final = 100
"""Descriptors from here on are in nobody's way."""
_HEARTBEAT: Final = 1 << 63
"""What the numbers of a keeper's own requests have."""
_START_S: Final = 60.0
_END_S: Final = 60.0


class Said(msgspec.Struct, frozen=True):
    """A worker's word."""

    class Failure(msgspec.Struct, frozen=True):
        """Why it does not serve."""

        what: str
        hint: str
        exit: int

    class Ready(msgspec.Struct, frozen=True):
        """It serves."""

        pid: int

    ready: Ready | None = None
    failure: Failure | None = None


class KeptWorker:
    """A real worker that believes to have a keeper.

    ``lease`` is the descriptor that it lent, None before it did.

    Concurrency: one thread.
    """

    def __init__(
        self, pid: int, requests: socket.socket, channel: socket.socket, word: int, log: Path
    ) -> None:
        self.pid = pid
        self.log = log
        self.lease: int | None = None
        self.notices: list[bytes] = []
        self._requests = requests
        self._channel = channel
        self._word = word
        self._unique = 0
        self._code: int | None = None

    def send(self, opcode: Opcode, node: int = 1, body: bytes = b"") -> Request:
        """Ask something, and do not wait for the answer."""
        self._unique += 2
        request = Request(opcode, self._unique, node, body, pid=os.getpid())
        self._requests.send(request.encode())
        return request

    def ask(self, opcode: Opcode, node: int = 1, body: bytes = b"") -> Reply:
        """Ask something, and wait for the answer.

        Raises:
            AssertionError: there is none, or another one.
        """
        request = self.send(opcode, node, body)
        reply = self._answer()
        assert reply.unique == request.unique, reply  # noqa: S101 - the test kit's own claim
        return reply

    def _answer(self) -> Reply:
        """The next reply; notifications before it are kept: nothing is cached here for them."""
        reply = self._reply()
        while not reply.unique:
            self.notices.append(reply.body)
            reply = self._reply()
        return reply

    def _reply(self) -> Reply:
        wait_readable(self._requests, _START_S, f"worker {self.pid}: the answer")
        message = self._requests.recv(MESSAGE_MAX)
        assert message, f"worker {self.pid} has ended: {self.log.read_text()}"  # noqa: S101
        return Reply.decode(message)

    def initialise(self) -> None:
        """Send INIT, and wait for the answer."""
        self.ask(Opcode.INIT, 0, InitIn().encode())

    def beat(self) -> None:
        """Send a heartbeat, and wait for the answer."""
        self._unique += 2
        request = Request(Opcode.STATFS, self._unique | _HEARTBEAT, 1, pid=0)
        self._requests.send(request.encode())
        assert self._answer().unique == request.unique  # noqa: S101 - the test kit's own claim

    def begin(self) -> Said:
        """Let it serve, as ``resume``, and return its word."""
        self.resume()
        return self.word()

    def resume(self) -> None:
        """Let it serve, after INIT and a heartbeat, and know it, by another one."""
        self.initialise()
        self.beat()
        self.beat()

    def word(self) -> Said:
        """What the worker says of itself first.

        Raises:
            AssertionError: it has ended without a word.
        """
        wait_readable(self._word, _START_S, f"worker {self.pid}: its word")
        line = os.read(self._word, MESSAGE_MAX)
        assert line, f"worker {self.pid} ended without a word: {self.log.read_text()}"  # noqa: S101
        return msgspec.json.decode(line, type=Said)

    def has_spoken(self) -> bool:
        """Whether a word waits to be heard."""
        return readable(self._word, 0)

    def take_lease(self) -> int:
        """The descriptor that the worker lends; the caller closes it."""
        wait_readable(self._channel, _START_S, f"worker {self.pid}: its lease")
        message, fds, _, _ = socket.recv_fds(self._channel, MESSAGE_MAX, 4)
        assert (message, len(fds)) == (b"L", 1)  # noqa: S101
        return fds[0]

    def lends(self) -> bool:
        """Whether the worker has lent something that was not taken."""
        with suppress(BlockingIOError):
            return bool(self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        return False

    def tell(self, message: bytes) -> None:
        """Say something on the channel."""
        self._channel.send(message)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def stop_listening(self) -> None:
        """Close the pipe of the word, as the death of ``cafs mount`` does."""
        os.close(self._word)
        self._word = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def hang_up(self) -> None:
        """Close the channel and the requests, as the death of a keeper does."""
        self._channel.close()
        self._requests.close()

    def code(self) -> int:
        """Wait for the worker's end, and return its exit code; negative for a signal."""
        if self._code is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                wait_readable(descriptor, _END_S, f"worker {self.pid}: its end")
            finally:
                os.close(descriptor)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def close(self) -> None:
        """Kill the worker, if it still runs, and close everything."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.code()
        self.hang_up()
        os.close(self._word)


class HandKeeper:
    """Starts workers of one mount. What they log is in ``log``.

    Args:
        cafs: the world that they live in.
        key: the mount's.
        mount_point: where they believe to be mounted; nothing is.

    Concurrency: one thread.
    """

    def __init__(self, cafs: Cafs, key: str, mount_point: Path) -> None:
        self._cafs = cafs
        self._key = key
        self._mount_point = mount_point
        self.log = cafs.directory.with_name("worker.log")

    def command(self, *flags: str) -> list[str]:
        """A worker's command line, with these flags of ``cafs mount``."""
        project = self._cafs.directory / "cafs.toml"
        pinned = [f"--store={self._cafs.store}", f"--config={project}"]
        owner = "{}:{}".format(*OWNER)
        names = ["--key", self._key, "--owner", owner, "--", str(self._mount_point)]
        return [sys.executable, "-P", "-m", "cafs", "worker", *pinned, *flags, *names]

    @contextmanager
    def worker(self, *flags: str) -> Iterator[KeptWorker]:
        """A worker whose word is waited for; it is killed at the end."""
        started = self._start(self.command(*flags), *os.pipe())
        try:
            yield started
        finally:
            started.close()

    @contextmanager
    def successor(self) -> Iterator[KeptWorker]:
        """A worker that takes the place of one that has ended; it is killed at the end."""
        nobody = [os.open(os.devnull, mode | os.O_CLOEXEC) for mode in (os.O_RDONLY, os.O_RDWR)]
        started = self._start(self.command(), *nobody)
        try:
            yield started
        finally:
            started.close()

    def _start(self, command: list[str], listen: int, speak: int) -> KeptWorker:
        requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
        channel, its_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self.log.open("ab") as log, theirs, its_channel:
            # Above the places where they are to be, so that none is in the way of another.
            given = [theirs.fileno(), its_channel.fileno(), speak, log.fileno()]
            above = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for each in given]
            places = {3: above[0], 4: above[1], 5: above[2], 1: above[3], 2: above[3]}
            pid = os.posix_spawn(
                command[0],
                command,
                self._cafs.environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    *((os.POSIX_SPAWN_DUP2, fd, place) for place, fd in places.items()),
                ],
                setsigmask=[],
            )
            for each in (*above, speak):
                os.close(each)
        return KeptWorker(pid, requests, channel, listen, self.log)
