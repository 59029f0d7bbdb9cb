"""The verification gate: the one way in which bytes become a blob.

A stream that is whole is hashed; compared with every claim; linked into ``blobs/``; and recorded,
in this order. Nobody writes into it meanwhile, since bytes that are present are never overwritten;
should its record change all the same, the admission starts over. The stream's file stays where it
is until the record is committed: a crash in between leaves a whole stream and an unrecorded file,
which the next admission replaces. What does not match goes to ``quarantine/`` with a note.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import trio

from cafs.errors import (
    ContentError,
    DigestMismatchError,
    SizeMismatchError,
    StorageError,
    StorageFullError,
)
from cafs.labour import worked
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.blobs.aside import Aside
from cafs.store.disk.door import file_size, make_way, open_file, remove
from cafs.store.disk.files import storage_error, sync_directory
from cafs.store.disk.layout import Layout
from cafs.store.streams.shelf import Shelf
from cafs.store.streams.witness import Seen
from cafs.store.tables.blob_records import Admitted, BlobRecords
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import Piece, pieces_of

_CHUNK: Final = 1 << 20
"""Bytes hashed between two looks at whether anybody still waits."""
_AGAIN: Final = "read again what is missing to have it fetched"


class NotWholeError(StorageError):
    """A stream was to be checked as a whole, and is not whole, or not any more."""


class Claim(msgspec.Struct, frozen=True):
    """What is said of a stream's bytes, to be checked: digests, and a size in bytes.

    ``name`` says what they are, in errors and notes. ``lasting`` says that the stream's key will be
    asked for again; an upload's will not.
    """

    name: str
    media_type: str
    digests: tuple[Digest, ...]
    size: int | None
    lasting: bool = True


class Admission:
    """Admits streams as blobs.

    Concurrency: any number of worker threads and processes.
    """

    def __init__(self, layout: Layout, shelf: Shelf, records: BlobRecords) -> None:
        self._layout = layout
        self._shelf = shelf
        self._records = records
        self.aside = Aside(layout.quarantine, shelf)

    def admit(self, key: StreamKey, claim: Claim, hashed: Seen | None) -> Descriptor:
        """Verify a whole stream and make it a blob. Blocks; for worker threads made by trio.

        Raises:
            DigestMismatchError, SizeMismatchError: a claim is wrong; the stream is quarantined, or
                kept if it was a blob already.
            StorageError: the disk failed; the stream is as it was, or void when the disk could not
                write what it had taken.
            NotWholeError: the stream is not whole, or not any more.

        Cancellation: while hashing; the stream is as it was.
        """
        try:
            with self._shelf.holds.hold_here(Item.stream(key)):
                return self._passed(key, claim, hashed)
        except OSError as error:
            raise storage_error(error, f"{claim.name}: admitting stream {key}") from error

    def _passed(self, key: StreamKey, claim: Claim, hashed: Seen | None) -> Descriptor:
        while True:
            record = self._shelf.ledger.record(key)
            if record is None:
                raise NotWholeError(f"{claim.name}: stream {key} is not there", hint=_AGAIN)
            if record.digest is not None:
                return self._confirm(key, record, record.digest, claim)
            admitted = self._admit(key, record, claim, hashed)
            if admitted is not None:
                self._shelf.grown()
                return admitted

    def _admit(
        self, key: StreamKey, record: StreamRecord, claim: Claim, hashed: Seen | None
    ) -> Descriptor | None:
        """Admit the stream as ``record`` has it; None when it has changed meanwhile."""
        path = self._shelf.ledger.path(key, record)
        if not self._whole(key, record, path):
            return None
        try:
            digest = self._check(path, claim, self._usable(record, claim, hashed))
        except ContentError as error:
            if not self.aside.put(key, record, path, claim.name, error):
                return None  # something was taken out of it while it was hashed
            raise
        # Who removes such a blob at this moment would remove the file that gets its name.
        holds = self._shelf.holds
        with holds.hold_here(Item.blob(digest)), holds.naming([digest]):
            return self._record(key, record, path, claim, digest)

    def _record(
        self, key: StreamKey, record: StreamRecord, path: Path, claim: Claim, digest: Digest
    ) -> Descriptor | None:
        """Name the blob, and record it; None when the stream has changed meanwhile."""
        size = path.stat().st_size
        descriptor = Descriptor(claim.media_type, digest, size)
        pieces = self._shelf.ledger.fresh_pieces(key, record)
        admitted = Admitted(descriptor, claim.digests, key, record, pieces, claim.lasting)
        try:
            kept = self._place(key, record, path, digest, size)
            [former] = self._records.admit([admitted])
        except (OSError, StorageFullError):
            if self._records.get(digest) is None:
                with suppress(OSError):  # the stream is as it was, and a name more does no harm
                    self._layout.blob(digest).unlink()
            raise
        if former is None:
            return None
        self.retire(former)
        kept.chmod(0o444)
        return descriptor

    def retire(self, former: Iterable[tuple[StreamKey, StreamRecord]]) -> None:
        """Remove the files of streams that lie in a blob now."""
        for name, old in former:
            self._shelf.ledger.settle(name, old)
            self._shelf.forget(name, old)
            remove(self._shelf.ledger.path(name, old))

    def _whole(self, key: StreamKey, record: StreamRecord, path: Path) -> bool:
        """Whether the file is as whole as the records say; False when the stream is void."""
        if not self._shelf.ledger.whole(key, record):
            raise NotWholeError(f"stream {key} is not whole", hint=_AGAIN)
        if file_size(path) == record.size:
            return True
        self._shelf.discard(key, record)
        return False

    def _usable(self, record: StreamRecord, claim: Claim, hashed: Seen | None) -> Hasher | None:
        """The caller's hashes, if they are of exactly the bytes in the file.

        They are when the file is the one in which he saw each of them, and nothing was taken out of
        it since before the first: what came in its place may be anything. And when this process
        wrote all of them: what was present before, from whomever, was not overwritten, and need not
        be what the caller hashed.
        """
        if hashed is None or hashed.of != record.incarnation:
            return None
        if hashed.hasher.size != record.size or not self._shelf.filled_alone(record):
            return None
        try:
            for each in claim.digests:
                hashed.hasher.digest(each.algorithm)
        except KeyError:
            return None
        return hashed.hasher

    def _check(self, path: Path, claim: Claim, hashed: Hasher | None) -> Digest:
        size = path.stat().st_size
        if claim.size is not None and claim.size != size:
            raise SizeMismatchError(claim.name, expected=claim.size, actual=size)
        if hashed is None:
            hashed = hash_file(path, claim.digests)
        for each in claim.digests:
            actual = hashed.digest(each.algorithm)
            if actual != each:
                raise DigestMismatchError(claim.name, expected=each, actual=actual)
        return hashed.digest()

    def _place(
        self, key: StreamKey, record: StreamRecord, path: Path, digest: Digest, size: int
    ) -> Path:
        """Make the bytes outlive a power cut under the blob's name."""
        target = self._layout.blob(digest)
        if not target.parent.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_directory(target.parent.parent)
        if self._records.get(digest) is not None and file_size(target) == size:
            return target
        self._sync(key, record, path)
        temporary = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
        temporary.hardlink_to(path)
        make_way(target, self._layout.quarantine)
        temporary.rename(target)
        # Renaming onto another link of the same file does nothing, the old name included.
        temporary.unlink(missing_ok=True)
        sync_directory(target.parent)
        return target

    def _sync(self, key: StreamKey, record: StreamRecord, path: Path) -> None:
        descriptor = open_file(path)
        try:
            os.fsync(descriptor)
        except OSError:
            # The kernel has marked the pages clean, and will not tell a second time: another try
            # would succeed, with bytes that are gone when the page cache is.
            self._shelf.discard(key, record)
            raise
        finally:
            os.close(descriptor)

    def _confirm(
        self, key: StreamKey, record: StreamRecord, digest: Digest, claim: Claim
    ) -> Descriptor:
        """Check the claims on a stream that is a blob already; new aliases are recorded."""
        path = self._layout.blob(digest)
        if file_size(path) != record.size or (known := self._records.get(digest)) is None:
            self._shelf.discard(key, record)
            raise StorageError(
                f"{claim.name}: {path} has vanished or changed", hint="read again to fetch it again"
            )
        if claim.size is not None and claim.size != known.size:
            raise SizeMismatchError(claim.name, expected=claim.size, actual=known.size)
        unknown: list[Digest] = []
        for each in claim.digests:
            actual = self._records.canonical(each)
            if actual is None:
                unknown.append(each)
            elif actual != digest:
                raise DigestMismatchError(claim.name, expected=each, actual=digest)
        if unknown:
            self._check(path, Claim(claim.name, claim.media_type, tuple(unknown), None), None)
        descriptor = Descriptor(claim.media_type, digest, known.size)
        admitted = Admitted(descriptor, claim.digests, key, record, lasting=claim.lasting)
        [former] = self._records.admit([admitted])
        self.retire(former or [])
        return descriptor


def hash_file(
    path: Path,
    claims: Sequence[Digest] = (),
    keep: Callable[[list[Piece]], None] | None = None,
) -> Hasher:
    """Hash a file, also by the algorithms of ``claims``. For worker threads made by trio.

    ``keep`` is told what its bytes are, some pieces at a time.

    Cancellation: between two reads.
    """
    hasher = Hasher(claim.algorithm for claim in claims)
    with os.fdopen(open_file(path), "rb", buffering=0) as file:
        while data := file.read(_CHUNK):
            if keep is not None:
                keep(pieces_of(hasher.size, memoryview(data)))
            hasher.update(data)
            trio.from_thread.check_cancelled()
            worked()
    return hasher
