"""The local digest store, opened: everything that is kept, behind one door.

Any number of processes use one store at once. What is written outlives this process at once, and a
power cut after the next checkpoint. See ``layout`` for what lies where.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from heapq import merge
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

import trio

from cafs.model.bounds import UNBOUNDED, Bounds
from cafs.model.digest import CANONICAL, Digest
from cafs.store.blobs.admission import Admission
from cafs.store.blobs.blobs import Blobs
from cafs.store.blobs.neighbours import Neighbours
from cafs.store.blobs.prefixes import Prefixes
from cafs.store.blobs.uploads import Uploads
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import BrokenEnvironmentError
from cafs.store.disk.files import Files
from cafs.store.disk.layout import Layout
from cafs.store.health.mending import keep_whole
from cafs.store.health.opening import enter, open_environments, put_in_order, read_boot_id
from cafs.store.health.verifying import Verifier
from cafs.store.holds.holds import Holds
from cafs.store.holds.leases import Leases
from cafs.store.holds.precedence import Precedence
from cafs.store.space.belonging import Belongings
from cafs.store.space.dropping import Dropper
from cafs.store.space.evicting import Evictor
from cafs.store.space.measuring import Measurer
from cafs.store.space.parts import Parts
from cafs.store.space.pinning import Pins
from cafs.store.space.purging import Housekeeping
from cafs.store.space.removing import Remover
from cafs.store.space.room import Room
from cafs.store.streams.checkpointing import Checkpointer
from cafs.store.streams.demotion import Demotion
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.streams import Streams
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.documents import Documents
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.pending import Pending
from cafs.store.tables.references import References
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.tables.uses import Uses
from cafs.store.trees.attachments import Attachments
from cafs.store.trees.members import Members
from cafs.store.trees.mounts import Mounts
from cafs.store.trees.trees import Trees

CHECKPOINT_BYTES: Final = 64 << 20
CHECKPOINT_S: Final = 5.0


class Store:
    """An open store.

    Concurrency: any number of tasks of the trio run that opened it; worker threads where a method
    says so.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        index: Environment,
        recent: Environment,
        files: Files,
        ledger: Ledger,
        checkpointer: Checkpointer,
        bounds: Bounds,
    ) -> None:
        records = BlobRecords(index)
        self.uses = Uses(index)
        self.holds = Holds(layout.leases / "held")
        demotion = Demotion(layout, files, records, self.holds)
        shelf = Shelf(ledger, files, checkpointer, demotion, uses=self.uses, holds=self.holds)
        self._layout = layout
        self._checkpointer = checkpointer
        self.path = layout.root
        self.streams = Streams(shelf)
        self.uploads = Uploads(
            index, self.streams, locks=layout.leases / "uploads", holds=self.holds
        )
        admission = Admission(layout, shelf, records)
        self.blobs = Blobs(
            layout=layout,
            files=files,
            records=records,
            admission=admission,
            uploads=self.uploads,
            demotion=demotion,
            shelf=shelf,
        )
        self._prefixes = Prefixes(index)
        self.neighbours = Neighbours(layout, shelf, records, admission.retire)
        tables = TreeTables(index, layout.leases / "drafts")
        self.trees = Trees(tables)
        self.members = Members(tables)
        self.references = References(index)
        self.belongings = Belongings(layout, ledger, records, self.trees)
        self.pins = Pins(index, self.references, self.belongings)
        self.remover = Remover(layout, index, shelf, records, self.holds)
        self.room = Room(
            layout, index=index, recent=recent, ledger=ledger, records=records, bounds=bounds
        )
        self.evictor = Evictor(
            layout,
            index,
            ledger=ledger,
            records=records,
            room=self.room,
            uses=self.uses,
            holds=self.holds,
            remover=self.remover,
            pinned=self.pins.pinned,
        )
        shelf.grown = self.evictor.note
        self.documents = Documents(index, self._has)
        self.mounts = Mounts(recent, Leases(layout.leases))
        self.attachments = Attachments(recent)
        self.precedence = Precedence(layout.leases / "readers")
        parts = Parts(
            layout=layout,
            ledger=ledger,
            records=records,
            uses=self.uses,
            holds=self.holds,
            room=self.room,
            remover=self.remover,
            evictor=self.evictor,
            pins=self.pins,
            belongings=self.belongings,
            references=self.references,
            documents=self.documents,
            trees=self.trees,
            attachments=self.attachments,
            mounts=self.mounts,
            uploads=self.uploads,
        )
        self.measurer = Measurer(parts)
        self.dropper = Dropper(parts, self.measurer)
        self.housekeeping = Housekeeping(parts)
        self.verifier = Verifier(
            layout, index, recent, shelf=shelf, records=records, room=self.room
        )

    def _has(self, digest: Digest) -> bool:
        return self.blobs.stat(digest) is not None

    def beginning(self, algorithm: str, digits: str) -> Iterator[Digest]:
        """The digests of what is here that begin with some hex digits, ascending (R-23)."""
        blobs = filter(self._has, self._prefixes.blobs(algorithm, digits))
        if algorithm != CANONICAL:
            return blobs
        both = merge(blobs, self.members.beginning(digits), key=attrgetter("raw"))
        return (digest for digest, _ in groupby(both))

    async def checkpoint(self) -> None:
        """Make all that was written outlive a power cut.

        Raises:
            StorageError: the disk failed; what may be lost is forgotten.

        Cancellation: no effect; once begun it is carried through.
        """
        await self._checkpointer.checkpoint()

    def attend(self, nursery: trio.Nursery) -> None:
        """Do in the background what keeps the store as it should be, until cancelled."""
        nursery.start_soon(self.members.keep)
        for task in (self._checkpointer.run, self.uses.run, self.evictor.run):
            nursery.start_soon(task)

    def tidy(self) -> None:
        """Finish what crashes have left undone, and count. Blocks; only for who is alone here.

        Raises:
            StorageError: the disk, or the records, failed.
        """
        self.remover.finish()
        self.room.reckon()

    def close(self) -> None:
        """Let go of what is held in the name of this process."""
        self.precedence.close()
        self.mounts.close()
        self.holds.close()

    async def stay_whole(self) -> None:
        """Make directories of the store again whenever somebody removes them, until cancelled.

        For who lives long: a mount.
        """
        await keep_whole(self._layout)

    def free_bytes(self) -> int:
        """Bytes that may still be written on the store's disk."""
        return self._layout.free_bytes()


