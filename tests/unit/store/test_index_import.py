"""Trees go into index files and come out as they were; what is broken leaves nothing."""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from msgspec import structs

from cafs.codec import tar
from cafs.distribution.recording import LAYER, replay
from cafs.errors import (
    ContentError,
    DigestMismatchError,
    MalformedError,
    StorageError,
    UnsupportedError,
)
from cafs.fetch.passes.making import ARCHIVE, Making
from cafs.fetch.passes.tar_pass import raw_stream_of
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import (
    archive_tree,
    decoded_stream,
    indexed_stream,
    indexed_tree,
    raw_stream,
)
from cafs.model.limits import Limits
from cafs.model.member import Entry, Kind
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.model.span import Span
from cafs.store.db.environment import Environment
from cafs.store.store import Store
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.trees import tree_importing
from cafs.store.trees.index_export import export_index
from cafs.store.trees.index_import import import_index
from cafs.store.trees.members import Members
from cafs.store.trees.trees import Trees
from tests.indexed import BLOB, ENTRIES, HEADER, ROOT_ENTRY, SEGMENTS, WINDOWS, written
from tests.planted import TABLES

MIB = 1 << 20
RAW = raw_stream(BLOB)
MADE = archive_tree(RAW)


@contextmanager
def opened(directory: Path) -> Iterator[Trees]:
    """Trees of a store that nobody syncs."""
    directory.mkdir(exist_ok=True)
    environment = Environment(directory, TABLES, synced=False, make_room=lambda: False)
    try:
        yield Trees(TreeTables(environment))
    finally:
        environment.close()


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    with opened(tmp_path / "trees") as found:
        yield found


def rich_tar(directory: Path) -> bytes:
    """A tar with all that tars have, made by GNU tar, with more behind it."""
    top = directory / "top"
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "f").write_bytes(b"content")
    (top / "d" / "hard").hardlink_to(top / "d" / "f")
    (top / "d" / "soft").symlink_to("../d/f")
    (top / "empty").touch()
    (top / os.fsdecode(b"caf\xe9\n")).write_bytes(os.urandom(3 * MIB))
    with (top / "holes").open("wb") as file:
        file.seek(5 * MIB)
        file.write(b"x" * 9000)
        file.truncate(9 * MIB)
    os.mkfifo(top / "fifo", 0o600)
    command = ["tar", "--create", "--sparse", "--format=pax", "--directory", str(top), "."]
    first = subprocess.run(command, check=True, capture_output=True).stdout
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        again = tarfile.TarInfo("./d/f")
        again.size, again.mtime = 3, -5
        again.pax_headers = {"SCHILY.xattr.user.note": "ä", "SCHILY.xattr.security.x": "y"}
        archive.addfile(again, io.BytesIO(b"new"))
        gone = tarfile.TarInfo("./d/e")
        archive.addfile(gone)
    return first.rstrip(b"\0") + bytes(-len(first.rstrip(b"\0")) % 512) + out.getvalue()


def planted(trees: Trees, data: bytes, making: Making) -> TreeRecord:
    """What a pass over a plain tar makes, with its slices."""
    blob = digest_of(data)
    with trees.writer(making.identity(raw_stream(blob))) as writer:
        planter = making.planter(writer, name="test", limits=Limits())
        for member in tar.members(io.BytesIO(data).read, name="test"):
            content = data[member.offset : member.offset + member.size]
            hashed = member.kind is Kind.FILE and member.sparse is None
            planter.plant(member, sha256(content).digest() if hashed else b"")
        planter.finish()
        for start in range(0, len(data), MIB):
            part = data[start : start + MIB]
            writer.add_segment(0, stored(start, part), b"")
        return writer.publish((raw_stream_of(raw_stream(blob), len(data)),), blob, members=True)


def stored(start: int, data: bytes) -> Segment:
    return Segment(
        start=start,
        length=len(data),
        input_start=start,
        input_length=len(data),
        codec="store",
        sha256=sha256(data).digest(),
    )


def exported(trees: Trees, record: TreeRecord, size: int, mark: str = "") -> bytes:
    out = io.BytesIO()
    assert record.digest is not None
    name = export_index(trees, record, out, digest=record.digest, size=size, mark=mark)
    assert name == digest_of(out.getvalue())
    return out.getvalue()


