"""Neighbours: directories on this machine in which others keep content by its digest.

Another store of cafs (``blobs/sha256/ab/<hex>``), an OCI layout, containerd's content store and
their like (``blobs/<algorithm>/<hex>``). Nothing of a neighbour is believed: its records are not
read, a newer layout or a damaged index is all the same, and what counts are the bytes that were
copied. They are hashed as they lie here, in a file of our own: a neighbour that lies, or removes
and changes things while they are copied, is found out before anything is admitted. Never a hard
link: who owns the neighbour could change our bytes. Where both lie on one file system that can,
nothing is copied but extents (FICLONE), which part ways at the first write.
"""

import errno
import fcntl
import logging
import os
import stat
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from cafs.errors import StorageError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.item import Item
from cafs.store.disk.door import make_way
from cafs.store.disk.files import storage_error, sync_directory, write_whole
from cafs.store.disk.layout import Layout
from cafs.store.streams.shelf import Shelf
from cafs.store.tables.blob_records import Admitted, BlobRecords
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import PIECE, Piece, pieces_of

_LOG: Final = logging.getLogger("cafs.store")
_CHUNK: Final = 1 << 20
"""Bytes between two looks at whether anybody still waits; a multiple of ``PIECE``."""
_MANY: Final = 1024
"""Pieces that are recorded in one transaction."""
_FICLONE: Final = 0x40049409
"""ioctl_ficlone(2)."""
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
Retire = Callable[[Sequence[tuple[StreamKey, StreamRecord]]], None]
"""Removes the files of streams that lie in a blob now."""


class Copied(msgspec.Struct):
    """Bytes that have the digest that was wanted, in a file of ours that has no name yet."""

    path: Path
    digest: Digest
    descriptor: Descriptor
    crcs: "array[int]" = msgspec.field(default_factory=lambda: array("I"))

    def discard(self) -> None:
        """Remove the file, unless it has a name already. Blocks."""
        self.path.unlink(missing_ok=True)

    def pieces(self) -> Iterator[list[Piece]]:
        """What the bytes are, some pieces at a time."""
        for first in range(0, len(self.crcs), _MANY):
            crcs = self.crcs[first : first + _MANY]
            starts = range(first * PIECE, (first + len(crcs)) * PIECE, PIECE)
            size = self.descriptor.size
            yield [
                Piece(start, min(PIECE, size - start), crc)
                for start, crc in zip(starts, crcs, strict=True)
            ]


class Copying:
    """One try to copy one content from one neighbour, in a thread that may be left behind.

    A disk that does not answer (a dead network file system) holds its thread, not those who wait:
    ``give_up`` may be called at any time, and the thread then cleans up after itself when it can.

    Concurrency: ``run`` once, in a worker thread; ``give_up`` in any other.
    """

    def __init__(
        self, folder: Path, digest: Digest, target: Path, told: Callable[[int], None]
    ) -> None:
        self._folder = folder
        self._digest = digest
        self._target = target
        self._told = told
        self.wrong = False
        """Whether it had other bytes under that digest."""
        self._lock = threading.Lock()
        self._over = False
        self._done = False

    def run(self, size: int | None, media_type: str) -> Copied | None:
        """Copy, and check; None when it is not there. What is wrong is said in the log.

        Args:
            size: bytes that it must have, if anybody said.
            media_type: of the content.

        Raises:
            StorageError: our own disk failed.
            OSError: the neighbour cannot be read.
        """
        source = self._open()
        if source is None:
            return None
        try:
            info = os.fstat(source)
            if not stat.S_ISREG(info.st_mode) or size not in {None, info.st_size}:
                self._wrong(f"{info.st_size} bytes")
                return None
            copied = self._copied(source, media_type)
        finally:
            os.close(source)
        with self._lock:
            self._done = copied is not None and not self._over
        if not self._done:
            self._remove()
        return copied if self._done else None

    def give_up(self) -> None:
        """Say that nobody waits any more; what was copied is removed. Blocks for a moment."""
        with self._lock:
            self._over = True
            done = self._done
        if done:
            self._remove()

    def _open(self) -> int | None:
        digest = self._digest
        by_algorithm = self._folder / "blobs" / digest.algorithm
        for path in (by_algorithm / digest.hex[:2] / digest.hex, by_algorithm / digest.hex):
            try:
                # A pipe must not hold us, and is no regular file when it is looked at.
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
        return None

    def _copied(self, source: int, media_type: str) -> Copied | None:
        try:
            self._target.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            target = os.open(self._target, flags, 0o600)
        except OSError as error:
            raise storage_error(error, f"{self._digest}: making a copy") from error
        whole = False
        try:
            copied = self._filled(source, target, media_type)
            whole = copied is not None
            return copied
        finally:
            os.close(target)
            if not whole:
                self._remove()

    def _filled(self, source: int, target: int, media_type: str) -> Copied | None:
        """Copy and hash; None when it is something else, or nobody waits any more."""
        cloned = _clone(source, target)
        hasher = Hasher((self._digest.algorithm,))
        crcs = array("I")
        while data := _read(target if cloned else source, hasher.size):
            if self._over:
                return None
            if not cloned:
                try:
                    write_whole(target, hasher.size, memoryview(data))
                except OSError as error:
                    raise storage_error(error, f"{self._digest}: copying") from error
            crcs.extend(piece.crc for piece in pieces_of(hasher.size, memoryview(data)))
            hasher.update(data)
            self._told(len(data))
        actual = hasher.digest(self._digest.algorithm)
        if actual != self._digest:
            self._wrong(str(actual))
            return None
        descriptor = Descriptor(media_type or OCTETS, hasher.digest(), hasher.size)
        return Copied(self._target, self._digest, descriptor, crcs)

    def _wrong(self, found: str) -> None:
        self.wrong = True
        _LOG.warning(
            "store.neighbour.wrong path=%s digest=%s found=%s", self._folder, self._digest, found
        )

    def _remove(self) -> None:
        self._target.unlink(missing_ok=True)


