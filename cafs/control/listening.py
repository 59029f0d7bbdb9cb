"""A socket by which a process that fetches is asked what, and told to stop; ``fetches`` asks it."""

import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec
import trio

from cafs.control.fetches import (
    SUFFIX,
    Answer,
    Command,
    Fetching,
    fetch_status,
    reachable,
    sweep,
)
from cafs.fetch.interfaces import Inflight

_LOG: Final = logging.getLogger("cafs.control")
_CLIENT_S: Final = 5.0
"""How long one that asks may take, from the beginning to the end."""
_CLIENTS: Final = 16
"""How many are answered at once; others wait in the backlog."""
_LONGEST: Final = 4096
"""Bytes of a command."""
_PEER: Final = struct.Struct("=iII")
"""struct ucred: pid, uid, gid. Source: unix(7), SO_PEERCRED."""


class Fetches(Protocol):
    """What is asked for here. Called in the trio thread; nothing awaits."""

    def inflight(self) -> Sequence[Inflight]:
        """What is under way."""

    def cancel(self, id_: str | None = None) -> Sequence[str]:
        """End fetches; the names of what was ended."""


@asynccontextmanager
async def listening(
    directory: Path, of: str, fetches: Fetches, *, mount_point: str | None
) -> AsyncIterator[None]:
    """Listen for the time of the block.

    Without a socket all else works, so that a directory which cannot be used costs a warning only.

    Args:
        directory: where the socket is to be; nobody else may enter it.
        of: whom the socket is of: the name of a mount, or another word. What processes of the same
            name have left there, as they were killed, is removed.
        fetches: what is fetched.
        mount_point: what that is for; None for no mount.

    Cancellation: the socket is gone.
    """
    try:
        sweep(directory, of)
        door, path = _open(directory, of)
    except OSError as error:
        _LOG.warning("control.fetches.unheard directory=%s error=%s", directory, error.strerror)
        yield
        return
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, door, fetches, mount_point)
            yield
            nursery.cancel_scope.cancel()
    finally:
        door.close()
        with suppress(OSError):
            path.unlink()


def _open(directory: Path, of: str) -> tuple[trio.socket.SocketType, Path]:
    """A socket that listens, and its path. It has its name when it can be connected to.

    Raises:
        OSError: it cannot be made.
    """
    draft = directory / f"{of}.{os.getpid()}"
    path = draft.with_name(draft.name + SUFFIX)
    made = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            draft.unlink()  # of a process that had our number, and was killed half-way
        with reachable(draft) as name:
            made.bind(name)
        draft.chmod(0o600)
        made.listen()
        draft.rename(path)
    except BaseException:
        made.close()
        raise
    return trio.socket.from_stdlib_socket(made), path


async def _listen(door: trio.socket.SocketType, fetches: Fetches, mount_point: str | None) -> None:
    limiter = trio.CapacityLimiter(_CLIENTS)
    async with trio.open_nursery() as nursery:
        while True:
            await limiter.acquire_on_behalf_of(ticket := object())
            try:
                client, _ = await door.accept()
            except OSError as error:
                limiter.release_on_behalf_of(ticket)
                _LOG.info("control.accept.failed error=%s", error.strerror)
                await trio.sleep(1)  # as long as there are no descriptors
                continue
            nursery.start_soon(_attend, client, fetches, mount_point, limiter, ticket)


async def _attend(
    client: trio.socket.SocketType,
    fetches: Fetches,
    mount_point: str | None,
    limiter: trio.CapacityLimiter,
    ticket: object,
) -> None:
    """Answer one that asks, if it may."""
    try:
        with client, trio.move_on_after(_CLIENT_S):
            stream = trio.SocketStream(client)
            if _may_ask(client):
                answer = _answer(await _line(stream), fetches, mount_point)
                await stream.send_all(msgspec.json.encode(answer) + b"\n")
    except (OSError, trio.BrokenResourceError) as error:
        _LOG.info("control.client.gone error=%s", error)
    finally:
        limiter.release_on_behalf_of(ticket)


def _may_ask(client: trio.socket.SocketType) -> bool:
    told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(told)
    return user in {0, os.geteuid()}


async def _line(stream: trio.SocketStream) -> bytes:
    said = b""
    while b"\n" not in said and len(said) <= _LONGEST:
        piece = await stream.receive_some(_LONGEST)
        if not piece:
            break
        said += piece
    return said


def _answer(said: bytes, fetches: Fetches, mount_point: str | None) -> Answer:
    try:
        command = msgspec.json.decode(said[:_LONGEST], type=Command)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Answer(error=f"no command: {error}")
    if command.ask == "cancel":
        names = tuple(fetches.cancel(command.id))
        _LOG.info("control.fetches.cancelled id=%s names=%s", command.id, ", ".join(names))
        return Answer(cancelled=names)
    flights = fetch_status(fetches.inflight(), time.time())
    return Answer(fetching=Fetching(pid=os.getpid(), mount_point=mount_point, inflight=flights))
