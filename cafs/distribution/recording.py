"""Recording a layer: its members as they are spelled, in their order, to be applied later.

What a layer's members mean depends on the layers below it: a hard link may be to a file there, a
parent may be a symlink there. So the pass over a layer resolves nothing. It records the members in
a tree of names as they are spelled, and layers are fetched and recorded in any order.

In such a tree an entry's parent is whatever has the path's head, be it a directory or not. Entries
with no links were never stated by a member: they only hold names.
"""

from collections.abc import Iterator
from typing import Final

from cafs.codec.naming import label
from cafs.errors import MalformedError
from cafs.fetch.passes.making import Making
from cafs.model.identity import layer_record
from cafs.model.limits import Limits
from cafs.model.member import ROOT, Entry, Kind, Member
from cafs.model.record import TreeRecord
from cafs.store.trees.tree_writing import TreeWriter
from cafs.store.trees.trees import Trees

_NAME_BYTES: Final = 255
_ODD: Final = frozenset((b"", b".", b".."))
_REMEMBERED: Final = 4096
"""Heads of paths whose numbers, or texts, are known by heart; then all are forgotten."""


class LayerRecorder:
    """Records members; used as a planter.

    Args:
        writer: of a tree without entries.
        name: what errors call the layer.
        limits: what the layer may ask of us.

    Concurrency: one caller at a time, in the thread of the writer.
    """

    def __init__(self, writer: TreeWriter, *, name: str, limits: Limits) -> None:
        self._writer = writer
        self._name = name
        self._limits = limits
        self._heads: dict[bytes, int] = {}
        self._spelled: dict[bytes, tuple[int, int]] = {}
        writer.add(_holder(b"", ROOT))

    def plant(self, member: Member, sha256: bytes = b"") -> int:
        """Record a member, with its digest; returns the number of its entry.

        Raises:
            MalformedError: it has an impossible name, or is one too many.
        """
        writer, limits, path = self._writer, self._limits, member.path
        head, _, name = path.rpartition(b"/")
        # As it is with nearly all: what is spelled before the name has been looked at already.
        known = self._spelled.get(head)
        if (
            known is not None
            and name not in _ODD
            and len(name) <= _NAME_BYTES
            and b"\0" not in name
            and len(path) <= limits.path_bytes
            and known[1] < limits.depth
            and writer.count < limits.members
        ):
            return writer.add(_stated(member, name, known[0], sha256))
        return self._plant(member, sha256, head if name not in _ODD else None)

    def _plant(self, member: Member, sha256: bytes, spelled: bytes | None) -> int:
        parts = [part for part in member.path.split(b"/") if part not in {b"", b"."}]
        self._check(parts, member)
        if not parts:
            # A root can be stated twice; the last one is what counts, as for any directory.
            self._writer.replace(ROOT, _stated(member, b"", ROOT, sha256))
            return ROOT
        name = parts.pop()
        number = self._head(parts)
        if spelled is not None:
            if len(self._spelled) >= _REMEMBERED:
                self._spelled.clear()
            self._spelled[spelled] = number, len(parts)
        return self._writer.add(_stated(member, name, number, sha256))

    def finish(self) -> None:
        """Say that all members were recorded."""
        self._heads.clear()
        self._spelled.clear()

    def _head(self, parts: list[bytes]) -> int:
        path = b"/".join(parts)
        number = self._heads.get(path)
        if number is None:
            number = ROOT
            for part in parts:
                below = self._writer.child(number, part)
                number = self._writer.add(_holder(part, number)) if below is None else below
            if len(self._heads) >= _REMEMBERED:
                self._heads.clear()
                self._spelled.clear()  # what has no number there would have an old one here
            self._heads[path] = number
        return number

    def _check(self, parts: list[bytes], member: Member) -> None:
        limits = self._limits
        if self._writer.count >= limits.members:
            raise MalformedError(f"{self._name}: more than {limits.members} entries")
        if len(member.path) > limits.path_bytes or len(parts) > limits.depth:
            raise self._malformed(member, f"a path of {len(member.path)} bytes")
        if any(part == b".." or len(part) > _NAME_BYTES or b"\0" in part for part in parts):
            raise self._malformed(member, "its path has an impossible name")

    def _malformed(self, member: Member, what: str) -> MalformedError:
        return MalformedError(f"{label(self._name, member.path)}: {what}")


LAYER: Final = Making(layer_record, LayerRecorder, mark="+members", zips=False, noun="layer")
"""What a pass over a layer makes."""


def replay(trees: Trees, record: TreeRecord) -> Iterator[Member]:
    """The members that were recorded, in their order.

    Blocks: for a worker thread.
    """
    heads: dict[int, bytes] = {ROOT: b""}
    for number in range(record.count):
        entry = trees.entry(record.number, number)
        if not entry.links:
            continue
        if len(heads) >= _REMEMBERED:
            heads = {ROOT: b""}
        head = _path(trees, record.number, entry.parent, heads)
        yield Member(
            path=head + entry.name,
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            size=entry.size,
            offset=entry.offset,
            target=entry.target,
            device=entry.device,
            xattrs=entry.xattrs,
            sparse=entry.sparse,
            sha256=entry.sha256,
        )


def _path(trees: Trees, tree: int, number: int, heads: dict[int, bytes]) -> bytes:
    """The path of an entry with a slash behind it, empty for the root."""
    above: list[tuple[int, bytes]] = []
    while number not in heads:
        entry = trees.entry(tree, number)
        above.append((number, entry.name))
        number = entry.parent
    path = heads[number]
    for number, name in reversed(above):
        path = heads[number] = path + name + b"/"
    return path


def _holder(name: bytes, parent: int) -> Entry:
    return Entry(name=name, parent=parent, kind=Kind.DIRECTORY, mode=0, links=0)


def _stated(member: Member, name: bytes, parent: int, sha256: bytes) -> Entry:
    return Entry(
        name=name,
        parent=parent,
        kind=member.kind,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime_ns=member.mtime_ns,
        size=member.size,
        offset=member.offset,
        target=member.target,
        device=member.device,
        xattrs=member.xattrs,
        sparse=member.sparse,
        sha256=sha256,
    )
