"""Witnesses: who has seen, or written, all bytes of a stream, and of which incarnation of it.

Bytes that are present stay what they are, until they are taken away; then others may come in their
place. So what somebody knows of bytes is of one incarnation, from the first of them to the last,
and of the next one he knows nothing.
"""

import msgspec

from cafs.model.digest import Hasher
from cafs.store.tables.records import Incarnation, StreamRecord


class Seen(msgspec.Struct, frozen=True):
    """Hashes of all bytes of a stream, in order.

    ``of`` is the incarnation that the stream was before the first of them was read, or written, and
    in whose file each was; None when that cannot be said: some were in memory, say.
    """

    hasher: Hasher
    of: Incarnation | None


class Share:
    """How much of one file somebody has written.

    Concurrency: any number of threads that hold the file's gate.
    """

    __slots__ = ("_count", "_of", "_torn")

    def __init__(self) -> None:
        self._of: Incarnation | None = None
        self._count = 0
        self._torn = False

    def add(self, record: StreamRecord, count: int) -> None:
        """So many bytes were put where nothing was, into the file as the record has it."""
        if self._of is None:
            self._of = record.incarnation
        self._torn = self._torn or self._of != record.incarnation
        self._count += count

    def is_all(self, record: StreamRecord) -> bool:
        """Whether all that lies in the file is that, and nothing was taken out meanwhile.

        Once anything was, it never is again: what else came since is of somebody who may have been
        told something else.
        """
        whole = record.size is not None and self._count == record.size
        return whole and not self._torn and self._of in {None, record.incarnation}
