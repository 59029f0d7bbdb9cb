"""What a first pass makes of the members that it reads: the tree of an archive, or another one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cafs.model.identity import StreamKey, TreeIdentity, archive_tree
from cafs.model.limits import Limits
from cafs.model.member import Member
from cafs.store.trees.planting import Planter
from cafs.store.trees.tree_writing import TreeWriter


class MemberPlanter(Protocol):
    """Takes members, in their archive's order, into a tree."""

    def plant(self, member: Member, sha256: bytes = b"") -> int | None:
        """Take a member, and the raw digest of its content where that is known.

        Raises:
            MalformedError: it cannot be in a tree.
        """

    def finish(self) -> None:
        """Say that all members were taken."""


class MakePlanter(Protocol):
    """Makes a planter for a tree without entries, whose root it adds."""

    def __call__(self, writer: TreeWriter, *, name: str, limits: Limits) -> MemberPlanter:
        """``name`` is what errors call the archive."""


@dataclass(frozen=True, slots=True)
class Making:
    """One thing that a pass can make.

    ``identity`` names the tree by the raw stream. ``mark`` tells its decoded streams from those of
    other makings, whose passes write them anew; it is empty for archives. ``zips`` says whether a
    zip will do.
    """

    identity: Callable[[StreamKey], TreeIdentity]
    planter: MakePlanter
    mark: str
    zips: bool


ARCHIVE: Final = Making(archive_tree, Planter, mark="", zips=True)
"""The tree that unpacking the archive alone would give."""
