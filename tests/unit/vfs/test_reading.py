"""Bytes of entries: ranges of streams, holes of sparse files, ends."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given, strategies as st
from typing_extensions import override

from cafs.distribution.interfaces import OpenTree
from cafs.errors import MalformedError
from cafs.fetch.interfaces import Content, Patience
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey, TreeIdentity
from cafs.model.member import Entry, Kind, Piece
from cafs.model.record import TreeRecord
from cafs.model.span import Span
from cafs.vfs.reading import read_entry, stored_span

PATIENCE = Patience(1.0)


@dataclass
class Held(Content):
    """Content in memory; counts the reads."""

    data: bytes
    reads: list[tuple[int, int]] = field(default_factory=list)

    @property
    @override
    def name(self) -> str:
        return "held"

    @property
    @override
    def size(self) -> int:
        return len(self.data)

    @property
    @override
    def key(self) -> StreamKey:
        return StreamKey("0" * 64)

    @override
    def present(self) -> int:
        return len(self.data)

    @override
    def digest(self) -> Digest | None:
        return None

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        return

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def tree_of(*contents: Content) -> OpenTree:
    record = TreeRecord(number=1, identity=TreeIdentity("0" * 64), count=1, streams=(), digest=None)
    return OpenTree(record, 0, contents)


def file(size: int, offset: int = 0, sparse: tuple[Piece, ...] | None = None) -> Entry:
    return Entry(
        name=b"f", parent=0, kind=Kind.FILE, mode=0o644, size=size, offset=offset, sparse=sparse
    )


async def test_a_read_is_a_range_of_the_entrys_stream() -> None:
    content = Held(b"....hello....")
    entry = file(5, offset=4)
    assert await read_entry(tree_of(content), entry, 0, 100, PATIENCE) == b"hello"
    assert await read_entry(tree_of(content), entry, 1, 3, PATIENCE) == b"ell"
    assert content.reads == [(4, 5), (5, 3)]


async def test_reads_at_and_past_the_end_are_empty_and_ask_for_nothing() -> None:
    content = Held(b"hello")
    for offset in (5, 6, 2**40):
        assert await read_entry(tree_of(content), file(5), offset, 10, PATIENCE) == b""
    assert content.reads == []


async def test_an_empty_file_needs_no_content() -> None:
    assert await read_entry(tree_of(), file(0), 0, 10, PATIENCE) == b""


async def test_content_that_ends_early_is_an_error_and_never_short() -> None:
    with pytest.raises(MalformedError, match="held: 5 bytes at 0 were promised, and 3 are there"):
        await read_entry(tree_of(Held(b"abc")), file(5), 0, 5, PATIENCE)


async def test_a_range_in_a_hole_is_zeros_and_asks_for_nothing() -> None:
    content = Held(b"ab")
    entry = file(100, sparse=(Piece(10, 1), Piece(90, 1)))
    assert await read_entry(tree_of(content), entry, 20, 30, PATIENCE) == bytes(30)
    assert content.reads == []


async def test_the_pieces_of_a_range_are_read_at_once() -> None:
    content = Held(b"..abcd")
    entry = file(100, offset=2, sparse=(Piece(0, 1), Piece(10, 2), Piece(50, 1)))
    data = await read_entry(tree_of(content), entry, 0, 100, PATIENCE)
    assert (data[0:1], data[10:12], data[50:51]) == (b"a", b"bc", b"d")
    assert data.count(0) == 96
    assert content.reads == [(2, 4)]
    assert stored_span(entry) == Span(2, 6)


class Summed(tuple[Piece, ...]):
    """Pieces that know how often somebody went through them."""

    __slots__ = ()
    times: ClassVar[int] = 0

    @override
    def __iter__(self) -> Iterator[Piece]:
        Summed.times += 1
        return super().__iter__()


@dataclass
class Curious(Held):
    """Content to which it matters where a file lies."""

    files: list[Span] = field(default_factory=list)

    @override
    def lies(self, file: Callable[[], Span]) -> None:
        self.files.append(file())


async def test_where_a_file_lies_is_summed_up_for_content_to_which_it_matters_alone() -> None:
    entry = file(100, offset=2, sparse=Summed((Piece(0, 1), Piece(10, 2), Piece(50, 1))))
    curious = Curious(b"..abcd")
    before = Summed.times
    await read_entry(tree_of(Held(b"..abcd")), entry, 0, 100, PATIENCE)
    once = Summed.times - before
    await read_entry(tree_of(curious), entry, 0, 100, PATIENCE)
    assert (once, Summed.times - before) == (1, 3)
    assert curious.files == [Span(2, 6)]


@st.composite
def sparse_files(draw: st.DrawFn) -> tuple[bytes, tuple[Piece, ...]]:
    """A file's bytes, and the pieces of it that have data."""
    model = bytearray()
    pieces: list[Piece] = []
    for hole, data in draw(
        st.lists(st.tuples(st.integers(0, 9), st.binary(min_size=0, max_size=9)), max_size=6)
    ):
        model += bytes(hole)
        pieces.append(Piece(len(model), len(data)))
        model += data
    model += bytes(draw(st.integers(0, 9)))
    return bytes(model), tuple(pieces)


@given(sparse_files(), st.integers(0, 80), st.integers(0, 80), st.integers(0, 5))
async def test_sparse_files_read_like_the_bytes_they_stand_for(
    sparse: tuple[bytes, tuple[Piece, ...]], offset: int, length: int, lead: int
) -> None:
    model, pieces = sparse
    packed = b"".join(model[piece.offset : piece.offset + piece.length] for piece in pieces)
    content = Held(b"#" * lead + packed)
    entry = file(len(model), offset=lead, sparse=pieces)
    data = await read_entry(tree_of(content), entry, offset, length, PATIENCE)
    assert data == model[offset : offset + length]
