"""Places: what an inode number stands for, and which number a path has.

Numbers are ranges of a mount's attachments, kept by the store for the life of the mount. The path
of an attachment says what it is:

- ``tree/sha256``: a node of the namespace, one number.
- ``tree/sha256/HEX/``: the tree of that node, one number an entry.
- ``ref/gcc;MARK`` and ``ref/gcc;MARK/``: those of a named ref; MARK stands for what the settings
  say of it. A worker with other settings gives other numbers, so nothing that a kernel has kept of
  the old meaning is taken for the new one. No name of a ref has a ``;``.
- ``ref/blob;MARK?``: the same file in a listing that did not know its size. Its number is never
  looked up and never read; a lookup gives the real one. No path of the namespace has a ``?``.
- ``.cafs/status.json`` with content: a snapshot. Each lookup attaches a new one; the old ones stay.
- ``?view`` with content: what the root of the mount shows.
- ``?unchecked/KEY`` with content: what was handed out of a stream before it was checked
  (``cafs.fetch.content.exposing``).
"""

import hashlib
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from cachetools import LRUCache

from cafs.errors import MountError, SourceChangedError
from cafs.model.record import Attachment
from cafs.model.spec import RefSpec
from cafs.store.trees.attachments import Attachments
from cafs.vfs.namespace import CONTROL, NamedRef, Node, Path, View, node_at
from cafs.vfs.ranges import Ranges

ROOT_INODE: Final = 1
"""The number of what the mount shows at its root. No attachment has it."""
_TREE: Final = "/"
_UNSIZED: Final = "?"
_VIEW: Final = "?view"
_MARKED: Final = ";"
_NAMED: Final = ("ref",)
"""Where the named refs are."""
_MEANINGS: Final = 4096
"""Paths and numbers whose meaning is remembered: finding one costs more than reading its page."""


class Named(msgspec.Struct, frozen=True):
    """A node of the namespace."""

    inode: int
    path: Path
    node: Node


class Planted(msgspec.Struct, frozen=True):
    """An entry of an attached tree. ``path`` and ``node`` are those that show the tree."""

    inode: int
    path: Path
    node: Node
    at: Attachment
    number: int


class Unsized(msgspec.Struct, frozen=True):
    """A file as a listing showed it that did not know its size."""

    inode: int
    path: Path


class Snapshot(msgspec.Struct, frozen=True):
    """The content of a control file at one time."""

    inode: int
    content: bytes


Place: TypeAlias = Named | Planted | Unsized | Snapshot


def text_of(path: Path) -> str:
    """A path as messages spell it."""
    return "/".join(path)


def plain(text: str) -> str:
    """The path of an attachment as messages spell it."""
    return text.partition(_UNSIZED)[0].partition(_MARKED)[0].removesuffix(_TREE)


