"""Bytes of a tree's entry: which part of which stream they are."""

from cafs.distribution.interfaces import OpenTree
from cafs.fetch.content.extracting import Lying, extract
from cafs.fetch.interfaces import Patience
from cafs.model.member import Entry
from cafs.model.span import Span


def stored_span(entry: Entry) -> Span:
    """The bytes of its stream that an entry's content is; for a sparse file, its pieces."""
    return _lying(entry).span()


async def read_entry(
    tree: OpenTree, entry: Entry, offset: int, length: int, patience: Patience
) -> bytes:
    """Read a file's bytes; short only at its end.

    Args:
        tree: the tree that the entry is of.
        entry: a file, or a symlink whose text is content.
        offset: where to begin, bytes.
        length: how much at most, bytes.
        patience: how long to wait for what must be fetched.

    Raises:
        MalformedError: the content ends before the entry does.
        CafsError: as ``Content.read``.

    Cancellation: what has been fetched stays.
    """
    if min(length, entry.size - offset) <= 0:
        return b""
    return await extract(tree.contents[entry.stream], _lying(entry), offset, length, patience)


def _lying(entry: Entry) -> Lying:
    return Lying(entry.offset, entry.size, entry.sparse)
