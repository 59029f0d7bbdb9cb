"""The wire side of the test origin: HTTP/1.1 by h11, and the book of what was sent.

Bytes are handed to the kernel and booked under one lock, so whoever has received a byte finds it in
the book, and the book never has one that was not sent.
"""

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Final

import h11
import trio

from cafs.testing.answers import Answer, Ask, Headers

_SEND_BUFFER: Final = 64 << 10
_PIECE: Final = 64 << 10
_RECEIVE: Final = 64 << 10
_BURST_S: Final = 0.02
_RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST
_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and how far its answer came.

    ``status`` is 0 before the head was sent. ``bytes_sent`` counts the body. ``ended`` is false
    while it is under way; ``aborted`` says that it ended before its end, by either side.
    """

    method: str
    path: str
    query: str
    headers: Headers
    status: int = 0
    bytes_sent: int = 0
    ended: bool = False
    aborted: bool = False

    def header(self, name: str) -> str | None:
        """The first request header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)


class Line:
    """A line of limited bandwidth that many responses share.

    What an oversleeping timer loses is made up for within ``_BURST_S``.

    Concurrency: one trio run.
    """

    def __init__(self) -> None:
        self._free_s = 0.0

    def admit(self, length_s: float, now_s: float) -> float:
        """Queue a piece that takes so long; the time at which it may be sent."""
        self._free_s = max(self._free_s, now_s - _BURST_S) + length_s
        return self._free_s


class _Entry:
    """An exchange that is still being written."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.status = 0
        self.bytes_sent = 0
        self.ended = False
        self.aborted = False
        self.waiting = False

    def value(self) -> Exchange:
        """It, as it is now."""
        ask = self.ask
        return Exchange(
            ask.method,
            ask.path,
            ask.query,
            ask.headers,
            self.status,
            self.bytes_sent,
            self.ended,
            self.aborted,
        )


class Ledger:
    """The book of requests, and the gate where stalled ones wait.

    Concurrency: written by the origin's thread, read by any.
    """

    def __init__(self, report: Callable[[Exchange], None] | None = None) -> None:
        self._changed = threading.Condition()
        self._entries: list[_Entry] = []
        self._report = report
        self._gate: tuple[trio.lowlevel.TrioToken, trio.Event] | None = None
        self._silent: frozenset[str] = frozenset()
        self.connections = 0
        self.line = Line()

    def open(self, ask: Ask) -> _Entry:
        """A request came."""
        entry = _Entry(ask)
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def close(self, entry: _Entry, *, aborted: bool) -> None:
        """Its answer is over."""
        with self._changed:
            entry.aborted = aborted
            entry.ended = True
            self._changed.notify_all()
        if self._report is not None:
            self._report(entry.value())

    def exchanges(self) -> tuple[Exchange, ...]:
        """All of them, by arrival."""
        with self._changed:
            return tuple(entry.value() for entry in self._entries)

    def forget(self) -> None:
        """Empty the book."""
        with self._changed:
            self._entries.clear()

    def settle(self, timeout_s: float) -> bool:
        """Wait until every exchange has ended or waits at the gate; whether that came."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(entry.ended or entry.waiting for entry in self._entries), timeout_s
            )

    def wait_until(self, holds: Callable[[tuple[Exchange, ...]], bool], timeout_s: float) -> bool:
        """Wait until the exchanges are as ``holds`` wants them; whether that came."""
        with self._changed:
            return self._changed.wait_for(
                lambda: holds(tuple(entry.value() for entry in self._entries)), timeout_s
            )

    def head(self, entry: _Entry, status: int) -> None:
        """The head is about to be sent."""
        with self._changed:
            entry.status = status
            self._changed.notify_all()

    def write(self, entry: _Entry, file: int, data: memoryview) -> int:
        """Give the kernel what it takes now of the body, and book that; how many bytes.

        Raises:
            BlockingIOError: it takes nothing now.
            OSError: the client went away.
        """
        with self._changed:
            count = os.write(file, data)
            entry.bytes_sent += count
            self._changed.notify_all()
        return count

    async def wait(self, entry: _Entry, stream: trio.SocketStream) -> bool:
        """Wait at the gate; false when the client went away meanwhile."""
        with self._changed:
            if self._gate is None:
                self._gate = (trio.lowlevel.current_trio_token(), trio.Event())
            event = self._gate[1]
            entry.waiting = True
            self._changed.notify_all()
        gone = False

        async def watch() -> None:
            nonlocal gone
            gone = await _gone(stream)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await event.wait()
            nursery.cancel_scope.cancel()
        with self._changed:
            entry.waiting = False
        return not gone

    def silence(self, path: str) -> None:
        """Let every response of a path wait at the gate where it is now, or when it begins."""
        with self._changed:
            self._silent |= {path}

    def is_silent(self, path: str) -> bool:
        """Whether responses of a path wait."""
        return path in self._silent

    def release(self) -> None:
        """Open the gate for those who wait; later ones wait again, unless for a silent path."""
        with self._changed:
            self._silent = frozenset()
            gate, self._gate = self._gate, None
        if gate is not None:
            try:
                gate[0].run_sync_soon(gate[1].set)
            except trio.RunFinishedError:
                return  # the origin is down, and those who waited are gone with it


async def _gone(stream: trio.SocketStream) -> bool:
    """Wait until the client closes or resets; false when it sends more instead."""
    try:
        return not await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


