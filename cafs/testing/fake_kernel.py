"""The kernel's side of /dev/fuse, played by a test.

A SOCK_SEQPACKET pair speaks like the device: a read gives one request, a write takes one reply. It
is as strict about replies as Linux is, and gives the next request only when there is room.
"""

import os
import socket
import time
from typing import Final

from cafs.testing.fuse_wire import MESSAGE_MAX, Opcode, Reply, Request, interrupt_body
from cafs.testing.hand_worker import DEADLINE_S, readable, wait_readable, writable

_POLL_S: Final = 0.005
_SILENT: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET})


class FakeKernel:
    """The kernel's side of the device.

    ``notices`` are the notifications that came so far, ``line`` is the socket itself.

    Concurrency: one thread.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_SEQPACKET
        self.line, self.keepers_end = socket.socketpair(socket.AF_UNIX, kind)
        # The device takes any length; a socket with its usual buffer does not.
        self.keepers_end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_MAX)
        self._last = 0
        self._waiting: dict[int, Request] = {}
        self._early: dict[int, Reply] = {}
        self.notices: list[Reply] = []

    def make(
        self, opcode: int, body: bytes = b"", *, nodeid: int = 1, pid: int | None = None
    ) -> Request:
        """A request with a unique of its own, not sent; the reader is this process."""
        self._last += 2
        return Request(opcode, self._last, nodeid, body, os.getpid() if pid is None else pid)

    def push(self, request: Request) -> bool:
        """Send a request if that needs no waiting; whether it was sent."""
        if not writable(self.line, 0.0):
            return False
        try:
            self.line.send(request.encode(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        if request.opcode not in _SILENT:
            self._waiting[request.unique] = request
        return True

    def send(
        self, opcode: int, body: bytes = b"", *, nodeid: int = 1, pid: int | None = None
    ) -> Request:
        """Make a request and send it.

        Raises:
            TimeoutError: the keeper does not read.
        """
        request = self.make(opcode, body, nodeid=nodeid, pid=pid)
        self._send(request)
        return request

    def receive(self, timeout_s: float = DEADLINE_S) -> Reply:
        """The next reply, in the order of their coming.

        Raises:
            TimeoutError: none came.
            EOFError: the keeper has closed the device.
            MalformedMessageError: what came is none.
            AssertionError: nobody waits for what came.
        """
        limit = time.monotonic() + timeout_s
        while True:
            wait_readable(self.line, limit - time.monotonic(), "a reply")
            message = self.line.recv(MESSAGE_MAX)
            if not message:
                raise EOFError("the keeper has closed the device")
            reply = Reply.decode(message)
            if reply.unique:
                if self._waiting.pop(reply.unique, None) is None:
                    raise AssertionError(f"nobody waits for {reply}")
                return reply
            self.notices.append(reply)

    def reply_to(self, request: Request, timeout_s: float = DEADLINE_S) -> Reply:
        """The reply to a request; others that come before are kept for their askers.

        Raises:
            TimeoutError: it did not come; other circumstances as ``receive`` has them.
        """
        limit = time.monotonic() + timeout_s
        while request.unique not in self._early:
            reply = self.receive(limit - time.monotonic())
            self._early[reply.unique] = reply
        return self._early.pop(request.unique)

    def ask(
        self, opcode: int, body: bytes = b"", *, nodeid: int = 1, pid: int | None = None
    ) -> Reply:
        """Send a request, and wait for its reply: that of one that the keeper answers itself."""
        return self.reply_to(self.send(opcode, body, nodeid=nodeid, pid=pid))

    def interrupt(self, request: Request) -> Request:
        """Tell the keeper that a request's reader has got a signal, as Linux does it.

        Raises:
            TimeoutError: the keeper does not read.
        """
        told = Request(Opcode.INTERRUPT, request.unique | 1, 0, interrupt_body(request.unique))
        self._send(told)
        return told

    def notice(self, timeout_s: float = DEADLINE_S) -> Reply:
        """The oldest notification that was not asked for yet.

        Raises:
            TimeoutError: none came; other circumstances as ``receive`` has them.
        """
        limit = time.monotonic() + timeout_s
        while not self.notices:
            wait_readable(self.line, limit - time.monotonic(), "a notification")
            self.notices.append(Reply.decode(self.line.recv(MESSAGE_MAX)))
            if self.notices[-1].unique:
                raise AssertionError(f"not a notification: {self.notices[-1]}")
        return self.notices.pop(0)

    def is_quiet(self, timeout_s: float = 0.0) -> bool:
        """Whether nothing comes for that long."""
        return not readable(self.line, timeout_s)

    def _send(self, request: Request) -> None:
        limit = time.monotonic() + DEADLINE_S
        while not self.push(request):
            if time.monotonic() > limit:
                raise TimeoutError("the keeper does not read requests")
            writable(self.line, _POLL_S)

    @property
    def unanswered(self) -> tuple[Request, ...]:
        """The requests whose replies have not come, in the order of sending."""
        return tuple(self._waiting.values())

    def close(self) -> None:
        """End the mount, as an unmount would: the keeper reads the end."""
        self.line.close()