def imported(
    trees: Trees,
    data: bytes | Path,
    *,
    blob: Digest = BLOB,
    size: int = HEADER.size,
    making: Making = ARCHIVE,
    limits: Limits | None = None,
) -> TreeRecord:
    whole = data if isinstance(data, bytes) else data.read_bytes()
    raw, expected = raw_stream(blob), digest_of(whole)
    return import_index(
        trees,
        indexed_tree(making.identity(raw), expected),
        data,
        raw=raw,
        expected=expected,
        digest=blob,
        size=size,
        mark=making.mark,
        limits=limits,
    )


def contents(trees: Trees, tree: int, count: int) -> list[object]:
    """All that can be asked of a tree."""
    entries = [trees.entry(tree, number) for number in range(count)]
    listings = [trees.children(tree, number, None, 1000) for number in range(count)]
    found = [trees.child(tree, entry.parent, entry.name) for entry in entries[1:]]
    segments = trees.segments(tree, 0, Span(0, 1 << 50))
    windows = [trees.window(tree, 0, segment.start) for segment in segments]
    return [entries, listings, found, segments, windows]


def left_behind(trees: Trees) -> bool:
    """Whether records lie there that belong to no tree."""
    tables = trees._tables
    with tables.index.read() as snapshot:
        used = any(
            snapshot.last_key(table)
            for table in (tables.entries, tables.names, tables.segments, tables.windows)
        )
    return used or bool(tables.draft_numbers())


@pytest.mark.parametrize("making", [ARCHIVE, LAYER], ids=["archive", "layer"])
def test_a_tree_comes_out_as_it_went_in(trees: Trees, tmp_path: Path, making: Making) -> None:
    data = rich_tar(tmp_path)
    made = planted(trees, data, making)
    index = exported(trees, made, len(data), making.mark)
    blob = digest_of(data)
    with opened(tmp_path / "elsewhere") as others:
        record = imported(others, index, blob=blob, size=len(data), making=making)
        before = contents(trees, made.number, made.count)
        assert contents(others, record.number, record.count) == before
        assert record == others.find(indexed_tree(made.identity, digest_of(index)))
        if making is LAYER:
            assert list(replay(others, record)) == list(replay(trees, made))
    raw = raw_stream(blob)
    assert (record.count, record.digest) == (made.count, None)
    assert record.streams == (
        TreeStream(
            key=indexed_stream(raw, digest_of(index)),
            size=len(data),
            raw=raw,
            part=0,
            rules="segments",
            vouched=True,
        ),
    )


def test_the_same_blob_makes_the_same_index_elsewhere(trees: Trees, tmp_path: Path) -> None:
    data = rich_tar(tmp_path)
    first = exported(trees, planted(trees, data, ARCHIVE), len(data))
    with opened(tmp_path / "elsewhere") as others:
        planted(others, data, LAYER)
        assert exported(others, planted(others, data, ARCHIVE), len(data)) == first


def test_windows_and_devices_and_what_nothing_names_come_out_too(trees: Trees) -> None:
    record = imported(trees, written(ENTRIES))
    entries, _, found, segments, windows = contents(trees, record.number, record.count)
    assert entries == [entry for entry, _ in ENTRIES]
    assert found == [1, 2, 3, 4, 5, 6, 8, 8]
    assert segments == SEGMENTS
    assert windows == WINDOWS


def test_an_index_is_read_from_a_file(trees: Trees, tmp_path: Path) -> None:
    file = tmp_path / "a.idx"
    file.write_bytes(written(ENTRIES))
    assert imported(trees, file).count == len(ENTRIES)


def test_what_an_index_names_is_found_by_no_digest(trees: Trees) -> None:
    """Nobody here has hashed it: whoever asks for that digest must not get it."""
    record = imported(trees, written(ENTRIES))
    entry = trees.entry(record.number, 2)
    assert entry.sha256
    assert Members(trees._tables).find(Digest("sha256", entry.sha256)) == []


def test_a_tree_that_is_imported_again_replaces_the_first(trees: Trees) -> None:
    first = imported(trees, written(ENTRIES))
    second = imported(trees, written(ENTRIES))
    assert first.number != second.number
    assert trees.find(second.identity) == second
    assert trees.unpublished() == {first.number}
    assert trees.entry(first.number, 2) == ENTRIES[2][0]


