"""Intake: small content that came whole becomes a blob at once, without having been a stream.

It is the same gate as that of ``admission``, for bytes that are still in memory: hashed, compared
with every claim, written, synced, named and recorded, in this order. What waits at the same time is
synced and recorded together: of many small files that come at once, each would otherwise cost five
commits, where a file's own bytes cost next to nothing.

What does not match, or cannot be written, is left to the ordinary way, which says so.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from cafs.errors import StorageError, StorageFullError
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Hasher
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.blobs.admission import Claim
from cafs.store.db.grouping import Grouping
from cafs.store.disk.door import file_size, make_way
from cafs.store.disk.files import storage_error, sync_directory, write_whole
from cafs.store.disk.layout import Layout
from cafs.store.holds.holds import Holds
from cafs.store.streams.shelf import Shelf
from cafs.store.tables.blob_records import Admitted, BlobRecords
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import pieces_of

LARGEST: Final = 256 << 10
"""Bytes of content that is taken so. All that waits is in memory, for as many as are fetched."""
_LOG: Final = logging.getLogger("cafs.store")
Retire = Callable[[Sequence[tuple[StreamKey, StreamRecord]]], None]
"""Removes the files of streams that lie in a blob now."""


class _Arrival(msgspec.Struct):
    """Content that was checked, and lies in a file without its name; ``taken`` once recorded."""

    admitted: Admitted
    file: Path | None
    taken: bool = False


class _Tray:
    """What is taken together. Blocks; one thread."""

    def __init__(self, layout: Layout, records: BlobRecords, holds: Holds) -> None:
        self._layout = layout
        self._records = records
        self._holds = holds
        self._held = ExitStack()
        self._arrivals: list[_Arrival] = []

    def add(self, key: StreamKey, data: bytes, claim: Claim) -> _Arrival | None:
        """Check content, and write it into a file that has no name yet; None when it is wrong."""
        hasher = Hasher(each.algorithm for each in claim.digests)
        hasher.update(data)
        wrong = claim.size not in {None, len(data)}
        if wrong or any(hasher.digest(each.algorithm) != each for each in claim.digests):
            return None
        descriptor = Descriptor(claim.media_type, hasher.digest(), len(data))
        # Who removes such a blob at this moment would remove the file that gets its name.
        self._held.enter_context(self._holds.hold_here(Item.blob(descriptor.digest)))
        file = None if self._has(descriptor) else self._written(key, data)
        pieces = pieces_of(0, memoryview(data))
        arrival = _Arrival(Admitted(descriptor, claim.digests, key, None, pieces), file)
        self._arrivals.append(arrival)
        return arrival

    def _has(self, descriptor: Descriptor) -> bool:
        path = self._layout.blob(descriptor.digest)
        if self._records.get(descriptor.digest) is None:
            return False
        return file_size(path) == descriptor.size

    def _written(self, key: StreamKey, data: bytes) -> Path:
        path = self._layout.stream(bytes.fromhex(key), os.urandom(8))
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            write_whole(descriptor, 0, memoryview(data))
        except BaseException:
            path.unlink()
            raise
        finally:
            os.close(descriptor)
        return path

    def _place(self) -> None:
        """Make all bytes outlive a power cut, under the names of their blobs.

        All are written by then, so that the first sync carries most of the others with it.
        """
        written = [each for each in self._arrivals if each.file is not None]
        for arrival in written:
            _sync(arrival.file)
        parents: set[Path] = set()
        for arrival in written:
            target = self._layout.blob(arrival.admitted.descriptor.digest)
            if target.parent not in parents and not target.parent.exists():
                target.parent.mkdir(mode=0o700, exist_ok=True)
                parents.add(target.parent.parent)
            parents.add(target.parent)
            if arrival.file is not None:
                make_way(target, self._layout.quarantine)
                arrival.file.rename(target)
                arrival.file = None
        for parent in sorted(parents):
            sync_directory(parent)

    def keep(self, retire: Retire) -> None:
        """Name and record all that was added, or nothing.

        Raises:
            OSError: the disk failed.
            StorageError: the records cannot be written.
        """
        with self._holds.naming(each.admitted.descriptor.digest for each in self._arrivals):
            # What was here when it was added may have been damaged, or deleted, since.
            self._arrivals = [each for each in self._arrivals if each.file or self._is_here(each)]
            try:
                self._place()
                self._record(retire)
            except (OSError, StorageFullError):
                self._take_back()
                raise

    def _is_here(self, arrival: _Arrival) -> bool:
        return self._has(arrival.admitted.descriptor)

    def _record(self, retire: Retire) -> None:
        """Record all in one transaction, but those whose streams others have begun meanwhile."""
        former = self._records.admit([each.admitted for each in self._arrivals])
        for arrival, streams in zip(self._arrivals, former, strict=True):
            arrival.taken = streams is not None
            retire(streams or [])

    def _take_back(self) -> None:
        """Remove what got a name and no record: on a full disk nobody may come to need it."""
        for arrival in self._arrivals:
            digest = arrival.admitted.descriptor.digest
            if arrival.file is None and self._records.get(digest) is None:
                with suppress(OSError):
                    self._layout.blob(digest).unlink()

    def clear(self) -> None:
        """Remove what got no name."""
        for arrival in self._arrivals:
            if arrival.file is not None:
                arrival.file.unlink(missing_ok=True)
        self._held.close()


class Intake:
    """Takes small content that is whole.

    Concurrency: any number of tasks of one trio run, and of processes.
    """

    def __init__(self, layout: Layout, records: BlobRecords, retire: Retire, shelf: Shelf) -> None:
        self._layout = layout
        self._records = records
        self._retire = retire
        self._shelf = shelf
        self._grouping: Grouping[_Tray] = Grouping(self._together, trio.CapacityLimiter(1))

    async def take(self, key: StreamKey, data: bytes, claim: Claim) -> Descriptor | None:
        """Make content a blob, and the stream ``key``, which nobody has begun, be that blob.

        Returns:
            Its canonical descriptor. None when a claim is wrong, the stream has been begun, or the
            disk failed: then nothing has happened, and the ordinary way says what is the matter.

        Cancellation: all or nothing; once begun it is carried through.
        """
        if self._layout.ballast.full():
            return None
        try:
            arrival = await self._grouping.commit(lambda tray: tray.add(key, data, claim))
        except StorageError as error:
            _LOG.info("store.intake.failed name=%s: %s", claim.name, error.line)
            return None
        return arrival.admitted.descriptor if arrival is not None and arrival.taken else None

    def _together(self, change: Callable[[_Tray], None]) -> None:
        tray = _Tray(self._layout, self._records, self._shelf.holds)
        try:
            change(tray)
            tray.keep(self._retire)
        except OSError as error:
            raise storage_error(error, "taking small content") from error
        finally:
            tray.clear()
        self._shelf.grown()


def _sync(path: Path | None) -> None:
    if path is None:
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
