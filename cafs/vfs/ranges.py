"""Ranges of inode numbers that were located lately: most requests are for what lies in a few."""

from bisect import bisect_right
from typing import Final

from cafs.model.record import Attachment
from cafs.vfs.namespace import Node, Path

_RANGES: Final = 1024
"""Trees whose ranges are remembered."""


class Ranges:
    """The ranges of trees. What they stand for holds for the life of the mount.

    Concurrency: one trio run; nothing awaits.
    """

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._found: list[tuple[Attachment, Path, Node]] = []

    def find(self, inode: int) -> tuple[Attachment, Path, Node] | None:
        """The tree that a number lies in, and the path and node that show it."""
        index = bisect_right(self._firsts, inode) - 1
        if index < 0:
            return None
        found = self._found[index]
        return found if inode < found[0].first + found[0].count else None

    def add(self, at: Attachment, path: Path, node: Node) -> None:
        """Remember the range of a tree that is not remembered yet."""
        if len(self._firsts) == _RANGES:
            self._firsts.clear()
            self._found.clear()
        index = bisect_right(self._firsts, at.first)
        self._firsts.insert(index, at.first)
        self._found.insert(index, (at, path, node))
