"""The file system in neutral words: what each request of a kernel means.

- A directory ref is found and described from configuration; it resolves at the first look inside.
- What lies inside trees never changes and may be cached for a year, absent names too.
- Nothing is kept per open file: an inode number is all that a read needs.
- Every failure is a ``CafsError``, noted for ``user.cafs.error`` where it concerns content.
"""

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

import trio

from cafs.errors import NotFoundError, SourceChangedError, UsageError
from cafs.fetch.content.exposing import Exposures
from cafs.model.identity import StreamKey
from cafs.model.member import Kind
from cafs.model.ref import Ref
from cafs.model.resolved import Shape
from cafs.model.spec import RefSpec
from cafs.store.store import Store
from cafs.vfs.attributes import Appearance, Attributes, DirectoryEntry
from cafs.vfs.control import ControlFiles
from cafs.vfs.directories import Directories
from cafs.vfs.failures import Failures
from cafs.vfs.interfaces import Digests, Policy, Refs
from cafs.vfs.knowing import Knowing
from cafs.vfs.namespace import CONTROL, Alias, view_at
from cafs.vfs.opening import Opening, Shown, Told, nothing
from cafs.vfs.places import ROOT_INODE, Named, Places, Planted, Snapshot, Unsized, text_of
from cafs.vfs.planted import PlantedTrees
from cafs.vfs.retracting import Retracting
from cafs.vfs.showing import Showing
from cafs.vfs.space import Space, space_at
from cafs.vfs.xattrs import Xattrs

_CONTROL_NAME: Final = os.fsencode(CONTROL)


