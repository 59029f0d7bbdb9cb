"""Attributes: what ``stat`` says of a node, and for how long a kernel may believe it."""

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from cafs.model.member import Entry, Kind

FOREVER_S: Final = 365 * 24 * 3600.0
"""For what can never change: the inside of trees, blobs by digest. A year."""
BRIEFLY_S: Final = 1.0
"""For what may change: so nothing ever needs an invalidation."""
UNDATED_NS: Final = 1_000_000_000
"""The mtime of what has none: a second after the epoch, on every machine. Zero itself is taken for
"unknown" by make and by zip."""
BLOCK_SIZE: Final = 128 * 1024
"""st_blksize: what a reader should ask for at once, bytes."""
_SET_ID: Final = 0o6000
_READ_ONLY: Final = 0o444
_SEARCHABLE: Final = 0o555
_ANY: Final = 0o777


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """A node as ``stat`` shows it.

    ``mode`` is the permission bits only, ``kind`` the rest of st_mode; never ``HARD_LINK``.
    ``size`` is bytes. ``entry_ttl_s`` says how long the name may be taken to mean this inode,
    ``attributes_ttl_s`` how long the attributes hold. Inode 0 is the answer "there is no such name,
    and that may be remembered for ``entry_ttl_s``".
    """

    inode: int
    kind: Kind
    mode: int
    size: int
    mtime_ns: int
    links: int
    uid: int
    gid: int
    device: int
    entry_ttl_s: float
    attributes_ttl_s: float


NOWHERE: Final = Attributes(
    inode=0,
    kind=Kind.FILE,
    mode=0,
    size=0,
    mtime_ns=0,
    links=0,
    uid=0,
    gid=0,
    device=0,
    entry_ttl_s=FOREVER_S,
    attributes_ttl_s=0.0,
)
"""The answer for a name that an immutable directory does not have, and never will."""


class DirectoryEntry(msgspec.Struct, frozen=True):
    """One name of a listing.

    ``cookie`` is where a listing goes on after this name: a key, positive, and never a rank.
    """

    name: bytes
    attributes: Attributes
    cookie: int


class Appearance(msgspec.Struct, frozen=True, kw_only=True):
    """Whose the nodes of a mount are, and which of an archive's privileges they keep.

    ``uid`` and ``gid`` are the mounting user's. ``preserve_owner`` shows the archives' owners
    instead, ``suid`` keeps set-id bits, ``dev`` shows device nodes.
    """

    uid: int
    gid: int
    preserve_owner: bool = False
    suid: bool = False
    dev: bool = False

    def shows(self, kind: Kind) -> bool:
        """Whether entries of a kind are there at all."""
        return self.dev or kind not in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)

    def of_entry(self, inode: int, entry: Entry) -> Attributes:
        """The attributes of a tree's entry, which is no hard link (that is followed before)."""
        symlink = entry.kind is Kind.SYMLINK
        size = entry.size
        if symlink and entry.target is not None:
            size = len(entry.target)
        return Attributes(
            inode=inode,
            kind=entry.kind,
            mode=_ANY if symlink else self._mode(entry.mode),
            size=size,
            mtime_ns=entry.mtime_ns or UNDATED_NS,
            links=entry.links,
            uid=entry.uid if self.preserve_owner else self.uid,
            gid=entry.gid if self.preserve_owner else self.gid,
            device=entry.device,
            entry_ttl_s=FOREVER_S,
            attributes_ttl_s=FOREVER_S,
        )

    def _mode(self, mode: int) -> int:
        return mode & (0o7777 if self.suid else 0o7777 & ~_SET_ID)

    def directory(
        self, inode: int, *, mtime_ns: int = UNDATED_NS, entry_ttl_s: float = BRIEFLY_S
    ) -> Attributes:
        """A directory of the namespace. Its mtime tells whether what it lists has changed."""
        own = self._own(inode, Kind.DIRECTORY, size=0, ttl_s=BRIEFLY_S)
        return replace(own, mode=_SEARCHABLE, mtime_ns=mtime_ns, entry_ttl_s=entry_ttl_s)

    def file(self, inode: int, size: int, *, ttl_s: float = BRIEFLY_S) -> Attributes:
        """A file of the namespace: a blob, or a control file. Size is bytes."""
        return self._own(inode, Kind.FILE, size=size, ttl_s=ttl_s)

    def symlink(self, inode: int, target: bytes) -> Attributes:
        """Another spelling of a path."""
        own = self._own(inode, Kind.SYMLINK, size=len(target), ttl_s=BRIEFLY_S)
        return replace(own, mode=_ANY)

    def _own(self, inode: int, kind: Kind, *, size: int, ttl_s: float) -> Attributes:
        return Attributes(
            inode=inode,
            kind=kind,
            mode=_READ_ONLY,
            size=size,
            mtime_ns=UNDATED_NS,
            links=1,
            uid=self.uid,
            gid=self.gid,
            device=0,
            entry_ttl_s=ttl_s,
            attributes_ttl_s=ttl_s,
        )
