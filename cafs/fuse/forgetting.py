"""What a kernel is told to forget: pages that were wrong, names and attributes that do not hold.

Under a keeper a notification is a message to that, which waits for the kernel in our place. Without
one the thread that writes it waits itself.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

import pyfuse3
import trio
from pyfuse3 import FileNameT, InodeT

from cafs.fuse.interests import Interests

_PORTION: Final = 256
"""Notices that are given to a keeper at once."""
_PAGES_S: Final = 0.002
"""How long it has for a portion of pages: other messages come the same way."""
_NAMES_S: Final = 0.01
"""How long it has for a portion of names, of which it keeps a queue of a thousand."""


class Forgetting:
    """Has the kernel forget.

    Args:
        interests: a keeper's requests that are under way; None without a keeper.

    Concurrency: any number of tasks.
    """

    def __init__(self, interests: Interests | None) -> None:
        self._interests = interests

    async def pages(self, inodes: Sequence[range]) -> None:
        """Have the kernel forget what it has of the content of inodes.

        It waits for pages that are being read, so nothing that is to be forgotten may be waited for
        any more; and it is done in a thread, since those reads are answered here. What is being
        read now comes last, or a silent source of one file would keep the pages of the others.

        Raises:
            OSError: the mount has ended.

        Cancellation: some may be forgotten.
        """
        read = set[int]() if self._interests is None else self._interests.read()
        twice = any(inode in each for inode in read for each in inodes)
        # All of them follow, so that a keeper has few ranges to remember while it waits for one.
        for each in (*without(inodes, read), *inodes) if twice else inodes:
            for start in range(each.start, each.stop, _PORTION):
                portion = each[start - each.start :][:_PORTION]
                await trio.to_thread.run_sync(_forget_pages, portion, abandon_on_cancel=True)
                if self._interests is not None and len(portion) == _PORTION:
                    await trio.sleep(_PAGES_S)

    async def names(self, names: Sequence[tuple[int, bytes]]) -> None:
        """Have the kernel look names up again before it opens them: they mean something else now.

        Args:
            names: inodes of directories, and names in them.

        Raises:
            OSError: the mount has ended.

        Cancellation: some may be forgotten.
        """
        for start in range(0, len(names), _PORTION):
            portion = names[start:][:_PORTION]
            await trio.to_thread.run_sync(_forget_names, portion, abandon_on_cancel=True)
            if len(portion) == _PORTION:
                await trio.sleep(_NAMES_S)

    async def attributes(self, inode: int) -> None:
        """Let the kernel ask for an inode's attributes before its name is opened again.

        It keeps the names of trees for a year, and under a keeper it asks nobody to open. That the
        attributes fail makes it look the whole path up again, as an open that fails would. Without
        a keeper it asks, and nothing is done.

        Raises:
            OSError: the mount has ended.
        """
        if self._interests is not None:
            await trio.to_thread.run_sync(pyfuse3.invalidate_inode, InodeT(inode), True)


def without(inodes: Sequence[range], left_out: Collection[int]) -> list[range]:
    """What is left of ranges without some of what is in them; nothing in it is empty."""
    found: list[range] = []
    for each in inodes:
        start = each.start
        for inode in sorted(inode for inode in left_out if inode in each):
            found.append(range(start, inode))
            start = inode + 1
        found.append(range(start, each.stop))
    return list(filter(None, found))


def _forget_pages(inodes: range) -> None:
    for inode in inodes:
        # What the kernel does not know it has nothing of.
        with suppress(FileNotFoundError):
            pyfuse3.invalidate_inode(InodeT(inode))


def _forget_names(names: Sequence[tuple[int, bytes]]) -> None:
    for parent, name in names:
        # What the kernel does not know it has nothing to forget of.
        with suppress(FileNotFoundError):
            pyfuse3.invalidate_entry(InodeT(parent), FileNameT(name))