class Places:
    """Numbers and paths of one mount.

    Args:
        attachments: the store's, of all mounts.
        mount: the mount's number there.
        specs: the named refs, by name.
        view: what the root shows.

    Concurrency: any number of tasks; attaching is idempotent by path.
    """

    def __init__(
        self, attachments: Attachments, mount: int, specs: Mapping[str, RefSpec], view: View
    ) -> None:
        self._attachments = attachments
        self._mount = mount
        self._marks = {name: _mark(spec) for name, spec in specs.items()}
        self._view = view
        self._root = Named(ROOT_INODE, view.path, view.node)
        self._meanings: LRUCache[str, tuple[Path, Node]] = LRUCache(_MEANINGS)
        self._found: LRUCache[int, Attachment] = LRUCache(_MEANINGS)
        self._ranges = Ranges()

    async def settle_root(self) -> None:
        """Make sure that the root shows what it has shown in this mount before.

        Its number is the one that stays, so no kernel would forget what it has kept below it.

        Raises:
            MountError: it is another ref, or another place in it.

        Cancellation: it may be settled or not.
        """
        inside = b"/".join(self._view.inside)
        shown = self.spelled(self._view.path).encode() + b" " + inside
        first = await self._attachments.attach(self._mount, _VIEW, content=shown)
        if first.content != shown:
            raise MountError(
                f"{text_of(self._view.path) or '/'}: the mount's root would show something else"
                " than before",
                hint="unmount, and mount again",
            )

    def locate(self, inode: int) -> Place:
        """What an inode number stands for.

        Raises:
            SourceChangedError: it stands for nothing any more: for an old snapshot, or a named ref
                of which the settings say something else by now. A kernel that is told so looks
                its path up again.
        """
        if inode == ROOT_INODE:
            return self._root
        inside = self._ranges.find(inode)
        if inside is not None:
            tree, path, node = inside
            return Planted(inode, path, node, tree, inode - tree.first)
        at = self._find(inode)
        if at is None:
            raise SourceChangedError(
                f"inode {inode} is not known in this mount", hint="open the path again"
            )
        if at.content is not None:
            return Snapshot(inode, at.content)
        if at.tree is not None:
            path, node = self._meaning(at.path.removesuffix(_TREE))
            self._ranges.add(at, path, node)
            return Planted(inode, path, node, at, inode - at.first)
        if at.path.endswith(_UNSIZED):
            return Unsized(inode, self._meaning(at.path.removesuffix(_UNSIZED))[0])
        path, node = self._meaning(at.path)
        return Named(inode, path, node)

    def is_inside(self, inode: int) -> bool:
        """Whether a number was lately located inside a tree."""
        return self._ranges.find(inode) is not None

    def is_control(self, inode: int) -> bool:
        """Whether a number stands for ``.cafs``, or for something below it."""
        at = None if self.is_inside(inode) else self._find(inode)
        return at is not None and (at.path == CONTROL or at.path.startswith(f"{CONTROL}/"))

    def _find(self, inode: int) -> Attachment | None:
        """The attachment that a number is of; what has one number is looked up once."""
        at = self._found.get(inode)
        if at is None:
            at = self._attachments.find(self._mount, inode)
            if at is not None and at.content is None and at.tree is None:
                self._found[inode] = at
        return at

    def child(self, parent: Path, name: str) -> Node | None:
        """What a name in a directory of the namespace is; None when there is no such name."""
        return node_at((*parent, name), self._marks)

    async def inode(self, path: Path) -> int:
        """The number of a node of the namespace, the same each time.

        Cancellation: it may have been given or not.
        """
        return await self._single(self.spelled(path))

    def refs(self) -> int | None:
        """The number of the directory of the named refs; None when nobody can have looked there."""
        if self._view.path == _NAMED:
            return ROOT_INODE
        at = None if self._view.path else self._attachments.at(self._mount, text_of(_NAMED))
        return None if at is None else at.first

    async def unsized(self, path: Path) -> int:
        """The number of a file in listings that do not know its size.

        Cancellation: it may have been given or not.
        """
        return await self._single(self.spelled(path) + _UNSIZED)

    async def snapshot(self, path: Path, content: bytes) -> int:
        """A number for this content; the last one again when the content is the same.

        Cancellation: it may have been given or not.
        """
        text = text_of(path)
        last = self._attachments.at(self._mount, text)
        if last is None or last.content != content:
            last = await self._attachments.attach(self._mount, text, content=content, replace=True)
        return last.first

    async def tree(self, path: Path, tree: int, count: int, root: int) -> Attachment:
        """The numbers of a node's tree, which has ``count`` entries; ``root`` is what it shows.

        Another tree than the last time gets other numbers, and so does its node: then a kernel
        looks up anew what it has kept below.

        Cancellation: they may have been given or not.
        """
        text = self.spelled(path)
        last = self._attachments.at(self._mount, text + _TREE)
        if last is not None and (last.tree, last.count, last.root) == (tree, count, root):
            return last
        if last is not None:
            await self._attachments.attach(self._mount, text, replace=True)
        return await self._attachments.attach(
            self._mount,
            text + _TREE,
            count=count,
            tree=tree,
            root=root,
            replace=last is not None,
        )

    def below(self, parent: Path) -> list[Named]:
        """The nodes of the namespace that have been looked up directly below a directory."""
        return [
            Named(at.first, *self._meaning(at.path))
            for at in self._attachments.under(self._mount, text_of(parent))
            if at.tree is None and _UNSIZED not in at.path
        ]

    def tree_at(self, path: Path) -> Attachment | None:
        """The tree that a node shows, when somebody has looked inside it."""
        return self._attachments.at(self._mount, self.spelled(path) + _TREE)

    async def _single(self, text: str) -> int:
        last = self._attachments.at(self._mount, text)
        if last is None:
            last = await self._attachments.attach(self._mount, text)
        return last.first

    def spelled(self, path: Path) -> str:
        """The path of a node's attachment: another one for each meaning of a named ref."""
        named = len(path) == len(_NAMED) + 1 and path[:-1] == _NAMED
        mark = self._marks.get(path[-1]) if named else None
        return text_of(path) if mark is None else f"{text_of(path)}{_MARKED}{mark}"

    def meaning(self, at: Attachment) -> tuple[Path, Node]:
        """What the path of an attachment that is not a snapshot shows.

        Raises:
            SourceChangedError: the settings say something else of it by now.
        """
        return self._meaning(at.path.partition(_UNSIZED)[0].removesuffix(_TREE))

    def _meaning(self, text: str) -> tuple[Path, Node]:
        known = self._meanings.get(text)
        if known is None:
            path = _split(text)
            node = node_at(path, self._marks)
            known = self._meanings[text] = (path, node) if node is not None else self._marked(text)
        return known

    def _marked(self, text: str) -> tuple[Path, Node]:
        """The meaning of a named ref's attachment."""
        unmarked, _, mark = text.rpartition(_MARKED)
        path = _split(unmarked)
        if path[:-1] != _NAMED or self._marks.get(path[-1]) != mark:
            raise SourceChangedError(
                f"{unmarked or text}: the settings now say something else of it",
                hint="open the path again",
            )
        return path, NamedRef(path[-1])


def _mark(spec: RefSpec) -> str:
    """What the settings say of a named ref: specs that show the same have the same mark."""
    return hashlib.sha256(spec.key.encode()).hexdigest()[:16]


def _split(text: str) -> Path:
    return tuple(text.split("/")) if text else ()
