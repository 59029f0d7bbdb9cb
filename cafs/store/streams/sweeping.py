"""Sweeping: what lies in a stream's file, and no record names, gives its space back.

A process that is killed while it writes a draft leaves such bytes, and so does one that is killed
between what it records and what it removes. They are no part of the stream, and would stay for as
long as the file does.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.disk import locking
from cafs.store.disk.door import open_file
from cafs.store.disk.files import punch
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import PIECE


def unrecorded(ledger: Ledger, key: StreamKey, path: Path) -> int:
    """Bytes in a stream's file that no record names, or that are noted there and are not. Blocks.

    They take disk space, or count as if they did.

    Raises:
        OSError: the disk failed.
    """
    record = _recorded(ledger, key, path)
    if record is None:
        return 0
    slack = path.stat().st_blocks * 512 >= ledger.present(key).total + PIECE
    if not slack and not ledger.drafts.of(key, record):
        return 0
    descriptor = open_file(path)
    try:
        left = sum(span.length for span in _left(ledger, key, record, descriptor))
        return left + _gone(ledger, key, record, descriptor).total
    finally:
        os.close(descriptor)


def sweep(ledger: Ledger, key: StreamKey, path: Path) -> bool:
    """Give the space of such bytes back; whether there were any, and the file system can. Blocks.

    What is noted as drafted, and does not lie there, counts no more: who gave its space back was
    killed before he could say so.

    Nobody writes meanwhile; a draft that somebody is about to keep finds that it has gone.

    Raises:
        OSError: the disk failed.
    """
    with locking.gate(path) as descriptor:
        record = _recorded(ledger, key, path)
        if record is None:
            return False
        gone = _gone(ledger, key, record, descriptor)
        if gone:
            ledger.drafts.forget(key, record, gone)
        left = list(_left(ledger, key, record, descriptor))
        if not left or not all(punch(descriptor, span) for span in left):
            return bool(gone)
        ledger.drafts.forget(key, record)
        return True


def _recorded(ledger: Ledger, key: StreamKey, path: Path) -> StreamRecord | None:
    """The record of the stream whose file that is; None where it is of none, or of a blob."""
    record = ledger.record(key)
    ours = record is not None and record.digest is None and ledger.path(key, record) == path
    return record if ours else None


def _left(ledger: Ledger, key: StreamKey, record: StreamRecord, descriptor: int) -> Iterator[Span]:
    """What the file has on the disk, and the records have not; whole pieces alone.

    The disk gives space in blocks: a part of one costs nothing more.
    """
    for data in _extents(descriptor):
        for gap in ledger.missing(key, record, data):
            span = Span(-(-gap.start // PIECE) * PIECE, gap.stop // PIECE * PIECE)
            if span.start < span.stop:
                yield span


def _gone(ledger: Ledger, key: StreamKey, record: StreamRecord, descriptor: int) -> SpanSet:
    """What is noted as drafted, and is not on the disk."""
    noted = ledger.drafts.of(key, record)
    if not noted:
        return noted
    there = SpanSet(_extents(descriptor))
    return SpanSet(gap for span in noted for gap in there.missing(span))


def _extents(descriptor: int) -> Iterator[Span]:
    """Where a file has data, in order.

    Source: lseek(2), "Seeking file data and holes".
    """
    size, position = os.fstat(descriptor).st_size, 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield Span(start, position)
