"""Showing: what refs and digests show, read through their nodes, with failures noted."""

import os
from functools import partial

from cafs.distribution.interfaces import OpenTree
from cafs.errors import ContentError, NotFoundError, SourceChangedError
from cafs.fetch.content.extracting import exactly
from cafs.fetch.interfaces import Patience
from cafs.model.record import Attachment
from cafs.model.resolved import Shape
from cafs.vfs.failures import Failures
from cafs.vfs.namespace import Path
from cafs.vfs.opening import Opening, Shown
from cafs.vfs.places import ROOT_INODE, Named, Places, Planted, text_of
from cafs.vfs.planted import PlantedTrees
from cafs.vfs.reading import read_entry


class Showing:
    """Answers for what lies behind nodes: the trees that they show, and bytes.

    Args:
        opening: opens what nodes show.
        places: inode numbers of the mount.
        planted: answers for what lies inside trees.
        failures: where failures are noted.
        inside: the path below a tree that the root shows.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        opening: Opening,
        places: Places,
        planted: PlantedTrees,
        failures: Failures,
        inside: tuple[bytes, ...],
    ) -> None:
        self._opening = opening
        self._places = places
        self._planted = planted
        self._failures = failures
        self._inside = inside

    def tree(self, at: Named) -> bool:
        """Whether a node shows a tree, and not a file or names of the namespace."""
        return isinstance(at.node, Shown) and self._opening.shape(at.node) is Shape.TREE

    async def inside(self, at: Named) -> Planted:
        """The directory of a tree that a node shows; its number is of no use to a kernel.

        Raises:
            NotFoundError: it shows none, or the mount's root shows a place that is not in it.
            CafsError: it cannot be resolved, fetched or read.

        Cancellation: what has been fetched stays.
        """
        if not isinstance(at.node, Shown):
            raise NotFoundError(f"{text_of(at.path)} shows no tree")
        noting = self._failures.noting(at.inode, text_of(at.path))
        with noting, self._opening.request(at.node) as patience:
            self._opening.refuse(at.node)
            tree, attached = await self._attached(at.path, at.node, patience)
            if not self._planted.there(attached):
                # It was nobody's until it was attached, and has been collected in between.
                tree, attached = await self._attached(at.path, at.node, patience)
            number: int | None = tree.root
            if at.inode == ROOT_INODE and self._inside:
                number = self._planted.walk(attached, self._inside)
            if number is None:
                inside = os.fsdecode(b"/".join(self._inside))
                raise NotFoundError(
                    f"{text_of(at.path)} has no directory {inside!r}", hint="see --view"
                )
        return Planted(at.inode, at.path, at.node, attached, number)

    async def _attached(
        self, path: Path, node: Shown, patience: Patience
    ) -> tuple[OpenTree, Attachment]:
        """The tree that a node shows, and its numbers."""
        tree = await self._opening.tree(node, patience)
        record = tree.record
        return tree, await self._places.tree(path, record.number, record.count, tree.root)

    def withdrawn(self, at: Planted) -> bool:
        """Whether what a ref showed turned out to be wrong, so that nothing of it is read."""
        return self._opening.disowned(at.node) is not None

    def check(self, at: Planted) -> None:
        """Make sure that a ref still shows the tree that an inode is of.

        Raises:
            DisownedError: what it shows turned out to be wrong.
            SourceChangedError: it shows another.
        """
        self._opening.refuse(at.node)
        now = self._places.tree_at(at.path)
        if now is not None and now.first != at.at.first:
            raise _another(at)

    async def renew(self, at: Planted) -> None:
        """Make sure that nothing is shown of a tree that was wrong, now that it may be read again.

        Raises:
            DisownedError: it may not.
            SourceChangedError: the ref shows another tree by now, or will.
            CafsError: that cannot be had.

        Cancellation: what has been fetched stays.
        """
        unchecked = self._opening.unchecked(at.node)
        if unchecked is None or not unchecked.wrong:
            return
        unchecked.check()
        if isinstance(at.node, Shown):
            with self._opening.request(at.node) as patience:
                tree = await self._opening.tree(at.node, patience)
                record = tree.record
                if record.number != at.at.tree:
                    await self._places.tree(at.path, record.number, record.count, tree.root)
                    raise _another(at)

    async def read_planted(self, at: Planted, offset: int, length: int) -> bytes:
        """Read a file of a tree, or a symlink's text that is content; short only at its end.

        Raises:
            SourceChangedError: the ref shows another tree by now.
            CafsError: the bytes cannot be had.

        Cancellation: what has been fetched stays.
        """
        if not isinstance(at.node, Shown):
            raise NotFoundError(f"{text_of(at.path)} shows no tree")
        inside = partial(self._planted.path, at.at, at.number)
        noting = self._failures.noting(at.inode, text_of(at.path), inside)
        with noting, self._opening.request(at.node) as patience:
            tree = await self._opening.tree(at.node, patience)
            record = tree.record
            if record.number != at.at.tree:
                # From now on the ref has another inode, and whoever looks it up finds that tree.
                await self._places.tree(at.path, record.number, record.count, tree.root)
                raise _another(at)
            entry = self._planted.entry(at.at, at.number)
            return await read_entry(tree, entry, offset, length, patience)

    async def read_named(self, at: Named, offset: int, length: int) -> bytes:
        """Read a file of the namespace; short only at its end.

        Raises:
            NotFoundError: it is none.
            CafsError: the bytes cannot be had.

        Cancellation: what has been fetched stays.
        """
        if not isinstance(at.node, Shown):
            raise NotFoundError(f"{text_of(at.path)} is no file")
        noting = self._failures.noting(at.inode, text_of(at.path))
        with noting, self._opening.request(at.node) as patience:
            content = await self._opening.content(at.node, patience)
            length = min(length, content.size - offset)
            if length <= 0:
                return b""
            try:
                return await exactly(content, offset, length, patience)
            except ContentError:
                await self._opening.doubt(at.node)
                raise


def _another(at: Planted) -> SourceChangedError:
    return SourceChangedError(
        f"{text_of(at.path)}: it shows another tree than when this file was looked up",
        hint="open the path again",
    )