class FileSystem:
    """Answers requests about one mount.

    Args:
        store: the open store.
        mount: the mount's number in ``store.mounts``.
        refs: opens refs.
        digests: opens content by digest.
        policy: says which refs may be named by path.
        specs: the named refs.
        ad_hoc: makes the spec of a ref that was named by path.
        view: the path that the root shows ("/", "ref", "ref/NAME/usr").
        appearance: whose the nodes are.
        version: the version of cafs.
        status: makes ``.cafs/status.json``, in the trio thread.
        inflight: makes ``.cafs/inflight.json``, likewise.
        deadline_s: how long content that was named by digest is waited for, without progress.
        exposures: what the mount handed out before it was checked.
        told: says what speaks against how parts are read, though they can be read.

    Raises:
        UsageError: the view is not there, or is a file.

    Concurrency: any number of tasks. Requests that wait for the network hold nothing.
    """

    def __init__(
        self,
        *,
        store: Store,
        mount: int,
        refs: Refs,
        digests: Digests,
        policy: Policy,
        specs: Iterable[RefSpec],
        ad_hoc: Callable[[Ref], RefSpec],
        appearance: Appearance,
        version: str,
        status: Callable[[], bytes],
        inflight: Callable[[], bytes],
        view: str = "/",
        deadline_s: float | None = 60.0,
        exposures: Exposures | None = None,
        told: Told = nothing,
    ) -> None:
        by_name = {spec.name: spec for spec in specs}
        self._store = store
        at = view_at(view, by_name)
        self._opening = Opening(
            refs,
            digests,
            policy,
            by_name,
            ad_hoc=ad_hoc,
            deadline_s=deadline_s,
            exposures=exposures or Exposures(),
            told=told,
        )
        if isinstance(at.node, Shown) and self._opening.shape(at.node) is Shape.FILE:
            raise UsageError(f"view {view!r}: a file cannot be the root of a mount")
        self._appearance = appearance
        self._failures = Failures()
        self._places = Places(store.attachments, mount, by_name, at)
        self._planted = PlantedTrees(store.trees, appearance)
        self._showing = Showing(
            self._opening, self._places, self._planted, self._failures, at.inside
        )
        control = ControlFiles(
            version=version, status=status, inflight=inflight, failures=self._failures
        )
        self._directories = Directories(
            self._places,
            self._opening,
            blobs=store.blobs,
            control=control,
            appearance=appearance,
            names=by_name,
        )
        knowing = Knowing(store, self._opening, self._planted, self._places)
        self._xattrs = Xattrs(knowing, self._opening, self._planted, self._failures)
        self._looking = trio.CapacityLimiter(1)
        self._retracting = Retracting(store.attachments, mount, self._places, self._opening)

    async def settle(self) -> None:
        """Make sure that a worker before this one has shown the same at the root of the mount.

        Raises:
            MountError: it has shown something else, which a kernel would not forget.

        Cancellation: it may be settled or not.
        """
        await self._places.settle_root()

    async def lookup(self, parent: int, name: bytes) -> Attributes:
        """Find a name in a directory. Inode 0 says that it is not there and never will be.

        Raises:
            NotFoundError: there is no such name, now.
            CafsError: the directory's tree cannot be had, or the size of a file.

        Cancellation: its inode number may have been given or not.
        """
        at = self._places.locate(parent)
        if parent == ROOT_INODE and name == _CONTROL_NAME:
            return await self._directories.lookup((), CONTROL)
        if isinstance(at, Planted):
            await self._showing.renew(at)
            return self._planted.child(at.at, at.number, name)
        if not isinstance(at, Named):
            raise NotFoundError(f"inode {parent} is no directory")
        if self._showing.tree(at):
            inside = await self._showing.inside(at)
            return self._planted.child(inside.at, inside.number, name)
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise NotFoundError(f"{text_of(at.path)}/{name!r}: no such path") from None
        if "?" in text:
            raise NotFoundError(f"{text_of(at.path)}/{text}: no such path")
        if self._places.child(at.path, text) is None:
            raise NotFoundError(f"{text_of((*at.path, text))}: no such path")
        with self._failures.noting(parent, text_of((*at.path, text))):
            return await self._directories.lookup(at.path, text)

    async def attributes(self, inode: int) -> Attributes:
        """The attributes of a node.

        Raises:
            CafsError: the number is unknown, its tree is gone, or its size cannot be had.

        Cancellation: no effect.
        """
        at = self._places.locate(inode)
        match at:
            case Planted():
                if self._showing.withdrawn(at):
                    # What a kernel asks for before it asks why reads of it fail (user.cafs.error).
                    return replace(self._planted.attributes(at.at, at.number), attributes_ttl_s=0.0)
                await self._showing.renew(at)
                self._showing.check(at)
                return self._planted.attributes(at.at, at.number)
            case Snapshot(_, content):
                return self._appearance.file(inode, len(content), ttl_s=0.0)
            case Unsized():
                # Never size 0: a kernel that does not ask to open would read an empty file.
                raise _looked_up_anew(at)
            case Named():
                above = text_of(at.path[:-1])
                with self._failures.noting(inode, text_of(at.path), above=above):
                    return await self._directories.attributes(at)

    async def readlink(self, inode: int) -> bytes:
        """The text of a symlink.

        Raises:
            NotFoundError: it is none.
            CafsError: its text is content that cannot be had.

        Cancellation: no effect.
        """
        at = self._places.locate(inode)
        if isinstance(at, Named) and isinstance(at.node, Alias):
            return os.fsencode(at.node.target)
        if not isinstance(at, Planted):
            raise NotFoundError(f"inode {inode} is no symbolic link")
        entry = self._planted.entry(at.at, at.number)
        if entry.kind is not Kind.SYMLINK:
            raise NotFoundError(f"inode {inode} is no symbolic link")
        if entry.target is not None:
            return entry.target
        return await self._showing.read_planted(at, 0, entry.size)

    async def list(self, inode: int, after: int, limit: int) -> list[DirectoryEntry]:
        """At most ``limit`` names of a directory, after the one with the cookie ``after``.

        0 begins; an empty list is the end. Names in trees are sorted by their bytes. Attributes of
        files whose size is not known have no lifetime, and an inode that no lookup gives.

        Raises:
            CafsError: as ``lookup``.

        Cancellation: no effect, but for inode numbers given.
        """
        at = self._places.locate(inode)
        if isinstance(at, Planted):
            await self._showing.renew(at)
            return self._planted.children(at.at, at.number, after, limit)
        if not isinstance(at, Named):
            raise NotFoundError(f"inode {inode} is no directory")
        if self._showing.tree(at):
            inside = await self._showing.inside(at)
            return self._planted.children(inside.at, inside.number, after, limit)
        return await self._directories.listing(at, after, limit)

    async def open(self, inode: int) -> None:
        """Make sure that a file can be opened. Nothing has to be closed.

        Raises:
            CafsError: the number is unknown, or another one by now.

        Cancellation: no effect.
        """
        at = self._places.locate(inode)
        if isinstance(at, Unsized):
            raise _looked_up_anew(at)
        if isinstance(at, Planted):
            # A kernel keeps names for a year. An open that fails like this makes it look again.
            self._planted.entry(at.at, at.number)
            self._showing.check(at)

    async def open_directory(self, inode: int) -> None:
        """Make sure that a directory can be listed: that of a ref is resolved. Nothing is to close.

        Raises:
            CafsError: the number is unknown, or the ref cannot be opened.

        Cancellation: what has been fetched stays.
        """
        at = self._places.locate(inode)
        if isinstance(at, Named) and self._showing.tree(at):
            await self._showing.inside(at)

    async def read(self, inode: int, offset: int, length: int) -> bytes:
        """Read a file's bytes, fetching what is missing; short only at the end.

        Raises:
            CafsError: they cannot be had; never anything in their place.

        Cancellation: what has been fetched stays.
        """
        at = self._places.locate(inode)
        match at:
            case Planted():
                return await self._showing.read_planted(at, offset, length)
            case Snapshot(_, content):
                return content[offset : offset + length]
            case Unsized():
                raise _looked_up_anew(at)
            case Named():
                return await self._showing.read_named(at, offset, length)

    async def xattr(self, inode: int, name: bytes) -> bytes | None:
        """The value of an extended attribute; None when it is absent. Nothing is fetched for it.

        Raises:
            CafsError: the number is unknown, or its tree is gone.

        Cancellation: no effect.
        """
        return self._xattrs.value(self._places.locate(inode), name)

    async def xattrs(self, inode: int) -> Sequence[bytes]:
        """The names of the extended attributes that are listed: the archive's own.

        Raises:
            CafsError: as ``xattr``.

        Cancellation: no effect.
        """
        return self._xattrs.names(self._places.locate(inode))

    async def space(self) -> Space:
        """The room where the store is, or where it will be again when it has been removed.

        Raises:
            StorageError: the disk does not tell.

        Cancellation: no effect.
        """
        # In a thread that nothing else takes: whoever asks may take no answer for a hang.
        return await space_at(self._store.path, self._looking)

    def showing(self, key: StreamKey) -> Sequence[range]:
        """The inodes that may have shown bytes of a stream before these were checked."""
        return self._retracting.showing(key)

    def names(self, refs: Collection[str]) -> Sequence[tuple[int, bytes]]:
        """Where a kernel may have the names of refs: directories' inodes, and names in them."""
        parent = self._places.refs()
        return [] if parent is None else [(parent, os.fsencode(name)) for name in sorted(refs)]

    def is_control(self, inode: int) -> bool:
        """Whether an inode is that of ``.cafs`` or of a file in it."""
        return self._places.is_control(inode)

    def is_inside(self, inode: int) -> bool:
        """Whether an inode was lately seen inside a tree: nothing but its content may wait then."""
        return self._places.is_inside(inode)


def _looked_up_anew(at: Unsized) -> SourceChangedError:
    return SourceChangedError(
        f"{text_of(at.path)}: its size was not known when it was listed", hint="open it again"
    )