def zipped(trees: Trees, digests: bool) -> TreeRecord:
    parts = [
        structs.replace(stored(0, b"abc"), input_start=40, sha256=b"", crc32=7),
        structs.replace(stored(3, b"de"), input_start=0, sha256=b"", crc32=8),
    ]
    stream = TreeStream(key=decoded_stream(RAW, "zip"), size=5, raw=RAW, part=0, rules="zip")
    with trees.writer(MADE) as writer:
        writer.add(ROOT_ENTRY)
        writer.add(Entry(name=b"a", parent=0, kind=Kind.FILE, mode=0o644, size=3))
        writer.add(Entry(name=b"b", parent=0, kind=Kind.SYMLINK, mode=0o777, size=2, offset=3))
        for part in parts:
            writer.add_segment(0, part)
        record = writer.publish((stream,), BLOB)
    if digests:
        members = Members(trees._tables)
        learnt = [(record.number, 0, part, bytes([part.length]) * 32) for part in parts]
        trees._index.apply(lambda batch: members._record(batch, learnt))
    return record


def test_members_of_a_zip_have_the_digests_that_reading_them_gave(trees: Trees) -> None:
    with pytest.raises(UnsupportedError, match="nobody knows the digest of the 3 bytes at 0"):
        exported(trees, zipped(trees, digests=False), 100)
    index = exported(trees, zipped(trees, digests=True), 100)
    record = imported(trees, index, size=100)
    assert record.streams[0].rules == "zip"
    found = trees.segments(record.number, 0, Span(0, 5))
    assert [part.sha256 for part in found] == [b"\3" * 32, b"\2" * 32]
    assert [(part.input_start, part.crc32) for part in found] == [(40, 7), (0, 8)]


async def test_members_of_a_zip_are_learnt_by_the_store_itself(store: Store) -> None:
    record = zipped(store.trees, digests=False)
    for part in store.trees.segments(record.number, 0, Span(0, 5)):
        store.members.learn(record.number, 0, part, bytes(32))
    await store.members.flush()
    exported(store.trees, record, 100)


def published(trees: Trees, **changed: object) -> TreeRecord:
    stream = TreeStream(key=RAW, size=8192, raw=RAW, part=0, rules="segments")
    with trees.writer(MADE) as writer:
        writer.add(ROOT_ENTRY)
        for segment in SEGMENTS:
            writer.add_segment(0, segment)
        return writer.publish((replace(stream, **changed),), BLOB)  # type: ignore[arg-type]  # of its fields


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"vouched": True}, "came out of an index"),
        ({"planted": "ab" * 32}, "came out of an index"),
        ({"size": 8193}, "segments of 8192 of 8193 bytes"),
    ],
)
def test_only_what_a_pass_made_whole_is_written(
    trees: Trees, changed: dict[str, object], why: str
) -> None:
    with pytest.raises(UnsupportedError, match=why):
        exported(trees, published(trees, **changed), 1000)
    exported(trees, published(trees), 1000)


def test_a_tree_of_another_blob_or_of_none_is_not_written(trees: Trees) -> None:
    record = published(trees)
    for wrong in (replace(record, digest=digest_of(b"other")), replace(record, digest=None)):
        with pytest.raises(UnsupportedError, match="not of a pass over that blob"):
            export_index(trees, wrong, io.BytesIO(), digest=BLOB, size=1000, mark="")


def test_a_tree_that_goes_while_it_is_written_is_an_error(trees: Trees) -> None:
    record = published(trees)
    with pytest.raises(StorageError, match="as many as the header says"):
        export_index(trees, replace(record, count=2), io.BytesIO(), digest=BLOB, size=1000, mark="")


def test_another_file_is_refused_before_it_is_read(trees: Trees) -> None:
    with pytest.raises(DigestMismatchError, match=r"^index sha256:"):
        import_index(
            trees,
            MADE,
            b"no index",
            raw=RAW,
            expected=digest_of(b"index"),
            digest=BLOB,
            size=1000,
            mark="",
        )
    assert not left_behind(trees)


def test_an_index_of_something_else_is_refused(trees: Trees) -> None:
    data = written(ENTRIES)
    with pytest.raises(MalformedError, match="it is of sha256:"):
        imported(trees, data, blob=digest_of(b"other"))
    with pytest.raises(MalformedError, match=r"1000 bytes.*999 bytes"):
        imported(trees, data, size=999)
    with pytest.raises(MalformedError, match=r"of 'an archive', not of '.members'"):
        imported(trees, data, making=LAYER)
    with pytest.raises(MalformedError, match="8 are allowed"):
        imported(trees, data, limits=Limits(members=8))
    assert not left_behind(trees)


