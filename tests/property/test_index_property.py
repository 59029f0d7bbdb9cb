"""Index files: any tree comes out as it went in, any lie is refused or is another tree."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings, strategies as st
from msgspec import structs

from cafs.codec.index_file import HASHED, PLACED, UNBOUND
from cafs.distribution.recording import LAYER, replay
from cafs.errors import MalformedError
from cafs.fetch.passes.making import ARCHIVE, Making
from cafs.model.digest import digest_of
from cafs.model.identity import decoded_stream, indexed_tree, raw_stream
from cafs.model.limits import Limits
from cafs.model.member import ROOT, Entry, Kind, Member, Piece
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.store.db.environment import Environment
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.trees.index_export import export_index
from cafs.store.trees.index_import import import_index
from cafs.store.trees.trees import Trees
from tests.indexed import BLOB, HEADER, Craft
from tests.planted import TABLES
from tests.property.test_planting_scale import anonymous_bytes

RAW = raw_stream(BLOB)
SIZE = 1 << 40
WHOLE = Segment(
    start=0,
    length=SIZE,
    input_start=0,
    input_length=SIZE >> 10,
    codec="zstd",
    sha256=bytes(32),
)
FEW, MANY = 40_000, 160_000
FLAT = 24 << 20
"""Bytes, which are 210 for each entry more: rows that were kept would have 600."""

names = st.sampled_from([b"a", b"b", b"c", b"\xff\n", "ü".encode(), b"x" * 255, b"..", b""])
paths = st.lists(names, max_size=4).map(b"/".join)
pieces = st.lists(st.integers(1, 1000), max_size=6).map(
    lambda steps: tuple(Piece(sum(steps[: 2 * n]), steps[2 * n]) for n in range(len(steps) // 2))
)
members = st.lists(
    st.builds(
        Member,
        path=paths,
        kind=st.sampled_from(list(Kind)),
        mode=st.integers(0, 0o7777),
        uid=st.integers(0, (1 << 32) - 1),
        gid=st.just(0) | st.integers(0, (1 << 32) - 1),
        mtime_ns=st.integers(-(1 << 63), (1 << 63) - 1),
        size=st.integers(10_000, 1 << 39),
        offset=st.integers(0, 1 << 39),
        device=st.integers(0, 1 << 40),
        target=paths,
        xattrs=st.just(()) | st.just(((b"user.a", b"\0"), (b"user.b", b""))),
        sparse=st.none() | pieces,
        sha256=st.just(b"") | st.binary(min_size=32, max_size=32),
    ),
    max_size=12,
)


@contextmanager
def opened() -> Iterator[Trees]:
    with TemporaryDirectory() as directory:
        environment = Environment(Path(directory), TABLES, synced=False, make_room=lambda: False)
        try:
            yield Trees(TreeTables(environment))
        finally:
            environment.close()


def planted(trees: Trees, each: list[Member], making: Making) -> TreeRecord:
    with trees.writer(making.identity(RAW)) as writer:
        planter = making.planter(writer, name="test", limits=Limits())
        for member in each:
            links = member.kind in {Kind.SYMLINK, Kind.HARD_LINK}
            fitting = structs.replace(
                member,
                target=member.target if links else None,
                sparse=member.sparse if member.kind is Kind.FILE else None,
            )
            with suppress(MalformedError):
                if fitting.path.strip(b"/.") or fitting.kind is Kind.DIRECTORY:
                    planter.plant(fitting)
        planter.finish()
        writer.add_segment(0, WHOLE)
        stream = TreeStream(
            key=decoded_stream(RAW, "zstd"), size=SIZE, raw=RAW, part=0, rules="tar"
        )
        return writer.publish((stream,), BLOB)


def imported(trees: Trees, data: bytes, size: int, making: Making) -> TreeRecord:
    expected = digest_of(data)
    return import_index(
        trees,
        indexed_tree(making.identity(RAW), expected),
        data,
        raw=RAW,
        expected=expected,
        digest=BLOB,
        size=size,
        mark=making.mark,
    )


@pytest.mark.parametrize("making", [ARCHIVE, LAYER], ids=["archive", "layer"])
@given(each=members)
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_out_as_it_went_in(making: Making, each: list[Member]) -> None:
    with opened() as trees:
        made = planted(trees, each, making)
        out = io.BytesIO()
        export_index(trees, made, out, digest=BLOB, size=SIZE >> 10, mark=making.mark)
        record = imported(trees, out.getvalue(), SIZE >> 10, making)
        assert list(trees.rows(record.number)) == list(trees.rows(made.number))
        assert list(replay(trees, record)) == list(replay(trees, made))
        for number in range(made.count):
            theirs = trees.children(record.number, number, None, 100)
            assert theirs == trees.children(made.number, number, None, 100)


numbers = st.sampled_from([0, 1, 2, -1, 8192, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, -(1 << 63)])
small = st.sampled_from([0, 0, 0, 1, -1])
shapes = st.builds(
    lambda kind, *flags: kind | sum(flags),
    st.integers(0, 7),
    st.sampled_from([0, UNBOUND]),
    st.sampled_from([0, 0, HASHED]),
    st.sampled_from([0, PLACED]),
)
lies = st.lists(
    st.tuples(
        names,
        st.fixed_dictionaries(
            {"shapes": shapes, "parents": small},
            optional={
                "sizes": numbers,
                "gaps": numbers,
                "seconds": numbers,
                "linked": small,
                "targets": st.none() | paths,
            },
        ),
    ),
    max_size=4,
)


@given(each=lies, layer=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_lie_is_refused_or_is_a_tree(
    each: list[tuple[bytes, dict[str, object]]], layer: bool
) -> None:
    making = LAYER if layer else ARCHIVE
    craft = Craft(header=replace(HEADER, mark=making.mark))
    for name, row in each:
        craft.add(name, **row)
    craft.digests = bytes(32 * sum(bool(shape & HASHED) for shape in craft.entries.shapes))
    with opened() as trees:
        try:
            record = imported(trees, craft.bytes(), HEADER.size, making)
        except MalformedError:
            assert trees.left() == []
            return
        shown: set[int] = set()
        waiting = [ROOT]
        while waiting:
            at = waiting.pop()
            assert at not in shown
            shown.add(at)
            waiting += [number for number, _ in trees.children(record.number, at, None, 100)]
        for number, (entry, _) in enumerate(trees.rows(record.number)):
            assert entry.parent < max(number, 1)
            assert entry.kind is not Kind.HARD_LINK or layer or 0 < entry.link < number


def most_memory(count: int, file: Path) -> int:
    """Of this process while it writes and reads an index of so many entries."""
    most = 0

    def measure() -> None:
        nonlocal most
        most = max(most, anonymous_bytes())

    class Sink:
        def write(self, data: bytes) -> None:
            measure()
            out.write(data)

    with opened() as trees:
        with trees.writer(ARCHIVE.identity(RAW)) as writer:
            writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
            for number in range(count):
                one = Entry(name=b"file-%d" % number, parent=0, kind=Kind.FILE, mode=0, size=1)
                writer.add(structs.replace(one, sha256=os.urandom(32)))
            writer.add_segment(0, structs.replace(WHOLE, codec="store", length=1, input_length=1))
            stream = TreeStream(key=RAW, size=1, raw=RAW, part=0, rules="")
            made = writer.publish((stream,), BLOB)
        with file.open("wb") as out:
            name = export_index(trees, made, Sink(), digest=BLOB, size=1, mark="")
        record = import_index(
            trees,
            indexed_tree(made.identity, name),
            file,
            raw=RAW,
            expected=name,
            digest=BLOB,
            size=1,
            mark="",
            beat=measure,
        )
        assert record.count == count + 1
    return most


@pytest.mark.slow
def test_as_many_entries_as_there_are_come_and_go_in_flat_memory(tmp_path: Path) -> None:
    """A transaction takes what it takes, some of it for good: the first index has one of them."""
    least = most_memory(FEW, tmp_path / "small.idx")
    assert 0 < most_memory(MANY, tmp_path / "large.idx") < least + FLAT
