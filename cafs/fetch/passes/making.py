"""What a first pass makes of what it reads: the tree of an archive, or another one."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from cafs.model.identity import StreamKey, TreeIdentity, archive_tree, file_tree
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


class Making(msgspec.Struct, frozen=True):
    """One thing that a pass can make.

    ``identity`` names the tree by the raw stream. ``mark`` tells its decoded streams from those of
    other makings, whose passes write them anew; it is empty for archives. ``zips`` says whether a
    zip will do. ``opaque`` says that nothing is looked for in the bytes, whatever they are: they
    are cut into segments, and the tree has no members. ``noun`` is what errors call what is read.
    """

    identity: Callable[[StreamKey], TreeIdentity]
    planter: MakePlanter
    mark: str
    zips: bool
    opaque: bool = False
    noun: str = "archive"


ARCHIVE: Final = Making(archive_tree, Planter, mark="", zips=True)
"""The tree that unpacking the archive alone would give."""
FILE: Final = Making(file_tree, Planter, mark="+file", zips=False, opaque=True, noun="file")
"""The segments of a file that is shown as it is, even where it is an archive."""
