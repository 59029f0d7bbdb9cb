"""The first pass over a zip: only its tail and its directory are read."""

from collections.abc import Callable
from typing import Final

import trio

from cafs.codec import zip as zip_codec
from cafs.codec.zip_end import Directory, locate
from cafs.errors import MalformedError
from cafs.fetch.content.bridging import Pull
from cafs.model.limits import Limits
from cafs.store.trees.planting import Planter
from cafs.store.trees.tree_writing import TreeWriter

_TAIL: Final = 64 << 10
"""Bytes of the end that are read first: enough for the end record and most directories."""
_LONGEST_TAIL: Final = 4 << 20
"""The most that is read of the end; a zip64 record lies right before the end record."""
_PIECE: Final = 256 << 10


def plant_zip(pull: Pull, size: int, writer: TreeWriter, *, name: str, limits: Limits) -> int:
    """Plant the members of a zip, with a segment for each that has content.

    Runs in a worker thread.

    Returns:
        the size of the decoded stream: all contents end to end, bytes.

    Raises:
        MalformedError: no zip, or a damaged or hostile one.
        CafsError: as ``pull``.
    """
    directory = _locate(pull, size, name)
    planter = Planter(writer, name=name, limits=limits)
    decoded = 0
    read = _reader(pull, directory.offset, directory.offset + directory.length)
    for member, segment in zip_codec.members(read, directory, name=name, limits=limits):
        planter.plant(member)
        if segment is not None:
            writer.add_segment(0, segment)
            decoded = segment.start + segment.length
    planter.finish()
    return decoded


def _locate(pull: Pull, size: int, name: str) -> Directory:
    start = max(0, size - _TAIL)
    while True:
        tail = trio.from_thread.run(pull, start, size - start)
        found = locate(tail, size, name=name)
        if isinstance(found, Directory):
            return found
        if found.offset >= start or size - found.offset > _LONGEST_TAIL:
            raise MalformedError(f"{name}: the end of the zip archive contradicts itself")
        start = found.offset


def _reader(pull: Pull, offset: int, stop: int) -> Callable[[int], bytes]:
    position = offset
    piece = b""

    def read(size: int) -> bytes:
        nonlocal position, piece
        if not piece and position < stop:
            piece = trio.from_thread.run(pull, position, min(_PIECE, stop - position))
            position += len(piece)
        taken, piece = piece[:size], piece[size:]
        return taken

    return read
