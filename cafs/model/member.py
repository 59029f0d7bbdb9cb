"""What an archive says (members) and what a tree keeps of it (entries).

They are made by the million: so they are structs, of which one takes a quarter of a microsecond,
and no dataclasses, of which a frozen one takes two.
"""

import enum
from typing import Final

import msgspec


class Kind(enum.IntEnum):
    """What a member or an entry is. The values are stored; they never change meaning."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    HARD_LINK = 4
    FIFO = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A run of a sparse file that has data: ``length`` bytes at ``offset`` of the file.

    The data of all pieces lie end to end in the stream, in order of offset.
    """

    offset: int
    length: int


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One member as its archive spells it: nothing resolved, nothing refused.

    ``path`` and ``target`` are raw bytes. ``offset`` is where the content begins in the decoded
    stream; ``size`` is what ``stat`` will say, the content's own length being that of ``sparse``
    when there is one. ``target`` is a symlink's text or a hard link's path; None on a symlink means
    that the text is the member's content (zip). ``sha256`` is the raw digest of a file's content,
    empty while nobody has hashed it.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    target: bytes | None = None
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[Piece, ...] | None = None
    sha256: bytes = b""


ROOT: Final = 0
"""The number of a tree's root entry."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One node of a tree, bound to its first name.

    Entries are numbered from 0 (the root, its own parent, with an empty name) in the order in which
    they were planted. A hard link is an entry of its own kind whose ``link`` is the number of the
    file; lookups follow it, listings name it. ``stream`` says in which of the tree's streams the
    content lies, ``offset`` where. ``links`` is st_nlink. ``sha256`` is the raw digest of the
    content where it is known and verified, else empty.
    """

    name: bytes
    parent: int
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    stream: int = 0
    offset: int = 0
    target: bytes | None = None
    link: int = 0
    links: int = 1
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[Piece, ...] | None = None
    sha256: bytes = b""
