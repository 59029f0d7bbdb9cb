"""Extracting: the bytes of a file from the content that it lies in, holes and all."""

from collections.abc import Iterator, Sequence

import msgspec

from cafs.errors import MalformedError
from cafs.fetch.interfaces import Content, Patience
from cafs.model.member import Piece
from cafs.model.span import Span


class Lying(msgspec.Struct, frozen=True):
    """Where a file lies in a content: ``size`` bytes from ``offset`` on.

    With ``sparse``, its pieces lie there end to end.
    """

    offset: int
    size: int
    sparse: Sequence[Piece] | None = None

    def span(self) -> Span:
        """The bytes of the content that the file is; of a sparse one they are summed up."""
        pieces = self.sparse
        stored = self.size if pieces is None else sum(each.length for each in pieces)
        return Span(self.offset, self.offset + stored)


async def extract(
    content: Content, lying: Lying, offset: int, length: int, patience: Patience
) -> bytes:
    """Read a file's bytes; short only at its end.

    Args:
        content: what it lies in.
        lying: where.
        offset: where in the file to begin, bytes.
        length: how much at most, bytes.
        patience: how long to wait for what must be fetched.

    Raises:
        MalformedError: the content ends before the file does.
        CafsError: as ``Content.read``.

    Cancellation: what has been fetched stays.
    """
    length = min(length, lying.size - offset)
    if length <= 0:
        return b""
    content.lies(lying.span)
    if lying.sparse is None:
        return await exactly(content, lying.offset + offset, length, patience)
    runs = tuple(pieces_of(lying.sparse, offset, length))
    filled = bytearray(length)
    if runs:
        # The data of all pieces lie end to end, so one read brings those of any range.
        first, last = runs[0].at, runs[-1].at + runs[-1].length
        data = memoryview(await exactly(content, lying.offset + first, last - first, patience))
        for run in runs:
            filled[run.start : run.start + run.length] = data[
                run.at - first : run.at - first + run.length
            ]
    return bytes(filled)


class Run(msgspec.Struct, frozen=True):
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
