"""The worker's end of the channel to its keeper: what goes on beside the requests.

One datagram a message, its first byte says which:

- ``G`` and a request as it was relayed, from the keeper: nobody waits for this one any more.
- ``E``, from the keeper: the mount has ended for good.
- ``L`` with a descriptor, to the keeper: keep this open for as long as the mount lives.
- ``A`` with a node and an offset, to the keeper: the answer to a READ or READDIR of these has been
  lost, ask again.

The end of the channel is the end of the keeper.
"""

import array
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

_LOG: Final = logging.getLogger("cafs.fuse")
REQUESTS_FD: Final = 3
"""Where a keeper's worker finds its requests, and puts its replies."""
CHANNEL_FD: Final = 4
"""Where it finds the channel."""
WORD_FD: Final = 5
"""Where it says whether it is ready, to whoever waits for that."""
_LENGTH_MAX: Final = 4096
"""No message is longer: the longest request that is relayed has 320 bytes."""
_LOST: Final = struct.Struct("=QQ")


class Channel:
    """An open channel.

    Concurrency: one task listens; any task of the same run may lend.
    """

    def __init__(self, connection: trio.socket.SocketType) -> None:
        self._connection = connection

    async def listen(self, on_gone: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Hear what the keeper says, until it has gone.

        Args:
            on_gone: called with a request that nobody waits for any more. What it raises
                ValueError for is logged, as are messages of unknown kinds.
            on_end: called when the mount has ended, and its records may be forgotten.

        Cancellation: what has been received has been told.
        """
        while message := await self._receive():
            try:
                _hear(message, on_gone, on_end)
            except ValueError as error:
                _LOG.warning("fuse.channel.unknown: %s", error)

    async def lend(self, fd: int) -> None:
        """Give the keeper a descriptor to keep open while the mount lives.

        It takes the place of the one before. The caller's own stays the caller's to close.

        Raises:
            OSError: the keeper has gone.

        Cancellation: it has been sent or not.
        """
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
        await self._connection.sendmsg([b"L"], [rights])

    async def ask_again(self, node: int, offset: int) -> None:
        """Have the keeper repeat a READ or READDIR whose answer has been lost.

        Raises:
            OSError: the keeper has gone.

        Cancellation: it has been sent or not.
        """
        await self._connection.send(b"A" + _LOST.pack(node, offset))

    async def _receive(self) -> bytes:
        """The next message; empty once the keeper has gone."""
        try:
            return await self._connection.recv(_LENGTH_MAX)
        except ConnectionError:
            return b""


def _hear(message: bytes, on_gone: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
    match message[:1]:
        case b"G":
            on_gone(message[1:])
        case b"E":
            on_end()
        case kind:
            raise ValueError(f"a message of the kind {kind!r}")


@asynccontextmanager
async def open_channel(fd: int = CHANNEL_FD) -> AsyncIterator[Channel]:
    """Take over a descriptor as the channel, and close it at the end of the block.

    Raises:
        OSError: it is no socket.
    """
    with trio.socket.from_stdlib_socket(socket.socket(fileno=fd)) as connection:
        yield Channel(connection)
