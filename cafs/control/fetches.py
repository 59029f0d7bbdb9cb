"""What a process fetches, and how it is told to stop: the words, and the end that asks.

Every process that fetches for longer than a moment, a worker or ``cafs prefetch``, listens on a
socket of its own (``listening``). A person can ask it too: one JSON object on a line each way, as
``echo '{"ask":"inflight"}' | nc -NU SOCKET``. ``docs/processes.md`` has the protocol.
"""

import errno
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from cafs.errors import MountError
from cafs.fetch.interfaces import Inflight
from cafs.model.address import shown

SUFFIX: Final = ".fetches"
"""Of the sockets' names; before it stand whom it is of, and a pid."""
_ANSWER_S: Final = 5.0
"""How long a process may take to answer; it needs milliseconds."""
_MOST: Final = 64 << 20
"""Bytes of an answer: 4,096 requests with 8 KiB of names and URLs each are half of it."""
_PIECE: Final = 1 << 16
_NOBODY: Final = frozenset({errno.ECONNREFUSED, errno.ENOENT})


class FetchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One fetch under way: ``received`` bytes of ``[start, stop)`` in ``seconds`` so far.

    ``id`` names the content, for ``cafs cancel``: several fetches of one content have the same.
    ``url`` is without secrets, and empty while it waits for its turn.
    """

    id: str
    name: str
    url: str
    start: int
    stop: int
    received: int
    seconds: float
    priority: str


class Fetching(msgspec.Struct, frozen=True, kw_only=True):
    """What one process fetches now; ``mount_point`` is None for one that has no mount."""

    pid: int
    mount_point: str | None
    inflight: tuple[FetchStatus, ...]


class Command(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked: ``inflight``, or ``cancel`` with an ``id``; without one all is meant."""

    ask: Literal["inflight", "cancel"]
    id: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of them: what is fetched, the names of what was cancelled, why there is none."""

    fetching: Fetching | None = None
    cancelled: tuple[str, ...] | None = None
    error: str | None = None


def fetch_status(flights: Sequence[Inflight], now_s: float) -> tuple[FetchStatus, ...]:
    """The fetches under way in words; ``now_s`` is since the epoch."""
    return tuple(
        FetchStatus(
            id=flight.id,
            name=flight.name,
            url=shown(flight.url),
            start=flight.span.start,
            stop=flight.span.stop,
            received=flight.received,
            seconds=round(now_s - flight.since, 3),
            priority=flight.priority.name.lower(),
        )
        for flight in flights
    )


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """Another name of a path in the block, short enough for a socket's address.

    Raises:
        OSError: its directory is not there.
    """
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def sockets(directory: Path, of: str = "") -> list[Path]:
    """The sockets in a directory, of one owner or of all; some may be left over from the dead."""
    try:
        found = [path for path in directory.iterdir() if path.name.endswith(SUFFIX)]
    except FileNotFoundError:
        return []
    return sorted(path for path in found if not of or path.name.startswith(f"{of}."))


def inflight(path: Path) -> Fetching | None:
    """What the process at a socket fetches; None when it has ended. Blocks for 5 s at most.

    Raises:
        MountError: it does not answer.
    """
    return _ask(path, Command(ask="inflight")).fetching


def cancel(path: Path, id_: str | None = None) -> tuple[str, ...]:
    """Have the process at a socket end a fetch, or all; the names of what was ended.

    Blocks for 5 s at most.

    Raises:
        MountError: it does not answer.
    """
    return _ask(path, Command(ask="cancel", id=id_)).cancelled or ()


def sweep(directory: Path, of: str) -> None:
    """Remove the sockets of one owner that nobody listens on any more."""
    for path in sockets(directory, of):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # one that is busy, and would let us wait, is alive
            with reachable(path) as name:
                known = probe.connect_ex(name)
            if known == errno.ECONNREFUSED:
                _remove(path)


def _ask(path: Path, command: Command) -> Answer:
    """What a process answers; nothing when it has ended."""
    limit = time.monotonic() + _ANSWER_S
    try:
        with socket.socket(socket.AF_UNIX) as connection, reachable(path) as name:
            connection.settimeout(_ANSWER_S)
            connection.connect(name)
            connection.sendall(msgspec.json.encode(command) + b"\n")
            told = _line(connection, limit)
    except (BlockingIOError, TimeoutError) as error:
        raise MountError(f"nothing answers within {_ANSWER_S:g} s at {path}") from error
    except OSError as error:
        if error.errno not in _NOBODY:
            raise MountError(f"{path} cannot be asked: {error.strerror}") from error
        _remove(path)
        return Answer()
    if not told:
        return Answer()  # it ended while it was asked
    try:
        answer = msgspec.json.decode(told, type=Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MountError(f"{path} speaks of other things: {error}") from error
    if answer.error is not None:
        raise MountError(f"{path}: {answer.error}")
    return answer


def _line(connection: socket.socket, limit: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size <= _MOST:
        connection.settimeout(max(limit - time.monotonic(), 0.001))
        piece = connection.recv(_PIECE)
        pieces.append(piece)
        size += len(piece)
        if not piece or piece.endswith(b"\n"):
            return b"".join(pieces)
    raise OSError(errno.EMSGSIZE, "an answer without end")


def _remove(path: Path) -> None:
    """Remove what a process that was killed has left; it may have been removed by others."""
    with suppress(OSError):
        path.unlink()
