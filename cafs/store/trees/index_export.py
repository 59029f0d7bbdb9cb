"""Writes the index of a tree that a first pass has made here.

What a pass makes is a function of the blob, so anybody who has the blob can make the index anew and
compare (``what_it_says``). Only trees of a pass are written: one that came out of an index would
pass on what nobody here has checked.
"""

from typing import Protocol

from cafs.codec.index_file import COMPRESSIONS, ZIP, Header
from cafs.codec.index_writing import IndexWriter
from cafs.errors import StorageError, UnsupportedError
from cafs.model.digest import Digest, Hasher
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.store.trees.trees import Trees


class IncompleteTreeError(UnsupportedError):
    """A tree does not tell all that an index says; another pass over the same bytes does."""


class Sink(Protocol):
    """Takes bytes, forward: an open file."""

    def write(self, data: bytes, /) -> object:
        """Take all of these."""


def export_index(
    trees: Trees, record: TreeRecord, out: Sink, *, digest: Digest, size: int, mark: str
) -> Digest:
    """Write the index of a tree; gives its name, the sha256 of what was written.

    Blocks: for a worker thread. The tree must not be purged meanwhile. Memory: a page of the index,
    and one of the store.

    Args:
        trees: of the store.
        record: of the archive's tree, or of the layer's record, as a pass has made it.
        out: where it goes; what a broken-off export has written there is of no use.
        digest: the sha256 of the raw blob.
        size: its bytes.
        mark: of the ``Making`` that the tree is of.

    Raises:
        UnsupportedError: the tree came out of an index itself.
        IncompleteTreeError: it is not of a pass over that blob, or has no segments with digests: of
            a zip all members must have been read.
        StorageError: the store's records are damaged, or went.
        OSError: as ``out``.
    """
    name = f"the index of {digest}"
    stream = _stream(record, digest, name)
    segments, compression = _survey(trees, record, stream, name)
    header = Header(
        blob=digest,
        size=size,
        decoded=stream.size,
        compression=compression,
        mark=mark,
        entries=record.count,
        segments=segments,
    )
    hasher = Hasher()

    def write(data: bytes) -> None:
        hasher.update(data)
        out.write(data)

    writer = IndexWriter(write, header, name)
    try:
        for entry, bound in trees.rows(record.number):
            writer.entry(entry, bound=bound)
        for segment, window in trees.all_segments(record.number, 0):
            writer.segment(segment, window)
        writer.finish()
    except ValueError as error:
        raise StorageError(f"{name}: {error}", hint="the tree went meanwhile; try again") from error
    return hasher.digest()


def _stream(record: TreeRecord, digest: Digest, name: str) -> TreeStream:
    """The one stream of a tree that a pass has made of a blob."""
    if len(record.streams) != 1 or record.digest != digest or not digest.canonical:
        raise IncompleteTreeError(f"{name}: its tree is not of a pass over that blob")
    stream = record.streams[0]
    if stream.vouched or stream.planted:
        raise UnsupportedError(f"{name}: its tree came out of an index itself")
    return stream


def _survey(trees: Trees, record: TreeRecord, stream: TreeStream, name: str) -> tuple[int, str]:
    """How many segments there are, and what the blob is."""
    count, at = 0, 0
    compression = ZIP if stream.rules == ZIP else "none"
    for segment, _ in trees.all_segments(record.number, 0):
        if segment.start != at:
            break
        if not segment.sha256:
            raise IncompleteTreeError(
                f"{name}: nobody knows the digest of the {segment.length} bytes at {at}",
                hint="all of it must be read first",
            )
        if not count and compression != ZIP:
            compression = _compression(segment)
        count, at = count + 1, segment.start + segment.length
    if at != stream.size:
        raise IncompleteTreeError(
            f"{name}: it has segments of {at} of {stream.size} bytes",
            hint="a first pass makes them anew",
        )
    return count, compression


def _compression(first: Segment) -> str:
    """What a tar was compressed with, by how its first segment is decoded."""
    if first.codec == "store":
        return "none"
    return first.codec if first.codec in COMPRESSIONS else "gzip"