def test_a_file_that_is_not_there_is_an_error_of_storage(trees: Trees, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        import_index(
            trees,
            MADE,
            tmp_path / "none",
            raw=RAW,
            expected=BLOB,
            digest=BLOB,
            size=1,
            mark="",
        )


def test_what_is_no_file_is_not_waited_for(trees: Trees, tmp_path: Path) -> None:
    """A clone can have anything where an index should lie."""
    os.mkfifo(tmp_path / "pipe")
    endless = tmp_path / "endless"
    endless.symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", endless, tmp_path):
        with pytest.raises(MalformedError, match="is no file"):
            import_index(
                trees,
                MADE,
                path,
                raw=RAW,
                expected=BLOB,
                digest=BLOB,
                size=1,
                mark="",
            )


@pytest.mark.parametrize("between", [0, 5000, 20_000])
def test_a_name_that_is_bound_twice_is_refused(
    trees: Trees, between: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one page, in one transaction, or far apart: else one of the two hides the other."""
    monkeypatch.setattr(tree_importing, "_ROWS", 8192)
    twin = Entry(name=b"twin", parent=0, kind=Kind.FILE, mode=0o644)
    others = [structs.replace(twin, name=b"%d" % number) for number in range(between)]
    entries = [(entry, True) for entry in (ROOT_ENTRY, twin, *others, twin)]
    with pytest.raises(MalformedError, match="two entries are bound to one name"):
        imported(trees, written(entries))
    assert not left_behind(trees)
    assert imported(trees, written([*entries[:-1], (twin, False)])).count == between + 3


class EndedError(Exception):
    """Somebody has had enough."""


def many() -> bytes:
    files = [
        Entry(name=b"%d" % n, parent=0, kind=Kind.FILE, mode=0, size=1, sha256=os.urandom(32))
        for n in range(20_000)
    ]
    return written([(ROOT_ENTRY, True), *((file, True) for file in files)])


def test_an_import_takes_few_transactions(tmp_path: Path) -> None:
    """Each is synced; what they have in common is pages that are written twice."""
    data = many()
    environment = Environment(tmp_path, TABLES, synced=False, make_room=lambda: False)
    before = environment.version()
    assert imported(Trees(TreeTables(environment)), data).count == 20_001
    # Its number, entries and names, segments, and its record.
    assert environment.version() - before <= 4
    environment.close()


def test_an_import_that_is_ended_leaves_nothing(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_importing, "_ROWS", 8192)
    data = many()
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 4:
            raise EndedError

    with pytest.raises(EndedError):
        import_index(
            trees,
            MADE,
            data,
            raw=RAW,
            expected=digest_of(data),
            digest=BLOB,
            size=1000,
            mark="",
            beat=beat,
        )
    assert beats == 4
    assert not left_behind(trees)


def test_a_file_that_is_changed_while_it_is_read_is_refused(trees: Trees, tmp_path: Path) -> None:
    data = many()
    file = tmp_path / "a.idx"
    file.write_bytes(data)

    def change() -> None:
        with file.open("r+b") as changed:
            # A digest of the last page, which any bytes may be.
            changed.seek(-1000, io.SEEK_END)
            changed.write(b"other")

    with pytest.raises(DigestMismatchError, match="while it was read"):
        import_index(
            trees,
            MADE,
            file,
            raw=RAW,
            expected=digest_of(data),
            digest=BLOB,
            size=1000,
            mark="",
            beat=change,
        )
    assert not left_behind(trees)
    assert trees.find(MADE) is None


def test_any_byte_flipped_is_refused_and_without_the_digest_leaves_a_tree_or_nothing(
    trees: Trees,
) -> None:
    data = written(ENTRIES)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x55
        wrong = bytes(flipped)
        with pytest.raises(DigestMismatchError):
            import_index(
                trees,
                MADE,
                wrong,
                raw=RAW,
                expected=digest_of(data),
                digest=BLOB,
                size=1000,
                mark="",
            )
        try:
            record = imported(trees, wrong)
        except (ContentError, UnsupportedError):
            assert not left_behind(trees)
        else:
            contents(trees, record.number, record.count)
            assert trees.withdraw(record)
            trees.clear(record.number)
