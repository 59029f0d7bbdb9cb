"""Directories of the namespace: what they list, and what stands behind their names.

What lies inside the trees that they show is not here but in ``planted``.
"""

import os
import zlib
from bisect import bisect_right
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final, TypeGuard

import trio

from cafs.errors import NotFoundError
from cafs.model.digest import Digest
from cafs.model.resolved import Shape
from cafs.store.blobs.blobs import Blobs
from cafs.vfs.attributes import (
    BRIEFLY_S,
    FOREVER_S,
    UNDATED_NS,
    Appearance,
    Attributes,
    DirectoryEntry,
)
from cafs.vfs.control import ControlFiles
from cafs.vfs.namespace import (
    AD_HOC,
    CONTROL,
    LISTED_ALGORITHMS,
    TOP,
    AdHocDirectory,
    Alias,
    Control,
    ControlFile,
    DigestAlgorithm,
    DigestBlob,
    DigestRoot,
    NamedRef,
    Node,
    Path,
    RefRoot,
    Root,
    TreeAlgorithm,
    TreeBlob,
    TreeRoot,
)
from cafs.vfs.opening import Opening, Shown
from cafs.vfs.places import Named, Places, text_of

_KEY_BYTES: Final = 8


class Directories:
    """Answers for nodes of the namespace.

    A named ref is found without asking anybody; that of a file has a size, and asking for its
    attributes may ask its source for that. Listings ask nobody.

    Args:
        places: inode numbers of the mount.
        opening: opens what nodes show.
        blobs: the store's blobs, for ``digest/``.
        control: the control files.
        appearance: whose the nodes are.
        names: the names of the named refs.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        places: Places,
        opening: Opening,
        *,
        blobs: Blobs,
        control: ControlFiles,
        appearance: Appearance,
        names: Collection[str],
    ) -> None:
        self._places = places
        self._opening = opening
        self._blobs = blobs
        self._control = control
        self._appearance = appearance
        self._names = sorted(names)
        self._digests: list[Digest] = []

    async def lookup(self, parent: Path, name: str) -> Attributes:
        """Find a name in a directory of the namespace.

        Raises:
            NotFoundError: there is no such name, now.
            PolicyError: a ref that no path may name.
            CafsError: the size of a file ref cannot be found out.

        Cancellation: its inode number may have been given or not.
        """
        path = (*parent, name)
        node = self._places.child(parent, name)
        if node is None:
            raise NotFoundError(f"{text_of(path)}: no such path")
        if isinstance(node, ControlFile):
            return await self._snapshot(path, node)
        if isinstance(node, NamedRef) and self._is_file(node) and self._opening.peek(node) is None:
            # Nobody waits for a source in a lookup here: without FUSE_PARALLEL_DIROPS, which
            # libfuse 3.14 does not ask for, the kernel holds `ref` meanwhile, and all refs would
            # wait (fs/fuse/dir.c, fuse_lock_inode). Attributes that are out of date already make it
            # ask for the size before anything that needs one. Once the size is known it is told
            # here too, so it never goes back to 0 under a reader.
            found = self._appearance.file(await self._places.inode(path), 0)
            return replace(found, attributes_ttl_s=0.0)
        if isinstance(node, TreeBlob):
            # As of a file by its digest: no listing can say that there is no such name.
            await self._opening.check(node)
        # The size comes first: a name that cannot be answered for gets no number.
        size = await self._size(node)
        return await self._attributes(await self._places.inode(path), path, node, size)

    async def attributes(self, at: Named) -> Attributes:
        """The attributes of a node.

        Raises:
            CafsError: as ``lookup``.

        Cancellation: no effect.
        """
        return await self._attributes(at.inode, at.path, at.node, await self._size(at.node))

    async def listing(self, at: Named, after: int, limit: int) -> list[DirectoryEntry]:
        """At most ``limit`` names, after the one with the cookie ``after``; 0 begins.

        Raises:
            NotFoundError: the node is no directory of the namespace.

        Cancellation: no effect, but for numbers given.
        """
        if isinstance(at.node, DigestAlgorithm):
            return await self._list_digests(at.path, at.node, after, limit)
        children = [(await self._key(path, node), path, node) for path, node in self._children(at)]
        children.sort(key=lambda child: child[0])
        following = [child for child in children if child[0] > after][:limit]
        return [
            DirectoryEntry(os.fsencode(path[-1]), await self._listed_as(key, path, node), key)
            for key, path, node in following
        ]

    def _children(self, at: Named) -> list[tuple[Path, Node]]:
        found = [(name, self._places.child(at.path, name)) for name in self._listed(at)]
        return [
            ((*at.path, name), node)
            for name, node in found
            if node is not None and not isinstance(node, Alias)
        ]

    def _listed(self, at: Named) -> Iterable[str]:
        """The names that a directory lists, but for ``digest/sha256``, in any order."""
        match at.node:
            case Root():
                return TOP
            case RefRoot():
                return (*self._names, *AD_HOC)
            case DigestRoot() | TreeRoot():
                return LISTED_ALGORITHMS
            case AdHocDirectory() | TreeAlgorithm():
                return self._opened_below(at.path)
            case Control():
                return self._control.names
            case _:
                raise NotFoundError(f"{text_of(at.path)} is no directory of names")

    async def _list_digests(
        self, path: Path, node: DigestAlgorithm, after: int, limit: int
    ) -> list[DirectoryEntry]:
        if node.algorithm not in LISTED_ALGORITHMS:
            return []
        if not after or not self._digests:
            self._digests = await trio.to_thread.run_sync(lambda: list(self._blobs.digests()))
        digests = self._digests
        found: list[DirectoryEntry] = []
        # Blobs that went meanwhile must not look like the end of the listing.
        for number in range(bisect_right(digests, after, key=_cookie), len(digests)):
            digest = digests[number]
            blob = self._blobs.stat(digest)
            if blob is not None:
                inode = await self._places.inode((*path, digest.hex))
                attributes = self._appearance.file(inode, blob.size, ttl_s=FOREVER_S)
                found.append(DirectoryEntry(digest.hex.encode(), attributes, _cookie(digest)))
            if len(found) == limit:
                break
        return found

    async def _key(self, path: Path, node: Node) -> int:
        """Where a name stands in its listing: a number that it keeps while it means the same."""
        if isinstance(node, ControlFile):
            return await self._places.unsized(path)
        return await self._places.inode(path)

    async def _listed_as(self, key: int, path: Path, node: Node) -> Attributes:
        if isinstance(node, ControlFile):
            return self._appearance.file(key, 0, ttl_s=0.0)
        if not self._is_file(node):
            return await self._attributes(key, path, node, 0)
        resolved = self._opening.peek(node)
        size = resolved.parts[0].size if resolved is not None else None
        if size is None:
            # No size must be told of an inode that somebody may have open, unless it is the size.
            return self._appearance.file(await self._places.unsized(path), 0, ttl_s=0.0)
        return await self._attributes(key, path, node, size)

    def _is_file(self, node: Node) -> TypeGuard[Shown]:
        return isinstance(node, Shown) and self._opening.shape(node) is Shape.FILE

    async def _size(self, node: Node) -> int:
        """The size of a file node, asking for it if it must; 0 for all others."""
        if not self._is_file(node):
            return 0
        if isinstance(node, DigestBlob):
            blob = self._blobs.stat(node.digest)
            if blob is not None:
                return blob.size
        resolved = self._opening.peek(node)
        size = None if resolved is None else resolved.parts[0].size
        if size is not None and self._opening.disowned(node) is not None:
            # It cannot be read, but asked why: a kernel asks for the size before that.
            return size
        with self._opening.request(node) as patience:
            return (await self._opening.content(node, patience)).size

    async def _snapshot(self, path: Path, node: ControlFile) -> Attributes:
        content = self._control.content(node.name)
        if content is None:
            raise NotFoundError(f"{CONTROL} has no file {node.name}")
        inode = await self._places.snapshot(path, content)
        return self._appearance.file(inode, len(content), ttl_s=0.0)

    async def _attributes(self, inode: int, path: Path, node: Node, size: int) -> Attributes:
        if self._is_file(node):
            ttl_s = FOREVER_S if isinstance(node, DigestBlob) else BRIEFLY_S
            return self._appearance.file(inode, size, ttl_s=ttl_s)
        match node:
            case Alias(target):
                return self._appearance.symlink(inode, os.fsencode(target))
            case Root() | RefRoot() | DigestRoot() | TreeRoot() | Control():
                # Their own names mean the same for ever.
                stamp = self._stamp(path, node)
                return self._appearance.directory(inode, mtime_ns=stamp, entry_ttl_s=FOREVER_S)
            case AdHocDirectory() | TreeAlgorithm():
                return self._appearance.directory(inode, mtime_ns=self._stamp(path, node))
            case DigestAlgorithm(algorithm):
                listed = algorithm in LISTED_ALGORITHMS
                stamp = await trio.to_thread.run_sync(self._stamp_of_digests) if listed else 0
                return self._appearance.directory(inode, mtime_ns=UNDATED_NS + stamp)
            case _:
                return self._appearance.directory(inode)

    def _stamp(self, path: Path, node: Node) -> int:
        """A time that differs when the listing does: a kernel keeps a listing by its mtime.

        It is made of the names, and so the same in a later worker for the same listing, and another
        one for another, whatever the settings of the two and the clock between them.
        """
        names = self._listed(Named(0, path, node))
        if isinstance(node, RefRoot):
            names = (self._places.spelled((*path, name)) for name in names)
        return UNDATED_NS + zlib.crc32("/".join(sorted(names)).encode())

    def _stamp_of_digests(self) -> int:
        checksum = 0
        for digest in self._blobs.digests():
            checksum = zlib.crc32(digest.raw, checksum)
        return checksum

    def _opened_below(self, path: Path) -> list[str]:
        """The names below which something was opened.

        What was only looked up is found, but not listed: it may have been mistyped.
        """
        return [named.path[-1] for named in self._places.below(path) if self._opened(named)]

    def _opened(self, named: Named) -> bool:
        if isinstance(named.node, AdHocDirectory):
            return any(map(self._opened, self._places.below(named.path)))
        if not self._opening.allowed(named.node):
            return False
        # A file has a size, else it had no number.
        return self._is_file(named.node) or self._places.tree_at(named.path) is not None


def _cookie(digest: Digest) -> int:
    """Digests are listed in their order; their first bits say where one is, below 2**62."""
    return (int.from_bytes(digest.raw[:_KEY_BYTES], "big") >> 2) + 1
