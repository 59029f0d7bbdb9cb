"""Index files: what the reader takes, and what of it a store takes.

The first byte of an input says whether its pages are packed, how it is read, and whether it is
imported as well, which takes longer. Blind changes of packed pages seldom
mean anything, so they may also lie in it as they are, and be packed before they are read.
"""

import atexit
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import zstandard

from cafs.codec.index_file import DIGEST, HEADER, LENGTH, PIECE, ZIP
from cafs.codec.index_pieces import what_it_says
from cafs.codec.index_reading import IndexReader
from cafs.codec.windows import unpack
from cafs.errors import MalformedError
from cafs.model.digest import digest_of
from cafs.model.identity import TreeIdentity, raw_stream
from cafs.model.member import Kind
from cafs.store.db.environment import Environment
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.trees.index_import import import_index
from cafs.store.trees.trees import Trees
from tests.fuzz.fuzzing import LIMITS, STEPS, Given, content_to_blame
from tests.planted import TABLES

MOST: Final = 4 << 10
_FAST: Final = Path("/dev/shm")  # noqa: S108 - nothing but a fuzzer's store lies there
_IDENTITY: Final = TreeIdentity("0" * 64)
Repack = Callable[[bytes, int, int], tuple[bytes, int, int]]


def one(data: bytes) -> None:
    """Read an index, and import what was read."""
    knobs, data = (data[0], data[1:]) if data else (0, b"")
    index = packed(data) if knobs & 1 else data
    with content_to_blame():
        read(index, STEPS[knobs >> 1 & 3])
        if knobs & 8:
            imported(index)
    with content_to_blame():
        source = Given(index, STEPS[knobs >> 1 & 3])
        what_it_says(source.read, len(index), name="x", unpack=unpack, limits=LIMITS)


def read(index: bytes, step: int) -> None:
    """Read to the end; its entries and segments are what a store takes for granted."""
    reader = IndexReader(Given(index, step).read, len(index), name="x", limits=LIMITS)
    header, count = reader.header, 0
    for page in reader.entries():
        assert page.first == count
        for number, row in enumerate(page.rows, count):
            assert 0 <= row[1] <= max(number - 1, 0)
            assert row[5] >= 0
            assert 0 <= row[6] <= header.decoded
        count += len(page.rows)
    assert count == header.entries
    start = stop = count = 0
    for segments in reader.segments():
        for segment, _ in segments:
            assert segment.start == start
            assert segment.length > 0
            start += segment.length
            assert segment.input_start >= (0 if header.compression == ZIP else max(stop - 1, 0))
            assert 0 < segment.input_length <= header.size - segment.input_start
            stop = segment.input_start + segment.input_length
            count += 1
    assert (start, count) == (header.decoded, header.segments)
    assert reader.finish() == digest_of(index)


def imported(index: bytes) -> None:
    """Import into a store, read the tree, and remove it; what is refused leaves nothing."""
    trees = store()
    header = IndexReader(BytesIO(index).read, len(index), name="x", limits=LIMITS).header
    try:
        record = import_index(
            trees,
            _IDENTITY,
            index,
            raw=raw_stream(header.blob),
            expected=digest_of(index),
            digest=header.blob,
            size=header.size,
            mark=header.mark,
            limits=LIMITS,
        )
    except MalformedError:
        assert trees.left() == []
        raise
    seen, waiting = set[int](), [0]
    while waiting:
        at = waiting.pop()
        assert at not in seen, "a tree with a loop in it"
        seen.add(at)
        waiting += [number for number, _ in trees.children(record.number, at, None, 10_000)]
    rows = list(trees.rows(record.number))
    assert len(rows) == record.count == header.entries
    for number, (entry, _) in enumerate(rows):
        assert entry.kind is not Kind.HARD_LINK or header.mark or 0 < entry.link < number
    assert len(list(trees.all_segments(record.number, 0))) == header.segments
    assert trees.withdraw(record)
    trees.clear(record.number)


@cache
def store() -> Trees:
    """A store for all inputs of this process, which a fuzzer ends unasked: it has no name."""
    directory = TemporaryDirectory(dir=_FAST if _FAST.is_dir() else None)
    environment = Environment(Path(directory.name), TABLES, synced=False, make_room=lambda: False)
    directory.cleanup()
    atexit.register(environment.close)
    return Trees(TreeTables(environment))


def packed(flat: bytes) -> bytes:
    """An index whose pages lie unpacked in ``flat``, as far as they can be made out."""
    packer = zstandard.ZstdCompressor(level=1, write_content_size=True)

    def repack(data: bytes, _: int, size: int) -> tuple[bytes, int, int]:
        columns = data[:size]
        return packer.compress(columns), len(columns), len(columns)

    return _repacked(flat, repack)


def flattened(index: bytes) -> bytes:
    """What ``packed`` makes an index of."""

    def repack(data: bytes, size: int, _: int) -> tuple[bytes, int, int]:
        columns = zstandard.decompress(data[:size])
        return columns, size, len(columns)

    return _repacked(index, repack)


def _repacked(data: bytes, repack: Repack) -> bytes:
    """Walk the pages. ``repack`` takes the data from a page's columns on, and the two sizes that it
    tells; it gives the columns, how much of the data they were, and their size unpacked.
    """
    made, at = [data[:HEADER]], HEADER
    entries, segments = (int.from_bytes(data[n : n + 4], "little") for n in (12, 16))
    for total, windows in ((entries, False), (segments, True)):
        left = total
        while left > 0 and len(data) - at >= PIECE.size:
            count, hashed, before, unpacked = PIECE.unpack_from(data, at)
            at += PIECE.size
            columns, used, length = repack(data[at:], before, unpacked)
            at += used
            sums = data[at : at + hashed * DIGEST]
            made += [PIECE.pack(count, hashed, len(columns), length), columns, sums]
            at += hashed * DIGEST
            left -= max(count, 1)
            for _ in range(count if windows else 0):
                stop = at + LENGTH.size + int.from_bytes(data[at : at + LENGTH.size], "little")
                made.append(data[at:stop])
                at = stop
    return b"".join([*made, data[at:]])
