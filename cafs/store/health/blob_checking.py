"""Checking blobs: by their digest, and to find out where they are wrong, by their sums.

A blob with wrong bytes becomes the stream again that it came as, without them (``demotion``). One
of which nothing says where it is wrong goes to quarantine.
"""

import logging
import os
from contextlib import closing
from typing import Final

from cafs.model.digest import EMPTY, Digest, Hasher
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.disk.door import UNREADABLE, file_size, is_foreign, make_way, open_file
from cafs.store.disk.layout import Layout
from cafs.store.health.checking import Choose, Found, Look, changed, covers, joined, wrong
from cafs.store.streams.shelf import Shelf
from cafs.store.tables.blob_records import BlobRecords
from cafs.store.tables.records import BlobRecord
from cafs.store.tables.sums import GROUP, Piece, pieces_of

_LOG: Final = logging.getLogger("cafs.store")
_TOGETHER: Final = 1024
"""Pieces that are recorded in one transaction."""


class BlobChecker:
    """Checks blobs. Everything is looked up anew: others may remove and add meanwhile.

    Concurrency: any number of threads, each with a look of its own.
    """

    def __init__(self, layout: Layout, shelf: Shelf, records: BlobRecords) -> None:
        self._layout = layout
        self._shelf = shelf
        self._records = records

    def check(self, digest: Digest, look: Look) -> Found | None:
        """Check a blob: all of it by its digest, or what is chosen by its sums. Blocks.

        Raises:
            OSError: the disk failed.
            StorageError: the records cannot be read or written.
        """
        # Held, so that nobody empties its file meanwhile to make room.
        with self._shelf.holds.hold_here(Item.blob(digest)):
            return self._check(digest, look)

    def _check(self, digest: Digest, look: Look) -> Found | None:
        record = self._records.get(digest)
        if record is None or digest == EMPTY:
            return None
        try:
            descriptor = open_file(self._layout.blob(digest))
        except FileNotFoundError:
            return self._missing(digest, record)
        except OSError as error:
            return self._unreadable(digest, record, None, error)
        try:
            return self._opened(digest, record, descriptor, look)
        finally:
            os.close(descriptor)

    def _opened(
        self, digest: Digest, record: BlobRecord, descriptor: int, look: Look
    ) -> Found | None:
        size = os.fstat(descriptor).st_size
        if size != record.size:
            what = f"its file has {size} of {record.size} bytes"
            return self._put_aside(digest, record, descriptor, what)
        try:
            lost = self._sampled(digest, size, descriptor, look)
            if lost is None or lost:
                lost = self._hashed(digest, size, descriptor, look)
        except OSError as error:
            return self._unreadable(digest, record, descriptor, error)
        if lost is None:
            what = "its bytes do not have its digest"
            return self._put_aside(digest, record, descriptor, what)
        return self._demote(digest, record, lost, look) if lost else None

    def _sampled(self, digest: Digest, size: int, descriptor: int, look: Look) -> SpanSet | None:
        """What of the chosen parts is wrong; None where all is to be hashed."""
        if look.choose is None:
            return None
        chosen = _chosen(digest, size, look.choose)
        if size <= GROUP:
            return None if chosen else SpanSet()
        bad: list[Span] = []
        with closing(look.leafer.read(descriptor, chosen)) as pieces:
            for offset, data in pieces:
                span = Span(offset, offset + len(data))
                known = self._records.pieces(digest, span)
                if not covers(known, span):
                    return None
                joined(bad, wrong(offset, data, known))
                look.seen(len(data))
        return SpanSet(bad)

    def _hashed(self, digest: Digest, size: int, descriptor: int, look: Look) -> SpanSet | None:
        """What is wrong; None when nothing says what. Sums that are missing are made."""
        hasher, bad, unsure = Hasher(), list[Span](), False
        with closing(look.leafer.read(descriptor, [Span(0, size)])) as pieces:
            for offset, data in pieces:
                hasher.update(data)
                span = Span(offset, offset + len(data))
                known = self._records.pieces(digest, span)
                joined(bad, wrong(offset, data, known))
                unsure = unsure or not covers(known, span)
                look.seen(len(data))
        if hasher.digest() != digest:
            return SpanSet(bad) or None
        if bad or unsure:
            self._sum(digest, size, descriptor, look)
        return SpanSet()

    def _sum(self, digest: Digest, size: int, descriptor: int, look: Look) -> None:
        """The bytes are right: record anew what they are."""
        found: list[Piece] = []

        with closing(look.leafer.read(descriptor, [Span(0, size)])) as pieces:
            for offset, data in pieces:
                found += pieces_of(offset, data)
                if len(found) >= _TOGETHER:
                    self._records.describe(digest, found)
                    found.clear()
        self._records.describe(digest, found)
        _LOG.info("store.blob.summed digest=%s", digest)

    def _demote(
        self, digest: Digest, record: BlobRecord, lost: SpanSet, look: Look
    ) -> Found | None:
        if self._records.get(digest) is None:
            return None  # removed, or found out by a reader
        streams = _streams(record)
        key = look.prefer(digest, streams) or next(iter(streams), None)
        self._shelf.demotion.demote(digest, list(lost), key)
        self._shelf.demotion.note(digest, changed(lost), lost)
        return _found(digest, record, changed(lost), lost, key)

    def _missing(self, digest: Digest, record: BlobRecord) -> Found | None:
        path = self._layout.blob(digest)
        with self._shelf.holds.naming([digest]):
            if file_size(path) is not None or not self._records.delete(digest):
                return None
            what = "its file is not there"
            if is_foreign(path):
                what = "what lies in its place is no file"
                make_way(path, self._layout.quarantine)
        _LOG.warning("store.blob.missing digest=%s", digest)
        lost = SpanSet([Span(0, record.size)])
        return _found(digest, record, what, lost, None)

    def _unreadable(
        self, digest: Digest, record: BlobRecord, descriptor: int | None, error: OSError
    ) -> Found | None:
        """The disk has lost bytes of it, which is damage as any other; or the disk has failed."""
        if error.errno not in UNREADABLE:
            raise error
        what = f"it cannot be read: {error.strerror}"
        return self._put_aside(digest, record, descriptor, what)

    def _put_aside(
        self, digest: Digest, record: BlobRecord, descriptor: int | None, what: str
    ) -> Found | None:
        """Nothing of the file is of use. A record without a file is read by nobody."""
        if not self._shelf.demotion.put_aside(digest, record.size, what, descriptor):
            return None
        return _found(digest, record, what, SpanSet([Span(0, record.size)]), None)


def _chosen(digest: Digest, size: int, choose: Choose) -> list[Span]:
    item, starts = Item.blob(digest), range(0, max(size, 1), GROUP)
    return [Span(at, min(at + GROUP, size)) for at in starts if choose(item, at)]


def _streams(record: BlobRecord) -> tuple[StreamKey, ...]:
    return tuple(StreamKey(each) for each in record.streams)


def _found(
    digest: Digest, record: BlobRecord, what: str, lost: SpanSet, key: StreamKey | None
) -> Found:
    return Found(
        item=Item.blob(digest),
        what=what,
        lost=lost,
        size=record.size,
        key=key,
        streams=_streams(record),
        whole=True,
    )
