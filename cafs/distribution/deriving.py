"""Trees made of other trees: leading path components removed. And the way to a directory inside.

A derived tree is a tree like any other: it has numbers, an identity and a record of its own, and
shares the streams of the one it was made of.
"""

from array import array
from typing import Final

from msgspec.structs import replace

from cafs.distribution.unlinking import add_link, file_behind, unlink
from cafs.errors import NotFoundError
from cafs.model.identity import TreeIdentity
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import TreeRecord
from cafs.store.trees.tree_writing import TreeWriter
from cafs.store.trees.trees import Trees

_NOWHERE: Final = 0xFFFFFFFF
"""In the table of new numbers: the entry has none, and neither has anything below it."""
_ABOVE: Final = 0xFFFFFFFE
"""In the table of new numbers: a directory that goes, while things below it may stay."""
_SYMLINKS: Final = 40
"""Symlinks followed on one path at most, as in the kernel."""


def strip_tree(trees: Trees, base: TreeRecord, identity: TreeIdentity, strip: int) -> TreeRecord:
    """Remove ``strip`` leading components of every path, as GNU tar does.

    What has no more components vanishes. What then has the same name is one: directories are
    merged, of everything else the later one wins. A hard link whose file vanished becomes the file.

    Blocks: for a worker thread. Memory: 6 bytes an entry.

    Returns:
        The published record, with the streams of ``base``.
    """
    with trees.writer(identity) as writer:
        _Stripping(trees, base, writer, strip).run()
        return writer.publish(base.streams, base.digest)


class _Stripping:
    """One run of ``strip_tree``: entries in the order of their numbers, parents before children."""

    def __init__(self, trees: Trees, base: TreeRecord, writer: TreeWriter, strip: int) -> None:
        self._trees = trees
        self._tree = base.number
        self._writer = writer
        self._strip = strip
        self._moved = array("I", [_NOWHERE]) * base.count
        self._depth = array("H", [0]) * base.count

    def run(self) -> None:
        self._writer.add(self._trees.entry(self._tree, ROOT))
        self._moved[ROOT] = _ABOVE
        links = array("I")
        for number in range(1, len(self._moved)):
            entry = self._trees.entry(self._tree, number)
            parent = self._moved[entry.parent]
            if parent == _NOWHERE or not self._named(number, entry):
                continue
            if parent == _ABOVE:
                self._pass(number, entry)
            elif entry.kind is Kind.HARD_LINK:
                links.append(number)
            else:
                self._moved[number] = self._move(entry, parent)
        for number in links:
            self._link(self._trees.entry(self._tree, number))

    def _named(self, number: int, entry: Entry) -> bool:
        """Whether the entry is still there: a later one may have taken its name."""
        return self._trees.child(self._tree, entry.parent, entry.name) == number

    def _pass(self, number: int, entry: Entry) -> None:
        """What has too few components goes; only what is below its directories may stay."""
        if entry.kind is Kind.DIRECTORY:
            depth = self._depth[number] = self._depth[entry.parent] + 1
            self._moved[number] = ROOT if depth == self._strip else _ABOVE

    def _move(self, entry: Entry, parent: int) -> int:
        """Put an entry where it belongs now; returns its number."""
        moved = replace(entry, parent=parent, links=1)
        taken = self._writer.child(parent, entry.name)
        if taken is not None:
            both = (entry.kind, self._writer.entry(taken).kind)
            if both == (Kind.DIRECTORY, Kind.DIRECTORY):
                self._writer.replace(taken, moved)
                return taken
            unlink(self._writer, parent, entry.name)
        return self._writer.add(moved)

    def _link(self, entry: Entry) -> None:
        """Put a hard link where it belongs; links come last, when their files have numbers."""
        parent = self._moved[entry.parent]
        file = self._moved[entry.link]
        if file >= _ABOVE:
            original = self._trees.entry(self._tree, entry.link)
            self._moved[entry.link] = self._move(replace(original, name=entry.name), parent)
            return
        taken = self._writer.child(parent, entry.name)
        if taken is not None:
            if file_behind(self._writer.entry(taken), taken) == file:
                return
            unlink(self._writer, parent, entry.name)
        add_link(self._writer, parent, entry.name, file)


def find_directory(trees: Trees, record: TreeRecord, path: str, *, name: str) -> int:
    """The number of the directory at ``path`` inside a tree; symlinks are followed inside it.

    Args:
        trees: where the tree is.
        record: the tree.
        path: components with slashes between them; empty for the root.
        name: what people call the tree, for messages.

    Raises:
        NotFoundError: there is no such directory.
    """
    at = ROOT
    links = 0
    pending = path.encode().split(b"/")[::-1]
    while pending:
        part = pending.pop()
        if part in {b"", b"."}:
            continue
        if part == b"..":
            at = trees.entry(record.number, at).parent
            continue
        number = trees.child(record.number, at, part)
        if number is None:
            raise NotFoundError(
                f"{name}: no member {path!r}", hint="subdir names a directory after strip"
            )
        number = file_behind(trees.entry(record.number, number), number)
        entry = trees.entry(record.number, number)
        if entry.kind is Kind.DIRECTORY:
            at = number
        elif entry.kind is Kind.SYMLINK and entry.target is not None and links < _SYMLINKS:
            links += 1
            at = ROOT if entry.target.startswith(b"/") else at
            pending.extend(reversed(entry.target.split(b"/")))
        else:
            raise NotFoundError(f"{name}: {path!r} is no directory")
    return at
