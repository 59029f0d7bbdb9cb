"""Bytes of a tree's entry: which part of which stream they are, and the zeros of sparse files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cafs.distribution.interfaces import OpenTree
from cafs.errors import MalformedError
from cafs.fetch.interfaces import Content, Patience
from cafs.model.member import Entry, Piece
from cafs.model.span import Span


def stored_span(entry: Entry) -> Span:
    """The bytes of its stream that an entry's content is; for a sparse file, its pieces."""
    if entry.sparse is None:
        return Span(entry.offset, entry.offset + entry.size)
    return Span(entry.offset, entry.offset + sum(piece.length for piece in entry.sparse))


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
    length = min(length, entry.size - offset)
    if length <= 0:
        return b""
    content = tree.contents[entry.stream]
    if entry.sparse is None:
        return await exactly(content, entry.offset + offset, length, patience)
    runs = tuple(pieces_of(entry.sparse, offset, length))
    filled = bytearray(length)
    if runs:
        # The data of all pieces lie end to end, so one read brings those of any range.
        first, last = runs[0].at, runs[-1].at + runs[-1].length
        data = memoryview(await exactly(content, entry.offset + first, last - first, patience))
        for run in runs:
            filled[run.start : run.start + run.length] = data[
                run.at - first : run.at - first + run.length
            ]
    return bytes(filled)


@dataclass(frozen=True, slots=True)
class Run:
    """A run of data in a range of a sparse file: ``length`` bytes at ``start`` of the range.

    ``at`` is where they lie in the data of all pieces.
    """

    start: int
    at: int
    length: int


def pieces_of(pieces: Sequence[Piece], offset: int, length: int) -> Iterator[Run]:
    """Where a range of a sparse file has data, in order; everything between is a hole."""
    before = 0
    for piece in pieces:
        start = max(piece.offset, offset)
        stop = min(piece.offset + piece.length, offset + length)
        if start < stop:
            yield Run(start - offset, before + start - piece.offset, stop - start)
        before += piece.length


async def exactly(content: Content, offset: int, length: int, patience: Patience) -> bytes:
    """Read ``length`` bytes, which must be there.

    Raises:
        MalformedError: the content ends earlier.
        CafsError: as ``Content.read``.

    Cancellation: what has been fetched stays.
    """
    data = await content.read(offset, length, patience)
    if len(data) != length:
        raise MalformedError(
            f"{content.name}: {length} bytes at {offset} were promised, and {len(data)} are there"
        )
    return data
