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
from cafs.model.span import Span
from cafs.store.disk import locking
from cafs.store.disk.door import open_file
from cafs.store.disk.files import punch
from cafs.store.tables.ledger import Ledger
from cafs.store.tables.records import StreamRecord
from cafs.store.tables.sums import PIECE


def unrecorded(ledger: Ledger, key: StreamKey, path: Path) -> int:
    """Bytes of disk space in a stream's file that no record names. Blocks.

    Raises:
        OSError: the disk failed.
    """
    record = _recorded(ledger, key, path)
    if record is None or path.stat().st_blocks * 512 < ledger.present(key).total + PIECE:
        return 0
    descriptor = open_file(path)
    try:
        return sum(span.length for span in _left(ledger, key, record, descriptor))
    finally:
        os.close(descriptor)


def sweep(ledger: Ledger, key: StreamKey, path: Path) -> bool:
    """Give the space of such bytes back; whether there were any, and the file system can. Blocks.

    Nobody writes meanwhile; a draft that somebody is about to keep finds that it has gone.

    Raises:
        OSError: the disk failed.
    """
    descriptor = open_file(path, os.O_RDWR)
    try:
        locking.hold_gate(descriptor)
        record = _recorded(ledger, key, path)
        left = [] if record is None else list(_left(ledger, key, record, descriptor))
        if record is None or not left or not all(punch(descriptor, span) for span in left):
            return False
        ledger.drafts.forget(key, record)
        return True
    finally:
        os.close(descriptor)


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
