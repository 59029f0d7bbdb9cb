"""Demotion: a blob that has lost bytes becomes the stream again that it came as.

What is left of it is present, what was lost is fetched again, and the whole passes the gate again:
of a large blob in which a disk flipped a bit, 64 KiB come from the network. Whatever kept the blob
from being removed keeps the stream: pins, holds, and its place in the order in which items go.
"""

import logging
import os
from collections.abc import Sequence
from typing import Final

from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.span import Span
from cafs.store.blob_records import BlobRecords
from cafs.store.files import Files
from cafs.store.holds import Holds
from cafs.store.layout import Layout
from cafs.store.records import StreamRecord

_LOG: Final = logging.getLogger("cafs.store")


class Demotion:
    """Demotes blobs.

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