class Neighbours:
    """Takes from neighbours what the store lacks.

    Concurrency: any number of worker threads and processes.
    """

    def __init__(self, layout: Layout, shelf: Shelf, records: BlobRecords, retire: Retire) -> None:
        self._layout = layout
        self._shelf = shelf
        self._records = records
        self._retire = retire

    def copying(self, folder: Path, digest: Digest, told: Callable[[int], None]) -> Copying:
        """A try to copy content from a neighbour; ``told`` hears of bytes, in its thread."""
        key = bytes.fromhex(raw_stream(digest))
        return Copying(folder, digest, self._layout.stream(key, os.urandom(8)), told)

    def is_own(self, folder: Path) -> bool:
        """Whether a directory is the store itself. Blocks."""
        with suppress(OSError):
            return folder.samefile(self._layout.root)
        return False

    def admit(self, copied: Copied) -> Descriptor:
        """Make what was copied and checked a blob. Blocks; short but for one sync.

        Raises:
            StorageError: the disk failed; the copy is gone.
        """
        try:
            # Who removes such a blob at this moment would remove the file that gets its name.
            holds, digest = self._shelf.holds, copied.descriptor.digest
            with holds.hold_here(Item.blob(digest)), holds.naming([digest]):
                return self._admit(copied)
        except OSError as error:
            raise storage_error(error, f"{copied.digest}: taking a copy") from error
        finally:
            copied.discard()
            self._shelf.grown()

    def _admit(self, copied: Copied) -> Descriptor:
        digest = copied.descriptor.digest
        try:
            self._place(copied)
            for pieces in copied.pieces():
                self._records.describe(digest, pieces)
            return self._record(copied)
        except (OSError, StorageError):
            if self._records.get(digest) is None:
                with suppress(OSError, StorageError):  # a file that no record names does no harm
                    self._records.delete(digest)
                    self._layout.blob(digest).unlink()
            raise

    def _place(self, copied: Copied) -> None:
        descriptor = os.open(copied.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o444)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        target = self._layout.blob(copied.descriptor.digest)
        if not target.parent.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_directory(target.parent.parent)
        make_way(target, self._layout.quarantine)
        copied.path.rename(target)
        sync_directory(target.parent)
        self._shelf.files.forget(target)

    def _record(self, copied: Copied) -> Descriptor:
        key, ledger = raw_stream(copied.digest), self._shelf.ledger
        while True:
            record = ledger.record(key)
            if record is not None and record.digest is None:
                # What had come of it is not needed, and has not been checked.
                self._shelf.discard(key, record)
                continue
            admitted = Admitted(copied.descriptor, (copied.digest,), key, record)
            [former] = self._records.admit([admitted])
            if former is not None:
                self._retire(former)
                return copied.descriptor


def _clone(source: int, target: int) -> bool:
    """Let a file have the extents of another; False where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        # EOPNOTSUPP, EXDEV, EINVAL, ENOTTY …: whatever it is, copying says what really is wrong.
        return False
    return True


def _read(descriptor: int, offset: int) -> bytes:
    """The next chunk; short only at the end of the file."""
    parts: list[bytes] = []
    wanted = _CHUNK
    while wanted and (data := os.pread(descriptor, wanted, offset)):
        parts.append(data)
        offset += len(data)
        wanted -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)
