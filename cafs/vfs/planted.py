"""Trees as inodes: an attachment's range of inode numbers is its tree's entries, one to one.

Inode = first number of the range + entry number. So nothing is kept in memory, and a new process
gives the answers of the old one.
"""

from typing import Final

from cafs.errors import SourceChangedError
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import Attachment
from cafs.store.trees.trees import Trees
from cafs.vfs.attributes import NOWHERE, Appearance, Attributes, DirectoryEntry
from cafs.vfs.places import plain

_BATCH: Final = 128
"""Children read at once when some are hidden: one page of answers or a few."""


class PlantedTrees:
    """Answers for what lies inside attached trees. All of it is local, and none of it changes.

    Concurrency: synchronous; each call has its own short read transactions.
    """

    def __init__(self, trees: Trees, appearance: Appearance) -> None:
        self._trees = trees
        self._appearance = appearance

    def there(self, at: Attachment) -> bool:
        """Whether a tree is in the store; while it is attached in a live mount, it stays there."""
        return self._trees.has(_tree(at))

    def entry(self, at: Attachment, number: int) -> Entry:
        """An entry, which is never a hard link: that is followed.

        Raises:
            SourceChangedError: the tree has left the store, or was built anew.
        """
        return self._followed(at, number, self._entry(at, number))[1]

    def attributes(self, at: Attachment, number: int) -> Attributes:
        """The attributes of an entry; a hard link is the file that it links to.

        Raises:
            SourceChangedError: as ``entry``.
        """
        number, entry = self._followed(at, number, self._entry(at, number))
        return self._appearance.of_entry(at.first + number, entry)

    def child(self, at: Attachment, parent: int, name: bytes) -> Attributes:
        """A child of a directory by its name; ``NOWHERE`` when there is none, or it is hidden.

        Raises:
            SourceChangedError: as ``entry``.
        """
        number = self._trees.child(_tree(at), parent, name)
        if number is None:
            # A tree that is gone has no names either, and that must not be remembered for a year.
            self._entry(at, parent)
            return NOWHERE
        return self._shown(at, number, self._entry(at, number)) or NOWHERE

    def children(self, at: Attachment, parent: int, after: int, limit: int) -> list[DirectoryEntry]:
        """At most ``limit`` children by name bytes, after the one with the cookie ``after``.

        Raises:
            SourceChangedError: as ``entry``.
        """
        if not after:
            self._entry(at, parent)
        found: list[DirectoryEntry] = []
        last = after - 1 if after else None
        while len(found) < limit:
            batch = self._page(at, parent, last, min(_BATCH, limit - len(found)))
            if not batch:
                break
            last = batch[-1][0]
            shown = ((entry, self._shown(at, number, entry), number) for number, entry in batch)
            found += [
                DirectoryEntry(entry.name, attributes, number + 1)
                for entry, attributes, number in shown
                if attributes is not None
            ]
        return found

    def walk(self, at: Attachment, inside: tuple[bytes, ...]) -> int | None:
        """The directory at a path below the attachment's root; None when there is none.

        Symlinks are not followed.

        Raises:
            SourceChangedError: as ``entry``.
        """
        number = at.root
        for name in inside:
            child = self._trees.child(_tree(at), number, name)
            if child is None:
                return None
            number = child
        return number if self._entry(at, number).kind is Kind.DIRECTORY else None

    def path(self, at: Attachment, number: int) -> str:
        """The path of an entry below the attachment's root, for people; a hard link's first name.

        Raises:
            SourceChangedError: as ``entry``.
        """
        names: list[bytes] = []
        while number not in (at.root, ROOT):
            entry = self._entry(at, number)
            names.append(entry.name)
            number = entry.parent
        return b"/".join(reversed(names)).decode("utf-8", "backslashreplace")

    def _shown(self, at: Attachment, number: int, entry: Entry) -> Attributes | None:
        """The attributes of what an entry is or links to; None when that is hidden."""
        number, entry = self._followed(at, number, entry)
        shows = self._appearance.shows(entry.kind)
        return self._appearance.of_entry(at.first + number, entry) if shows else None

    def _followed(self, at: Attachment, number: int, entry: Entry) -> tuple[int, Entry]:
        if entry.kind is Kind.HARD_LINK:
            return entry.link, self._entry(at, entry.link)
        return number, entry

    def _entry(self, at: Attachment, number: int) -> Entry:
        try:
            return self._trees.entry(_tree(at), number)
        except KeyError:
            raise _gone(at) from None

    def _page(
        self, at: Attachment, parent: int, after: int | None, limit: int
    ) -> list[tuple[int, Entry]]:
        try:
            return self._trees.children(_tree(at), parent, after, limit)
        except KeyError:
            raise _gone(at) from None


def _gone(at: Attachment) -> SourceChangedError:
    return SourceChangedError(
        f"{plain(at.path)}: the tree that was found here is no longer in the store",
        hint="open the path again",
    )


def _tree(at: Attachment) -> int:
    if at.tree is None:
        raise ValueError(f"{plain(at.path)}: no tree is attached here")
    return at.tree
