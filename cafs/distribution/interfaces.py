"""What a distribution handler is: it turns a ref into parts, and parts into a tree or a file."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Protocol

import msgspec

from cafs.errors import CafsError
from cafs.fetch.interfaces import Content, Patience
from cafs.model.record import TreeRecord
from cafs.model.resolved import Resolved
from cafs.model.spec import RefSpec

Note = Callable[[CafsError], None]
"""Told why a try failed that will be made again."""


class OpenTree(msgspec.Struct, frozen=True):
    """A tree that can be read.

    ``root`` is the number of the entry that the ref shows as its root. ``contents`` are the tree's
    streams, by number: ``contents[entry.stream]`` holds an entry's bytes from ``entry.offset`` on.
    """

    record: TreeRecord
    root: int
    contents: tuple[Content, ...]


class Handler(Protocol):
    """Knows one kind of ref. Names in messages are those of the spec.

    Concurrency: any number of tasks. Calls for one spec may overlap; none of them fetches or builds
    anything twice.
    """

    @abstractmethod
    async def resolve(self, spec: RefSpec, previous: Resolved | None, note: Note) -> Resolved:
        """Find out what the ref means now, by ``spec.pull``, of which ``never`` asks nobody.

        Args:
            spec: the ref.
            previous: what it meant before, in any mount of this store; None when that is not known.
            note: told why it takes longer.

        Raises:
            NotFoundError: no such name, tag, or platform.
            OfflineError: nobody may be asked, and what the store has does not tell.
            CafsError: as the source failed.

        Cancellation: no effect, but for what was learned on the way.
        """

    @abstractmethod
    async def open_tree(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> OpenTree:
        """Open the tree, with ``strip`` and ``subdir`` applied; from the store if it is there.

        Raises:
            UnsupportedError: the ref is a file, or its bytes are no archive.
            NotFoundError: there is no such ``subdir``.
            ContentError: bytes that are not what they should be.
            CafsError: as the source failed, within the waiter's patience.

        Cancellation: no effect on the tree; work that others wait for goes on.
        """

    @abstractmethod
    async def open_file(
        self, spec: RefSpec, resolved: Resolved, patience: Patience, *, part: int = 0
    ) -> Content:
        """The bytes of one part, as they are at the source: the blob, the archive, a layer.

        What is checked is checked as a whole.

        Raises:
            CafsError: as the source failed, where the size must be found out by fetching.

        Cancellation: no effect.
        """

    async def open_shown(self, spec: RefSpec, resolved: Resolved, patience: Patience) -> Content:
        """What a mount shows of a ref as a file, which may be checked piece by piece.

        Raises:
            CafsError: as ``open_file``; the store cannot be written.

        Cancellation: no effect.
        """
        return await self.open_file(spec, resolved, patience)
