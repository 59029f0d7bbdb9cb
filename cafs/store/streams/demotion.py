"""Demotion: a blob that has lost bytes becomes the stream again that it came as, or goes.

What is left of it is present, what was lost is fetched again, and the whole passes the gate again:
of a large blob in which a disk flipped a bit, 64 KiB come from the network. Whatever kept the blob
from being removed keeps the stream: pins, holds, and its place in the order in which items go.
One that cannot be read, or of which nothing says what is wrong, goes to quarantine as it is.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from os.path import samestat
from typing import Final

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.span import Span
from cafs.store.disk.files import Files
from cafs.store.disk.layout import Layout
from cafs.store.disk.noting import put_note
from cafs.store.holds.holds import Holds
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.records import StreamRecord

_LOG: Final = logging.getLogger("cafs.store")


class Demotion:
    """Demotes blobs, and puts them aside.

    Concurrency: any number of worker threads and processes.
    """

    def __init__(self, layout: Layout, files: Files, records: BlobRecords, holds: Holds) -> None:
        self._layout = layout
        self._files = files
        self._records = records
        self._holds = holds

    def demote(self, digest: Digest, lost: Sequence[Span], key: StreamKey | None = None) -> None:
        """Take a blob's lost bytes for absent. Blocks; nothing happens when it is no blob any more.

        ``key`` is the stream that it is to be, the one for which somebody is here to fill it; None
        for that as which it came.

        The file gets its new name first and loses its old one last: a crash in between leaves a
        whole blob, or a stream, and a file that nothing names.

        Raises:
            StorageError: the records cannot be written; the blob stays.
            OSError: the disk failed; likewise.
        """
        # Whoever admits the blob anew waits: his file would be removed instead.
        with self._holds.naming([digest]):
            self._demote(digest, lost, key)

    def _demote(self, digest: Digest, lost: Sequence[Span], key: StreamKey | None) -> None:
        known = self._records.get(digest)
        if known is None:
            return
        key = key or StreamKey(next(iter(known.streams), raw_stream(digest)))
        record = StreamRecord(os.urandom(8), 0, known.size, None)
        source = self._layout.blob(digest)
        target = self._layout.stream(bytes.fromhex(key), record.file)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            self._records.delete(digest)
            return
        done = False
        try:
            target.chmod(0o600)
            done = self._records.demote(digest, key, record, lost)
        finally:
            if not done:
                target.unlink()
        if done:
            self._files.forget(source)
            source.unlink(missing_ok=True)
            _LOG.warning("store.blob.damaged digest=%s lost=%s stream=%s", digest, lost, key)

    def put_aside(
        self, digest: Digest, size: int, what: str, descriptor: int | None = None
    ) -> bool:
        """Move a blob of which nothing is of use to quarantine; whether its file was there. Blocks.

        Args:
            digest: the blob.
            size: of it.
            what: what is wrong with it, for people.
            descriptor: of the file that was looked at: if somebody has brought another one since,
                nothing happens. None where it cannot be opened.

        Raises:
            StorageError: the records cannot be written.
            OSError: the disk failed.
        """
        path = self._layout.blob(digest)
        with self._holds.naming([digest]):
            try:
                if descriptor is not None and not samestat(path.lstat(), os.fstat(descriptor)):
                    return False
                path.rename(self._layout.quarantine / path.name)
            except FileNotFoundError:
                return False
            self._files.forget(path)
            self._records.delete(digest)
        self.note(digest, what, [Span(0, size)])
        _LOG.warning("store.blob.quarantined digest=%s: %s", digest, what)
        return True

    def note(self, digest: Digest, what: str, lost: Iterable[Span]) -> None:
        """Say in the quarantine what was wrong, for who looks for a pattern. Blocks.

        Raises:
            OSError: the disk failed.
        """
        where = [(span.start, span.stop) for span in lost]
        put_note(self._layout.quarantine / digest.hex, name=str(digest), error=what, lost=where)