class _CutError(Exception):
    """This answer ends here, and its connection with it."""


class _Connection:
    """One connection: h11's state, and bytes in and out.

    Concurrency: one task.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._state = h11.Connection(h11.SERVER)

    @property
    def stream(self) -> trio.SocketStream:
        """The stream underneath."""
        return self._stream

    async def ask(self) -> Ask | None:
        """The next request, with its body; None when no more will come."""
        if self._state.our_state is h11.DONE and self._state.their_state is h11.DONE:
            self._state.start_next_cycle()
        if self._state.our_state is not h11.IDLE:
            return None
        ask, body = None, b""
        while True:
            event = self._state.next_event()
            if event is h11.NEED_DATA:
                self._state.receive_data(await self._stream.receive_some(_RECEIVE))
            elif isinstance(event, h11.Request):
                ask = _ask_of(event)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return ask and replace(ask, body=body)
            else:
                return None

    async def head(self, answer: Answer) -> None:
        """Send the head."""
        headers = [("Date", formatdate(usegmt=True)), *answer.headers]
        if answer.chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif answer.status not in _BODILESS:
            headers.append(("Content-Length", str(answer.span.length)))
        event = h11.Response(
            status_code=answer.status, headers=headers, reason=_reason(answer.status)
        )
        head = self._state.send(event) or b""
        if not answer.head_interval_s:
            await self._stream.send_all(head)
            return
        for place in range(len(head)):
            await self._stream.send_all(head[place : place + 1])
            await trio.sleep(answer.head_interval_s)

    async def piece(self, data: bytes, write: Callable[[int, memoryview], int]) -> None:
        """Send bytes of the body by ``write`` (of a descriptor), their framing as it is."""
        for part in self._state.send_with_data_passthrough(h11.Data(data=data)) or ():
            if part is data:
                await self._written(memoryview(data), write)
            else:
                await self._stream.send_all(part)

    async def end(self) -> None:
        """Send what ends the body."""
        await self._stream.send_all(self._state.send(h11.EndOfMessage()) or b"")

    async def _written(self, unsent: memoryview, write: Callable[[int, memoryview], int]) -> None:
        wire = self._stream.socket
        while unsent:
            await trio.lowlevel.wait_writable(wire)
            try:
                unsent = unsent[write(wire.fileno(), unsent) :]
            except BlockingIOError:
                continue  # writable is a hint, not a promise


async def serve(
    answers: Callable[[Ask], Answer], ledger: Ledger, stream: trio.SocketStream
) -> None:
    """Answer one connection until either side has enough."""
    ledger.connections += 1
    # A small buffer, so that what counts as sent is nearly what the client took.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    connection = _Connection(stream)
    try:
        while (ask := await connection.ask()) is not None:
            await _exchange(connection, ledger, ask, answers(ask))
    except (_CutError, trio.BrokenResourceError, h11.RemoteProtocolError):
        return
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT}:
            raise
    finally:
        await stream.aclose()


async def _exchange(connection: _Connection, ledger: Ledger, ask: Ask, answer: Answer) -> None:
    entry = ledger.open(ask)
    aborted = True
    try:
        await trio.sleep(answer.delay_s)
        hangs = answer.hang or ledger.is_silent(ask.path)
        if hangs and not await ledger.wait(entry, connection.stream):
            raise _CutError
        ledger.head(entry, int(answer.status))
        await connection.head(answer)
        if ask.method != "HEAD" and answer.status not in _BODILESS:
            await _body(connection, ledger, entry, answer)
        # The last byte may be at the client before this line: it is over when it was booked.
        aborted = False
        ledger.close(entry, aborted=False)
        await connection.end()
    finally:
        if aborted:
            ledger.close(entry, aborted=True)


async def _body(connection: _Connection, ledger: Ledger, entry: _Entry, answer: Answer) -> None:
    started = trio.current_time()
    sent = 0
    while True:
        stalls = sent == answer.stall_after or ledger.is_silent(entry.ask.path)
        if stalls and not await ledger.wait(entry, connection.stream):
            raise _CutError
        if answer.cut_after is not None and sent >= answer.cut_after:
            if answer.reset:
                connection.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            raise _CutError
        length = _next_length(answer, sent)
        if not length:
            return
        if answer.rate is not None and answer.shared:
            await trio.sleep_until(ledger.line.admit(length / answer.rate, trio.current_time()))
        elif answer.rate is not None:
            await trio.sleep_until(started + (sent + length) / answer.rate)
        data = answer.body.read(answer.span.start + sent, length)
        if not data:
            raise _CutError
        await connection.piece(data, partial(ledger.write, entry))
        sent += len(data)


def _next_length(answer: Answer, sent: int) -> int:
    """Bytes of the next piece: it ends where the next thing is to go wrong."""
    piece = _PIECE if answer.rate is None else max(1, min(_PIECE, int(answer.rate / 50)))
    marks = [answer.span.length, sent + piece]
    marks += [m for m in (answer.stall_after, answer.cut_after) if m is not None and m > sent]
    return min(marks) - sent


def _ask_of(request: h11.Request) -> Ask:
    path, _, query = request.target.decode("ascii").partition("?")
    headers = tuple((name.decode("ascii"), value.decode()) for name, value in request.headers)
    return Ask(request.method.decode("ascii"), path, query, headers)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown"
