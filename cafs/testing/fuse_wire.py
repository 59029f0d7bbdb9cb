"""FUSE's messages as <linux/fuse.h> has them, as far as tests of the keeper write and read them.

A request is a header of 40 bytes and a body that depends on the opcode; a reply is a header of 16
bytes and a body when there is no error. A notification is a reply with ``unique`` 0 whose ``error``
holds the code. Numbers are in the machine's order.
"""

import os
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, Self

IN_HEADER: Final = struct.Struct("=IIQQIIIHH")
OUT_HEADER: Final = struct.Struct("=IiQ")
ROOT_NODE: Final = 1
DATA_MAX: Final = 256 << 10
"""Bytes of content in one message."""
MESSAGE_MAX: Final = DATA_MAX + 4096
"""No message between keeper and worker is longer: that and room for headers."""
READ_MAX: Final = 8192
"""The kernel sends no longer request to who offers a buffer of this size."""
ERRNO_END: Final = 512
"""Errnos are below this: the kernel refuses a reply with any other."""

_INIT_IN: Final = struct.Struct("=IIIII44x")
_INIT_OUT: Final = struct.Struct("=IIIIHHIIHHI28x")
_READ: Final = struct.Struct("=QQIIQII")
_GETXATTR: Final = struct.Struct("=II")
_RENAME: Final = struct.Struct("=Q")
_SETXATTR: Final = struct.Struct("=II")


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46


class Notice(IntEnum):
    """What a notification tells the kernel."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6


class Flag(IntFlag):
    """What INIT settles; bits from 32 on travel in ``flags2``."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


KERNEL_FLAGS: Final = Flag((1 << 43) - 1) & ~Flag(1 << 2) & ~Flag(1 << 31)
"""What Linux 6.18 offers, and a little more."""


