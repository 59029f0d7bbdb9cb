"""The kernel's requests, put to the file system in its own words.

The file handle is the inode number: open files carry no state. Pages that the kernel has are kept
over opens, since an inode's content never changes.
"""

import errno
import math
import os
import stat
from collections.abc import Sequence
from typing import Final

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
)
from typing_extensions import override

from cafs.errors import SourceChangedError
from cafs.fuse import losses
from cafs.fuse.boundary import boundary
from cafs.fuse.forgetting import Forgetting
from cafs.fuse.interests import Interests
from cafs.fuse.readonly import ReadOnlyOperations
from cafs.fuse.trial import Trial
from cafs.metrics import Metrics
from cafs.model.member import Kind
from cafs.vfs.attributes import BLOCK_SIZE, FOREVER_S, Attributes
from cafs.vfs.filesystem import FileSystem

_TYPES: Final = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND
_SECTOR: Final = 512
_PAGE: Final = 4096
_PAGE_OF_NAMES: Final = 32
"""Names asked for at once: a 4 KiB answer, which kernels ask for first, holds about twenty."""
_DOT: Final = 2**63 - 2
_DOT_DOT: Final = 2**63 - 1
"""Where a listing goes on after ``.`` and ``..``: numbers above any cookie of the file system."""
_NO_NUMBER: Final = 0xFFFFFFFF
"""What libfuse itself says for the inode of ``..`` when it is not known."""
_NAME_MAX: Final = 255
_HEARTBEAT_S: Final = 0.2
"""How long the figures of a heartbeat's answer are waited for; nobody reads them."""
_OF_CONTENT: Final = ("read", "readlink")
"""What needs content: the rest is local inside trees."""
_FOREIGN: Final = (b"security.", b"system.", b"trusted.")
"""Extended attributes that the kernel asks for by itself, and that are never there."""


class CafsOperations(ReadOnlyOperations):
    """Answers the kernel's requests.

    Args:
        filesystem: knows the answers.
        metrics: ``fuse.<operation>`` is counted for each request but those for control files,
            ``fuse.bugs`` for each bug.
        interests: where a keeper finds the requests that nobody waits for any more; None without
            a keeper.
        trial: what comes before the answers to a keeper's first heartbeats, if anything does.

    Concurrency: any number of requests at once.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        metrics: Metrics,
        interests: Interests | None = None,
        trial: Trial | None = None,
    ) -> None:
        super().__init__()
        self.metrics = metrics
        self.interests = interests
        self.forgetting = Forgetting(interests)
        """What the kernel is told to forget."""
        self.initialised = trio.Event()
        """Set when the kernel has begun to talk."""
        self._filesystem = filesystem
        self._trial = trial

    def counts(self, target: object) -> bool:
        """Whether a request is counted, by its first argument: an inode, or who asks.

        To look at the counters must not move them, and a keeper's heartbeat is nobody's request.
        """
        if isinstance(target, int):
            return not self._filesystem.is_control(target)
        return not isinstance(target, RequestContext) or bool(target.pid)

    def waits(self, operation: str, target: object) -> bool:
        """Whether a request may have to wait for a source, by its operation and first argument."""
        if operation in _OF_CONTENT or not isinstance(target, int):
            return True
        return not self._filesystem.is_inside(target)

    @override
    def init(self) -> None:
        self.initialised.set()

    @override
    @boundary
    async def lookup(
        self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        return entry_of(await self._filesystem.lookup(parent_inode, name))

    @override
    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        # Numbers are the store's, for the life of the mount: nothing is held for the kernel.
        return

    @override
    @boundary
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        return entry_of(await self._filesystem.attributes(inode))

    @override
    @boundary
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(await self._filesystem.readlink(inode))

    @override
    @boundary
    async def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        if mode & os.W_OK:
            raise pyfuse3.FUSEError(errno.EROFS)
        # default_permissions: the kernel has compared the mode bits already.
        return True

    @override
    @boundary
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        if flags & _WRITING:
            raise pyfuse3.FUSEError(errno.EROFS)
        await self._filesystem.open(inode)
        return FileInfo(fh=FileHandleT(inode), keep_cache=True)

    @override
    @boundary
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        losses.answering(fh, off)
        try:
            return await self._filesystem.read(fh, off, size)
        except SourceChangedError:
            await self.forgetting.attributes(fh)
            raise

    @override
    async def release(self, fh: FileHandleT) -> None:
        return

    @override
    @boundary
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        # A program can make more of an errno here than of one in the middle of a listing. Under a
        # keeper nobody asks, and readdir finds the same out.
        await self._filesystem.open_directory(inode)
        return FileHandleT(inode)

    @override
    @boundary
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        losses.answering(fh, start_id)
        after = start_id
        if after == 0:
            if not pyfuse3.readdir_reply(token, FileNameT(b"."), _directory(fh), _DOT):
                return
            after = _DOT
        if after == _DOT:
            if not pyfuse3.readdir_reply(token, FileNameT(b".."), _directory(_NO_NUMBER), _DOT_DOT):
                return
            after = _DOT_DOT
        after = 0 if after == _DOT_DOT else after
        try:
            while page := await self._filesystem.list(fh, after, _PAGE_OF_NAMES):
                for each in page:
                    entry = entry_of(each.attributes)
                    if not pyfuse3.readdir_reply(token, FileNameT(each.name), entry, each.cookie):
                        return
                after = page[-1].cookie
        except SourceChangedError:
            await self.forgetting.attributes(fh)
            raise

    @override
    async def releasedir(self, fh: FileHandleT) -> None:
        return

    @override
    @boundary
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        if self._trial is not None and not ctx.pid:
            await self._trial.held()
        # Without a reader it is the keeper's heartbeat, and must be answered whatever the disk does
        # (or one of a PID namespace that the kernel has no number in, who is owed the figures).
        limit = trio.current_time() + _HEARTBEAT_S if not ctx.pid else math.inf
        data = StatvfsData()
        data.f_bsize = BLOCK_SIZE
        data.f_frsize = _PAGE
        data.f_namemax = _NAME_MAX
        with trio.CancelScope(deadline=limit):
            space = await self._filesystem.space()
            data.f_blocks = space.size // _PAGE
            data.f_bfree = space.free // _PAGE
            data.f_bavail = space.available // _PAGE
        return data

    @override
    @boundary
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        value = None
        if not name.startswith(_FOREIGN):
            value = await self._filesystem.xattr(inode, name)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    @override
    @boundary
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        return [XAttrNameT(name) for name in await self._filesystem.xattrs(inode)]


def entry_of(attributes: Attributes) -> EntryAttributes:
    """Attributes in the kernel's form; inode 0 becomes an answer "not there" that it may keep."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(attributes.inode)
    entry.entry_timeout = attributes.entry_ttl_s
    entry.attr_timeout = attributes.attributes_ttl_s
    entry.st_mode = ModeT(_TYPES[attributes.kind] | attributes.mode)
    entry.st_nlink = attributes.links
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = attributes.device
    entry.st_size = attributes.size
    entry.st_blksize = BLOCK_SIZE
    # The whole size, whatever is local: du and tar must not take a cold file for a sparse one.
    entry.st_blocks = -(-attributes.size // _SECTOR)
    entry.st_atime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.mtime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    return entry


def _directory(inode: int) -> EntryAttributes:
    """What a listing says of ``.`` and ``..``; the kernel reads the number and the type only."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(inode)
    entry.st_mode = ModeT(stat.S_IFDIR)
    entry.entry_timeout = FOREVER_S
    return entry
