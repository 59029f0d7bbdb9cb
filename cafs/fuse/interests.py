"""Requests that are under way, so that one that nobody waits for any more can be dropped.

A keeper names a request by repeating it: pyfuse3 does not tell a handler its request's number. So
requests are known here by what they ask, and several that ask the same are counted: they are
dropped when as many have gone as there are. When one of several is answered, one of the gone is
taken to be it, so none is dropped for another. Where that guess is wrong, a fetch lives a little
longer than its readers.

A request that is dropped is answered EINTR. The keeper throws that away when the reader has gone,
and otherwise asks again: it has sent the message while the answer of the dead one was on its way.
"""

import fcntl
import struct
import termios
from collections.abc import Hashable
from typing import Final, TypeAlias

import trio

Key: TypeAlias = tuple[Hashable, ...]
"""What a request asks: its operation, and the arguments that tell it from others."""
KEYED: Final = {
    "lookup": 2,
    "getattr": 1,
    "readlink": 1,
    "opendir": 1,
    "read": 3,
    "readdir": 2,
}
"""The operations that may wait for a source, and how many of their arguments make the key."""
_HEADER: Final = struct.Struct("=IIQQIIIHH")
"""struct fuse_in_header: length, opcode, unique, node; uid, gid, pid, extensions, padding."""
_READING: Final = struct.Struct("=QQI")
"""The beginning of struct fuse_read_in: handle, offset, size."""
_LOOKUP, _GETATTR, _READLINK, _READ, _OPENDIR, _READDIR, _READDIRPLUS = 1, 3, 5, 15, 27, 28, 44
_ONLY_NODE: Final = {_GETATTR: "getattr", _READLINK: "readlink", _OPENDIR: "opendir"}


class Interests:
    """The requests that are under way, by what they ask.

    Args:
        requests: the descriptor that requests come from. Whether any are left unread there says
            whether one that is not known here is still to come, or has been answered.

    Concurrency: one trio run; nothing awaits.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._scopes: dict[Key, list[trio.CancelScope]] = {}
        self._gone: dict[Key, int] = {}
        self._early: dict[Key, int] = {}

    def __len__(self) -> int:
        """How many requests are under way."""
        return sum(map(len, self._scopes.values()))

    def read(self) -> set[int]:
        """The nodes whose content is being read."""
        return {key[1] for key in self._scopes if key[0] == "read" and isinstance(key[1], int)}

    def begin(self, key: Key) -> trio.CancelScope:
        """Say that a request begins; returns the scope to answer it in, which a drop cancels."""
        scope = trio.CancelScope()
        scopes = self._scopes.get(key)
        if scopes is None:
            self._scopes[key] = [scope]
        else:
            scopes.append(scope)
        if self._early:
            self._meet(key)
        return scope

    def end(self, key: Key, scope: trio.CancelScope) -> None:
        """Say that a request that began has been answered, or dropped."""
        scopes = self._scopes[key]
        if len(scopes) == 1:
            del self._scopes[key]
        else:
            scopes.remove(scope)
        if self._gone and key in self._gone:
            self._gone[key] -= 1
            if not self._gone[key]:
                del self._gone[key]

    def gone(self, request: bytes) -> None:
        """Drop a request, unless others that ask the same are waited for.

        Args:
            request: the request as it was relayed. One that is not known here has been answered
                already, and nothing happens; or it has not been read yet, and is dropped then.

        Raises:
            ValueError: it is no request.
        """
        key = key_of(request)
        if key is None:
            return
        if self._gone.get(key, 0) < len(self._scopes.get(key, ())):
            self._drop(key)
        elif self._unread():
            self._early[key] = self._early.get(key, 0) + 1

    def _drop(self, key: Key) -> None:
        scopes = self._scopes[key]
        self._gone[key] = self._gone.get(key, 0) + 1
        if self._gone[key] == len(scopes):
            for scope in scopes:
                scope.cancel()

    def _meet(self, key: Key) -> None:
        """See whether a request that begins is one that was dropped before it was read."""
        if key in self._early:
            self._early[key] -= 1
            if not self._early[key]:
                del self._early[key]
            self._drop(key)
        if self._early and not self._unread():
            # Whatever was on its way when they were dropped has been read.
            self._early.clear()

    def _unread(self) -> bool:
        """Whether the socket holds requests that have not been read."""
        waiting = fcntl.ioctl(self._requests, termios.FIONREAD, bytes(4))
        return any(waiting)


def key_of(request: bytes) -> Key | None:
    """What a request asks; None for one that never waits.

    Raises:
        ValueError: it is no request.
    """
    try:
        _, opcode, _, node, *_ = _HEADER.unpack_from(request)
        body = request[_HEADER.size :]
        if opcode == _LOOKUP:
            name, end, _ = body.partition(b"\0")
            if not end:
                raise ValueError(f"a name without an end: {request[:64]!r}")
            return ("lookup", node, name)
        if opcode in _ONLY_NODE:
            return (_ONLY_NODE[opcode], node)
        if opcode in (_READ, _READDIR, _READDIRPLUS):
            _, offset, size = _READING.unpack_from(body)
            return ("read", node, offset, size) if opcode == _READ else ("readdir", node, offset)
    except struct.error as error:
        raise ValueError(f"half a request: {request[:64]!r}") from error
    return None