class MalformedMessageError(ValueError):
    """A message is not one that FUSE knows: too short, or its length is not what it says."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the kernel asks. ``pid`` is the reader's thread; 0 when nobody in particular waits."""

    opcode: int
    unique: int
    nodeid: int = ROOT_NODE
    body: bytes = b""
    pid: int = 0
    uid: int = 0
    gid: int = 0

    def encode(self) -> bytes:
        """The message."""
        length = IN_HEADER.size + len(self.body)
        header = (length, self.opcode, self.unique, self.nodeid, self.uid, self.gid, self.pid, 0, 0)
        return IN_HEADER.pack(*header) + self.body

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message.

        Raises:
            MalformedMessageError: it is none.
        """
        if len(message) < IN_HEADER.size:
            raise MalformedMessageError(f"a request of {len(message)} bytes")
        length, opcode, unique, nodeid, uid, gid, pid, _, _ = IN_HEADER.unpack_from(message)
        if length != len(message):
            raise MalformedMessageError(f"a request of {len(message)} bytes says it has {length}")
        return cls(opcode, unique, nodeid, message[IN_HEADER.size :], pid, uid, gid)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, or with ``unique`` 0 a notification. ``error`` is an errno, not negative."""

    unique: int
    error: int = 0
    body: bytes = b""

    def encode(self) -> bytes:
        """The message."""
        return self.pack(self.unique, -self.error, self.body)

    @staticmethod
    def pack(unique: int, error: int, body: bytes = b"", length: int | None = None) -> bytes:
        """A message of these fields, right or wrong; ``length`` is what it says of itself."""
        said = OUT_HEADER.size + len(body) if length is None else length
        return OUT_HEADER.pack(said, error, unique) + body

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """Read a message as strictly as the kernel does.

        Raises:
            MalformedMessageError: the kernel would refuse it.
        """
        if len(message) < OUT_HEADER.size:
            raise MalformedMessageError(f"a reply of {len(message)} bytes")
        length, error, unique = OUT_HEADER.unpack_from(message)
        body = message[OUT_HEADER.size :]
        if length != len(message):
            raise MalformedMessageError(f"a reply of {len(message)} bytes says it has {length}")
        if unique == 0:
            return cls(0, error, body)
        if error > 0 or error <= -ERRNO_END or (error and body):
            raise MalformedMessageError(f"error {error} with {len(body)} bytes")
        return cls(unique, -error, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitIn:
    """What the kernel says of itself in INIT."""

    major: int = 7
    minor: int = 45
    max_readahead: int = 128 << 10
    flags: Flag = KERNEL_FLAGS

    def encode(self) -> bytes:
        """The body of INIT."""
        low, high = int(self.flags) & 0xFFFFFFFF, int(self.flags) >> 32
        return _INIT_IN.pack(self.major, self.minor, self.max_readahead, low, high)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the body of INIT."""
        major, minor, max_readahead, low, high = _INIT_IN.unpack(body)
        flags = Flag(low | high << 32)
        return cls(major=major, minor=minor, max_readahead=max_readahead, flags=flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOut:
    """What the file system answers to INIT. The defaults are near to what libfuse says."""

    major: int = 7
    minor: int = 38
    max_readahead: int = 128 << 10
    flags: Flag = Flag.ASYNC_READ | Flag.MAX_PAGES | Flag.DO_READDIRPLUS | Flag.BIG_WRITES
    max_background: int = 12
    congestion_threshold: int = 9
    max_write: int = 128 << 10
    time_gran: int = 1
    max_pages: int = 256
    map_alignment: int = 0

    def encode(self) -> bytes:
        """The body of INIT's reply."""
        low, high = int(self.flags) & 0xFFFFFFFF, int(self.flags) >> 32
        head = (self.major, self.minor, self.max_readahead, low)
        middle = (self.max_background, self.congestion_threshold, self.max_write, self.time_gran)
        return _INIT_OUT.pack(*head, *middle, self.max_pages, self.map_alignment, high)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the body of INIT's reply."""
        fields = _INIT_OUT.unpack(body)
        major, minor, readahead, low, background, congestion, write, gran, pages, align, high = (
            fields
        )
        return cls(
            major=major,
            minor=minor,
            max_readahead=readahead,
            flags=Flag(low | high << 32),
            max_background=background,
            congestion_threshold=congestion,
            max_write=write,
            time_gran=gran,
            max_pages=pages,
            map_alignment=align,
        )


def name_body(name: str | bytes) -> bytes:
    """The body of LOOKUP, UNLINK and RMDIR."""
    return os.fsencode(name) + b"\0"


def read_body(*, fh: int = 0, offset: int = 0, size: int = 4096) -> bytes:
    """The body of READ, READDIR and READDIRPLUS."""
    return _READ.pack(fh, offset, size, 0, 0, 0, 0)


def handle_of(body: bytes) -> int:
    """``fh`` in the body of a READ or its kin."""
    return int(_READ.unpack_from(body)[0])


def getxattr_body(name: str, size: int = 0) -> bytes:
    """The body of GETXATTR; with size 0 it asks how long the value is."""
    return _GETXATTR.pack(size, 0) + name_body(name)


def setxattr_body(name: str, value: bytes) -> bytes:
    """The body of SETXATTR."""
    return _SETXATTR.pack(len(value), 0) + name_body(name) + value


def rename_body(old: str, new: str, *, directory: int = ROOT_NODE) -> bytes:
    """The body of RENAME."""
    return _RENAME.pack(directory) + name_body(old) + name_body(new)


def interrupt_body(unique: int) -> bytes:
    """The body of INTERRUPT; ``unique`` is the request's that nobody wants any more."""
    return struct.pack("=Q", unique)


def inval_inode_body(inode: int, offset: int = 0, length: int = 0) -> bytes:
    """The body of the notification INVAL_INODE."""
    return struct.pack("=Qqq", inode, offset, length)


def inval_entry_body(parent: int, name: str) -> bytes:
    """The body of the notification INVAL_ENTRY."""
    encoded = os.fsencode(name)
    return struct.pack("=QII", parent, len(encoded), 0) + encoded + b"\0"


def delete_body(parent: int, child: int, name: str) -> bytes:
    """The body of the notification DELETE."""
    encoded = os.fsencode(name)
    return struct.pack("=QQII", parent, child, len(encoded), 0) + encoded + b"\0"


def attr_body(inode: int, mode: int, size: int, *, valid_s: int = 3600) -> bytes:
    """The body of GETATTR's reply: an inode of ours, with one name, from long ago."""
    return struct.pack("=QII", valid_s, 0, 0) + _attr(inode, mode, size)


def entry_body(inode: int, mode: int, size: int, *, valid_s: int = 3600) -> bytes:
    """The body of LOOKUP's reply."""
    head = struct.pack("=QQQQII", inode, 0, valid_s, valid_s, 0, 0)
    return head + _attr(inode, mode, size)


def _attr(inode: int, mode: int, size: int) -> bytes:
    times = (1, 1, 1, 0, 0, 0)
    rest = (mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)
    return struct.pack("=QQQQQQIIIIIIIIII", inode, size, -(-size // 512), *times, *rest)
