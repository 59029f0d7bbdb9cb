"""Retracting: which inodes a kernel must forget the pages of, since what they showed was wrong.

Nobody keeps a list of what was read: the worker that knew may be gone, and the kernel reads ahead.
So it is all that a ref of which it was has shown in this mount, by its attachments.
"""

from cafs.errors import CafsError
from cafs.fetch.content.exposing import streams_of
from cafs.model.identity import StreamKey
from cafs.model.record import Attachment
from cafs.store.trees.attachments import Attachments
from cafs.vfs.namespace import AdHocRef, NamedRef
from cafs.vfs.opening import Opening
from cafs.vfs.places import Places


class Retracting:
    """Knows what a mount has shown of a stream.

    Concurrency: synchronous; the store is asked in short read transactions.
    """

    def __init__(
        self, attachments: Attachments, mount: int, places: Places, opening: Opening
    ) -> None:
        self._attachments = attachments
        self._mount = mount
        self._places = places
        self._opening = opening

    def showing(self, key: StreamKey) -> list[range]:
        """The inodes that may have shown bytes of a stream, under a ref."""
        return [
            range(at.first, at.first + at.count)
            for at in self._attachments.all(self._mount)
            if at.content is None and self._may_show(at, key)
        ]

    def _may_show(self, at: Attachment, key: StreamKey) -> bool:
        """Whether it may: of what the settings say nothing any more, nobody can tell."""
        try:
            _, node = self._places.meaning(at)
            if not isinstance(node, NamedRef | AdHocRef):
                return False  # what has a digest for a name is checked first
            resolved = self._opening.peek(node)
        except CafsError:
            return True
        return resolved is None or any(key in streams_of(part, raw=True) for part in resolved.parts)
