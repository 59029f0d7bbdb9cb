"""Layers: members of one image layer after another, applied to one tree.

What is applied is what a container engine would unpack: layers lowest first, the members of each
in their order. A whiteout removes what lower layers brought, never what its own layer brought,
wherever in the layer it stands.

Entries are numbered in the order in which they appear, so "lower" is a comparison: a number below
the first one of the layer. Only a lower directory can hold things of the present layer too; those
are marked, one byte an entry, so that a whiteout knows what to spare. Entries that are removed stay
in the tree without a name.

Source: OCI image-spec, layer.md ("Applying Changesets", "Whiteouts"). Where it is silent, this does
as containerd: parents that are symlinks are followed inside the root, missing ones are made, a
directory over anything else replaces it, anything over a directory removes its subtree.
"""

from typing import Final

from typing_extensions import override

from cafs.errors import MalformedError
from cafs.model.limits import TOO_MUCH, Limits
from cafs.model.member import ROOT, Kind, Member
from cafs.store.trees.planting import Planter
from cafs.store.trees.tree_writing import TreeWriter

_WHITEOUT: Final = b".wh."
_METADATA: Final = b".wh..wh."
_OPAQUE: Final = b".wh..wh..opq"
_LINKED: Final = b".wh..wh.plnk"
"""Where aufs kept the files that several names link to; links into it name them."""


class LayerPlanter(Planter):
    """Applies layers to a tree that is being written.

    Call ``begin`` for each layer, lowest first, then ``plant`` for each of its members.

    Concurrency: one thread, the writer's.
    """

    def __init__(self, writer: TreeWriter, *, limits: Limits) -> None:
        super().__init__(writer, name="image", limits=limits)
        self._first = 0
        self._spared = bytearray()
        self._cleared = bytearray()
        self._linked: dict[bytes, int] = {}
        self._applied = 0

    def begin(self, stream: int, *, name: str) -> None:
        """Start the next layer: its content lies in the tree's stream of that number.

        ``name`` is what errors call the layer.
        """
        self._name = name
        self._stream = stream
        self._first = self._writer.count
        self._spared = bytearray(self._first)
        self._cleared = bytearray(self._first)
        self._linked.clear()

    @override
    def plant(self, member: Member, sha256: bytes = b"") -> int | None:
        """Apply a member; ``sha256`` as for any archive.

        Returns:
            the number of its entry; None for a whiteout, and for what is not shown.

        Raises:
            MalformedError: as for any archive, for a whiteout of nothing, and for one of too many
                that add no entry: a manifest may name one layer thousands of times. The tree is of
                no use then.
        """
        self._applied += 1
        if self._applied > 2 * self._limits.members:
            raise MalformedError(
                f"{self._name}: more than {2 * self._limits.members} members with the layers below",
                hint=TOO_MUCH,
            )
        if _WHITEOUT not in member.path:
            return super().plant(member, sha256)
        *above, name = self._parts(member.path, member) or [b""]
        hidden = any(part.startswith(_METADATA) for part in above)
        if hidden or (name.startswith(_METADATA) and name != _OPAQUE):
            self._keep_linked(member, above, name)
        elif name == _OPAQUE:
            self._clear(self._directory(above, member))
        elif name.startswith(_WHITEOUT):
            self._whiteout(self._directory(above, member), name.removeprefix(_WHITEOUT), member)
        else:
            return super().plant(member, sha256)
        return None

    @override
    def _put(self, parent: int, name: bytes, path: bytes, member: Member) -> int:
        self._spare(parent)
        number = super()._put(parent, name, path, member)
        self._spare(number)
        return number

    @override
    def _make(self, parent: int, name: bytes) -> int:
        self._spare(parent)
        return super()._make(parent, name)

    @override
    def _target(self, member: Member) -> int:
        parts = self._parts(member.target or b"", member)
        if parts and parts[0] == _LINKED and parts[-1] in self._linked:
            return self._linked[parts[-1]]
        return super()._target(member)

    def _keep_linked(self, member: Member, above: list[bytes], name: bytes) -> None:
        """What aufs left behind is not shown, but hard links may lead to its files."""
        if above[:1] == [_LINKED] and member.kind is Kind.FILE:
            self._sha256 = member.sha256
            self._linked[name] = self._writer.add(self._entry(ROOT, name, member))
            self._writer.unbind(ROOT, name)

    def _spare(self, number: int) -> None:
        """Mark what is lower, and the directories above it, as belonging to this layer too."""
        while number < self._first and not self._spared[number]:
            self._spared[number] = 1
            number = self._writer.entry(number).parent

    def _whiteout(self, parent: int, name: bytes, member: Member) -> None:
        """Remove what lower layers have by that name."""
        if name in {b"", b".", b".."}:
            raise self._malformed(member, "a whiteout of nothing")
        number = self._writer.child(parent, name)
        if number is None or number >= self._first:
            return
        if self._spared[number]:
            self._clear(number)
        else:
            self._remove(parent, name, number)

    def _clear(self, directory: int) -> None:
        """Remove what lower layers brought into a directory, at any depth.

        Once is enough for a layer: nothing lower comes into a directory any more. A layer that asks
        for it a million times, of a directory of a million, would keep us for years.
        """
        pending = [directory]
        while pending:
            at = pending.pop()
            if at >= self._first or self._cleared[at]:
                continue  # in a directory of the layer's own nothing is lower
            self._cleared[at] = 1
            lower = [each for each in self._writer.children(at) if each[1] < self._first]
            for name, number in lower:
                if self._spared[number]:
                    pending.append(number)
                else:
                    self._remove(at, name, number)