@asynccontextmanager
async def open_store(
    path: Path,
    *,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    checkpoint_s: float = CHECKPOINT_S,
    boot_id: str | None = None,
    bounds: Bounds = UNBOUNDED,
) -> AsyncIterator[Store]:
    """Open a store, creating it when there is none.

    Args:
        path: the store's directory.
        checkpoint_bytes: bytes written after which a checkpoint is made.
        checkpoint_s: seconds after the first byte after which it is made in any case.
        boot_id: names this boot of the machine; None asks the kernel.
        bounds: how much it may have, as far as this process adds to it.

    Raises:
        StorageError: it cannot be used, and why.

    Cancellation: while opening, no effect; afterwards the store is closed, which may take the time
        of a last checkpoint.
    """
    failure: BaseException | None = None
    with ExitStack() as held:
        if boot_id is None:
            boot_id = await trio.to_thread.run_sync(read_boot_id)
        layout, begun = Layout(path, boot_id), None
        limits = (checkpoint_bytes, checkpoint_s)
        with suppress(BrokenEnvironmentError):
            begun = await _begin(layout, limits, bounds, held)
        if begun is None:
            # What met damage has marked it: whoever is alone now makes it anew.
            held.close()
            layout = Layout(path, boot_id)  # the other's ballast has heirs that are closed
            begun = await _begin(layout, limits, bounds, held)
        store, checkpointer, unused = begun
        try:
            async with trio.open_nursery() as nursery:
                store.attend(nursery)
                nursery.start_soon(layout.ballast.keep)
                nursery.start_soon(store.trees.purge, unused)
                try:
                    yield store
                finally:
                    nursery.cancel_scope.cancel()
                    with trio.CancelScope(shield=True):
                        await store.members.flush()
                        await checkpointer.end()
                        await trio.to_thread.run_sync(store.uses.flush)
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            # The user's own error leaves as it was raised, not in the nursery's wrapping.
            failure = group.exceptions[0]
    if failure is not None:
        raise failure


async def _begin(
    layout: Layout, limits: tuple[int, float], bounds: Bounds, held: ExitStack
) -> tuple[Store, Checkpointer, list[int]]:
    """Enter a store and put it in order, closed with ``held``; and the trees nobody can use.

    Raises:
        StorageError: it cannot be used, and why.

    Cancellation: no effect.
    """
    usage = await trio.to_thread.run_sync(enter, layout)
    held.callback(usage.close)
    index, recent = await trio.to_thread.run_sync(open_environments, layout, usage, held)
    ledger = Ledger(layout, index, recent)
    files = Files()
    held.callback(files.close)
    pending = Pending(ledger, index, recent)
    checkpointer = Checkpointer(layout, ledger, pending, limit=limits[0], period_s=limits[1])
    store = Store(
        layout=layout,
        index=index,
        recent=recent,
        files=files,
        ledger=ledger,
        checkpointer=checkpointer,
        bounds=bounds,
    )
    held.callback(store.close)
    unused: list[int] = []
    if usage.alone:
        await trio.to_thread.run_sync(store.tidy)
        unused = await trio.to_thread.run_sync(
            put_in_order, layout, usage, ledger, store.trees, store.attachments
        )
    return store, checkpointer, unused
