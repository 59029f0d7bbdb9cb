"""Picking: which bytes of a tree's streams are those of given paths. Reads records only."""

from collections.abc import Iterator
from typing import Final

from cafs.distribution.unlinking import file_behind
from cafs.fetch.content.extracting import pieces_of
from cafs.model.member import Entry, Kind
from cafs.model.record import TreeRecord
from cafs.model.span import Span, SpanSet
from cafs.store.trees.trees import Trees

_SYMLINKS: Final = 40
"""Symlinks followed on one path at most, as in the kernel."""
_PAGE: Final = 1000


class Picker:
    """Gathers the files that paths mean, each once, and where their bytes are.

    Args:
        trees: where the tree is.
        record: the tree.
        root: the number of the entry from which paths lead.

    Concurrency: one thread.
    """

    def __init__(self, trees: Trees, record: TreeRecord, root: int) -> None:
        self._trees = trees
        self._tree = record.number
        self._root = root
        self._files: set[int] = set()
        self._spans: dict[int, list[Span]] = {}
        self.size = 0

    @property
    def files(self) -> int:
        """How many there are."""
        return len(self._files)

    def spans(self) -> dict[int, SpanSet]:
        """Where their bytes are, by the number of the stream."""
        return {number: SpanSet(spans) for number, spans in self._spans.items()}

    def pick(self, path: bytes) -> bool:
        """Add a file, or all files below a directory; False where there is no such path.

        Symlinks on the way are followed inside the tree, those below a directory are not. Blocks.
        """
        number = self._find(path)
        if number is None:
            return False
        entry = self._trees.entry(self._tree, number)
        if entry.kind is Kind.DIRECTORY:
            for below, each in self._below(number):
                self._add(below, each)
        else:
            self._add(number, entry)
        return True

    def _add(self, number: int, entry: Entry) -> None:
        if entry.kind is not Kind.FILE or number in self._files:
            return
        self._files.add(number)
        self.size += entry.size
        spans = self._spans.setdefault(entry.stream, [])
        if entry.sparse is None:
            spans.append(Span(entry.offset, entry.offset + entry.size))
            return
        for run in pieces_of(entry.sparse, 0, entry.size):
            at = entry.offset + run.at
            spans.append(Span(at, at + run.length))

    def _find(self, path: bytes) -> int | None:
        above, links = [self._root], 0
        pending = path.split(b"/")[::-1]
        while pending:
            name = pending.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                above = above[:-1] or above
                continue
            number = self._trees.child(self._tree, above[-1], name)
            if number is None:
                return None
            number = self._file(number)
            entry = self._trees.entry(self._tree, number)
            if entry.kind is not Kind.SYMLINK or entry.target is None:
                above.append(number)
                continue
            links += 1
            if links > _SYMLINKS:
                return None
            above = above[:1] if entry.target.startswith(b"/") else above
            pending += entry.target.split(b"/")[::-1]
        return above[-1]

    def _below(self, number: int) -> Iterator[tuple[int, Entry]]:
        pending = [number]
        while pending:
            directory, after = pending.pop(), None
            while page := self._trees.children(self._tree, directory, after, _PAGE):
                for child, entry in page:
                    if entry.kind is Kind.DIRECTORY:
                        pending.append(child)
                    elif entry.kind is Kind.HARD_LINK:
                        yield entry.link, self._trees.entry(self._tree, entry.link)
                    else:
                        yield child, entry
                after = page[-1][0]

    def _file(self, number: int) -> int:
        return file_behind(self._trees.entry(self._tree, number), number)
