"""Publishing: a pass plants in a thread, the content passes its gate, and the tree is seen.

What is published says of which bytes it is: of those that the pass has hashed as it read them, or
that had been checked before, and were not taken away since.
"""

from collections.abc import Callable
from typing import Final

import trio

from cafs.errors import DigestMismatchError, StorageError
from cafs.fetch.content.bridging import Intake
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Feed, Feeder
from cafs.labour import Threads, worked
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import TreeIdentity
from cafs.model.item import Item
from cafs.model.record import TreeRecord, TreeStream
from cafs.store.store import Store
from cafs.store.streams.stream import Stream
from cafs.store.tables.records import Incarnation
from cafs.store.tables.uses import Rank
from cafs.store.trees.tree_writing import TreeWriter

_UNPACKING: Final = "unpacking what has come"
Plant = Callable[[TreeWriter], tuple[TreeStream, ...]]
"""Plants a tree in a worker thread, and tells its streams."""


class Publishing:
    """What one pass makes of one content, on its way to being seen.

    Args:
        raw: the content.
        store: where the tree goes.
        identity: the name of the tree.
        name: what errors call the content.
        threads: limits those that passes run in.

    Concurrency: one task.
    """

    def __init__(
        self,
        raw: Feed,
        store: Store,
        identity: TreeIdentity,
        *,
        name: str,
        threads: Threads,
    ) -> None:
        self._raw = raw
        self._store = store
        self._identity = identity
        self._name = name
        self._threads = threads
        self._known: Digest | None = None
        """What the raw content had been found to be before any of it was read."""

    def begin(self) -> None:
        """The raw content will be read from now on: as what it was checked to be, if it was."""
        self._known = self._raw.digest() if self._raw.checked() else None

    def intake(self, work: Work[TreeRecord], feeder: Feeder) -> Intake:
        """The raw bytes for the pass's thread, hashed as they are read unless that is known."""

        async def pull(offset: int, length: int) -> bytes:
            with work.busy(""):
                data = await feeder.take(offset, length, work.patience())
            work.beat()
            work.passed(len(data))
            return data

        hasher = None if self._known is not None else Hasher(self._raw.algorithms())
        return Intake(pull, hasher, of=feeder.of)

    async def publish(
        self,
        plant: Plant,
        work: Work[TreeRecord],
        intake: Intake | None,
        decoded: Stream | None = None,
        before: Incarnation | None = None,
    ) -> TreeRecord:
        """Plant in a worker thread, let the content pass its gate, publish.

        ``decoded`` is the stream that the pass writes; it says from then on what it comes from.
        ``intake`` is what the pass reads, None where nobody hashes that; ``before`` is then what
        the raw bytes were bytes of, before any was read.

        Raises:
            ContentError, UnsupportedError: as ``plant``; what was read is not what it must be.
            CafsError: as the raw content.

        Cancellation: all or nothing.
        """
        raw, store = self._raw, self._store
        identity = self._identity

        async def pass_gate() -> Digest | None:
            seen = None if intake is None else intake.seen()
            if seen is None:
                return self._as_read(before)
            there, actual = await raw.seal(seen, work.patience()), seen.hasher.digest()
            if there not in {None, actual}:
                raise DigestMismatchError(self._name, expected=there, actual=actual)
            return actual

        def run() -> TreeRecord:
            with store.trees.writer(identity) as writer:
                streams = plant(writer)
                worked()
                digest = trio.from_thread.run(pass_gate)
                if decoded is not None and digest is not None and not decoded.confirm_sync(digest):
                    raise _vanished(self._name)
                known = store.trees.find(identity)
                # A tree that is there already has mounts that use its numbers: it stays, unless
                # the source has sent something else by now.
                same = known is not None and known.digest == digest
                record = known if same and known else writer.publish(streams, digest, members=True)
            if decoded is not None:
                spent = Item.stream(raw.key) if digest is None else Item.blob(digest)
                store.uses.rank(spent, Rank.SPENT, decoded.key)
            return record

        with work.busy(_UNPACKING):
            return await self._threads.run(run)

    def _as_read(self, before: Incarnation | None) -> Digest | None:
        """The digest of bytes that nobody hashed as they were read; None where that is not known.

        It is that of the whole where this had been checked before, or where nothing was taken out
        of it since: then what was read is what was checked.
        """
        digest, stream = self._raw.digest(), self._store.streams.find(self._raw.key)
        if self._known is not None:
            return digest if digest == self._known else None
        if stream is None or before is None:
            return None
        return digest if stream.incarnation() in {before, before.admitted} else None


def _vanished(name: str) -> StorageError:
    return StorageError(
        f"{name}: what it decodes to was removed from the store meanwhile", hint="read it again"
    )
