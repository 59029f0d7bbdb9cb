"""Trees: what a writer wrote is what is read, page by page, and nothing before it is published."""

from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from cafs.errors import MalformedError
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey, TreeIdentity
from cafs.model.member import ROOT, Entry, Kind, Piece
from cafs.model.record import Segment, TreeStream
from cafs.model.span import Span
from cafs.store.store import Store, open_store
from cafs.store.tables.records import pack_segment, unpack_segment
from cafs.store.trees.mounts import new_key
from cafs.store.trees.tree_writing import BATCH, TreeWriter

TREE = TreeIdentity("ab" * 32)
ROOT_ENTRY = Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755)
STREAM = TreeStream(
    key=StreamKey("cd" * 32), size=100, raw=StreamKey("ef" * 32), part=0, rules="zip"
)
RICH = Entry(
    name=b"\xff\x00rich",
    parent=ROOT,
    kind=Kind.CHARACTER_DEVICE,
    mode=0o4755,
    uid=1 << 31,
    gid=7,
    mtime_ns=-(10**18),
    size=1 << 45,
    stream=3,
    offset=1 << 46,
    target=b"../\xfe",
    link=9,
    links=4,
    device=0x0501,
    xattrs=((b"user.a", b"\0"), (b"user.b", b"")),
    sparse=(Piece(0, 5), Piece(4096, 1)),
    sha256=bytes(range(32)),
)


def file(name: bytes, parent: int = ROOT, **fields: int) -> Entry:
    return Entry(name=name, parent=parent, kind=Kind.FILE, mode=0o644, **fields)  # type: ignore[arg-type]  # only integers are passed


def rooted(writer: TreeWriter) -> TreeWriter:
    assert writer.add(ROOT_ENTRY) == ROOT
    return writer


def drafts(store: Store) -> list[int]:
    return store.trees._tables.draft_numbers()


async def test_a_published_tree_is_found(store: Store) -> None:
    digest = digest_of(b"raw")
    with store.trees.writer(TREE) as writer:
        rooted(writer).add(file(b"a"))
        published = writer.publish((STREAM,), digest)
    found = store.trees.find(TREE)
    assert found == published
    assert (found.identity, found.count, found.streams) == (TREE, 2, (STREAM,))
    assert found.digest == digest
    assert drafts(store) == []


async def test_entries_come_back_as_they_were(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        number = rooted(writer).add(RICH)
        tree = writer.publish((), None).number
    assert store.trees.entry(tree, ROOT) == ROOT_ENTRY
    assert store.trees.entry(tree, number) == RICH
    assert store.trees.child(tree, ROOT, RICH.name) == number


async def test_what_is_not_there_says_so(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        tree = rooted(writer).publish((), None).number
    assert store.trees.find(TreeIdentity("00" * 32)) is None
    assert store.trees.child(tree, ROOT, b"a") is None
    assert store.trees.children(tree, ROOT, None, 10) == []
    for number in (1, 5000):
        with pytest.raises(KeyError):
            store.trees.entry(tree, number)
    with pytest.raises(KeyError):
        store.trees.entry(tree + 1, ROOT)


async def test_children_are_sorted_and_paged_by_the_last_child(store: Store) -> None:
    names = [b"b", b"a", b"\xff", b"B", b"aa", b"a.", b"\x01"]
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        directory = writer.add(replace(ROOT_ENTRY, name=b"d"))
        for name in names:
            writer.add(file(name, directory))
        writer.add(file(b"elsewhere"))
        tree = writer.publish((), None).number
    listed: list[bytes] = []
    after: int | None = None
    while page := store.trees.children(tree, directory, after, 2):
        assert len(page) <= 2
        listed += [entry.name for _, entry in page]
        after = page[-1][0]
    assert listed == sorted(names)


async def test_paging_behind_no_child_of_the_directory_is_a_key_error(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        directory = writer.add(replace(ROOT_ENTRY, name=b"d"))
        tree = writer.publish((), None).number
    for after in (directory, 99):
        with pytest.raises(KeyError):
            store.trees.children(tree, directory, after, 2)


async def test_directories_and_trees_do_not_mix(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        one = writer.add(replace(ROOT_ENTRY, name=b"one"))
        two = writer.add(replace(ROOT_ENTRY, name=b"two"))
        writer.add(file(b"a", one))
        first = writer.publish((), None).number
    with store.trees.writer(TreeIdentity("cd" * 32)) as writer:
        rooted(writer)
        second = writer.publish((), None).number
    assert store.trees.child(first, two, b"a") is None
    assert store.trees.children(first, two, None, 9) == []
    assert store.trees.children(second, ROOT, None, 9) == []


async def test_the_last_of_a_name_wins(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer).add(file(b"a", size=1))
        second = writer.add(file(b"a", size=2))
        tree = writer.publish((), None).number
    assert [number for number, _ in store.trees.children(tree, ROOT, None, 9)] == [second]


@pytest.mark.parametrize("flushed", [False, True])
async def test_a_writer_reads_what_it_wrote(store: Store, flushed: bool) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        number = writer.add(file(b"b"))
        writer.add(file(b"a"))
        writer.add(file(b"c"))
        if flushed:
            writer.flush()
        assert writer.count == 4
        assert writer.entry(number) == file(b"b")
        assert writer.child(ROOT, b"b") == number
        assert writer.child(ROOT, b"x") is None
        writer.replace(number, file(b"b", size=5))
        assert writer.entry(number).size == 5
        writer.unbind(ROOT, b"a")
        assert writer.child(ROOT, b"a") is None
        assert list(writer.children(ROOT)) == [(b"b", number), (b"c", 3)]
        assert writer.add(file(b"a")) == 4
        assert [name for name, _ in writer.children(ROOT)] == [b"a", b"b", b"c"]
        with pytest.raises(KeyError):
            writer.entry(17)
        tree = writer.publish((), None).number
    assert store.trees.entry(tree, number).size == 5


async def test_an_entry_keeps_its_one_name(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        number = rooted(writer).add(file(b"a"))
        with pytest.raises(ValueError, match="is b'a'"):
            writer.replace(number, file(b"b"))


async def test_names_are_at_most_255_bytes(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer).add(file(b"n" * 255))
        with pytest.raises(MalformedError, match="a name of 256 bytes"):
            writer.add(file(b"n" * 256))
        tree = writer.publish((), None).number
    assert store.trees.child(tree, ROOT, b"n" * 255) == 1


async def test_large_attributes_and_maps_do_not_wait_in_memory(store: Store) -> None:
    xattrs = ((b"user.large", bytes(1 << 20)),)
    sparse = tuple(Piece(2 * number, 1) for number in range(10_000))
    waiting = 0
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        for number in range(64):
            entry = file(b"%d" % number)
            odd = number % 2
            writer.add(replace(entry, xattrs=xattrs) if odd else replace(entry, sparse=sparse))
            waiting = max(waiting, len(writer._entries))
        writer.publish((), None)
    assert waiting <= 20
    found = store.trees.find(TREE)
    assert found is not None
    page = store.trees.children(found.number, ROOT, None, 100)
    assert len(page) == 64
    assert {(entry.xattrs, entry.sparse) for _, entry in page} == {(xattrs, None), ((), sparse)}


async def test_numbers_out_of_range_are_malformed(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer).add(file(b"huge", mtime_ns=1 << 70))
        with pytest.raises(MalformedError, match="huge"):
            writer.flush()


async def test_nothing_is_visible_before_it_is_published(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer).add(file(b"a"))
        writer.flush()
        assert store.trees.find(TREE) is None
        (tree,) = drafts(store)
        assert store.trees.entry(tree, 1) == file(b"a")
    assert store.trees.find(TREE) is None
    assert drafts(store) == []
    with pytest.raises(KeyError):
        store.trees.entry(tree, 1)


async def test_a_writer_that_fails_leaves_nothing(store: Store) -> None:
    def plant() -> None:
        with store.trees.writer(TREE) as writer:
            rooted(writer).add_segment(0, segment(0, 5))
            writer.flush()
            raise MalformedError("broken archive")

    with pytest.raises(MalformedError):
        plant()
    assert store.trees.find(TREE) is None
    with store.trees._index.read() as snapshot:
        for table in ("entries", "names", "segments", "drafts"):
            assert list(snapshot.scan(store.trees._index.table(table), b"", b"\xff" * 20)) == []


async def test_publishing_again_replaces_and_the_old_stays_readable(store: Store) -> None:
    numbers: list[int] = []
    for name in (b"old", b"new"):
        with store.trees.writer(TREE) as writer:
            rooted(writer).add(file(name))
            numbers.append(writer.publish((), None).number)
    found = store.trees.find(TREE)
    assert found is not None
    assert found.number == numbers[1]
    assert store.trees.child(numbers[0], ROOT, b"old") == 1


async def test_what_no_tree_needs_goes_when_the_store_is_opened_alone(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        tree = 0
        for name in (b"old", b"new"):
            with store.trees.writer(TREE) as writer:
                rooted(writer).add(file(name))
                tree = writer.publish((), None).number
        store.trees.writer(TREE).__enter__()
    async with open_store(tmp_path) as store:
        with trio.fail_after(60):
            while drafts(store):  # noqa: ASYNC110 - in the background, without an event
                await trio.sleep(0.01)
        assert store.trees.entry(tree, 1).name == b"new"
        with pytest.raises(KeyError):
            store.trees.entry(tree - 1, 1)


async def test_a_replaced_tree_stays_while_a_mount_may_show_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        numbers: list[int] = []
        for name in (b"shown", b"idle", b"new"):
            with store.trees.writer(TREE) as writer:
                rooted(writer).add(file(name))
                numbers.append(writer.publish((), None).number)
        mount = await store.mounts.open(new_key(), "test")
        await store.attachments.attach(mount, "ref/a/", count=2, tree=numbers[0])
    async with open_store(tmp_path) as store:  # the mount's next worker, alone with the store
        with trio.fail_after(60):
            while drafts(store) != [numbers[0]]:  # noqa: ASYNC110 - there is no event
                await trio.sleep(0.01)
        assert store.trees.entry(numbers[0], 1).name == b"shown"
        assert store.trees.entry(numbers[2], 1).name == b"new"


async def test_a_deleted_tree_is_not_found_but_readable_by_number(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        tree = rooted(writer).publish((), None).number
    await store.trees.delete(TREE)
    await store.trees.delete(TREE)
    assert store.trees.find(TREE) is None
    assert store.trees.entry(tree, ROOT) == ROOT_ENTRY
    assert drafts(store) == [tree]


def segment(start: int, length: int, *, crc32: int | None = None) -> Segment:
    return Segment(
        start=start,
        length=length,
        input_start=start * 2,
        input_length=0,
        codec="deflate",
        crc32=crc32,
    )


async def test_segments_are_found_by_any_byte_of_theirs(store: Store) -> None:
    segments = [segment(0, 10, crc32=0), segment(10, 5), segment(20, 1, crc32=0xFFFFFFFF)]
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        for each in segments:
            writer.add_segment(0, each)
        writer.add_segment(0, segment(20, 0))
        writer.add_segment(1, segment(0, 100))
        tree = writer.publish((), None).number
    at = [store.trees.segment_at(tree, 0, offset) for offset in (0, 9, 10, 14, 15, 19, 20, 21)]
    assert at == [*segments[:1] * 2, *segments[1:2] * 2, None, None, segments[2], None]
    assert store.trees.segment_at(tree + 1, 0, 0) is None
    assert store.trees.segment_at(tree, 2, 0) is None


@pytest.mark.parametrize(
    ("span", "starts"),
    [
        (Span(0, 0), []),
        (Span(0, 1), [0]),
        (Span(9, 11), [0, 10]),
        (Span(10, 20), [10]),
        (Span(15, 20), []),
        (Span(12, 30), [10, 20]),
        (Span(16, 21), [20]),
        (Span(21, 99), []),
    ],
)
async def test_segments_of_a_span(store: Store, span: Span, starts: list[int]) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer)
        for each in (segment(0, 10), segment(10, 5), segment(20, 1)):
            writer.add_segment(0, each)
        tree = writer.publish((), None).number
    some = [each.start for each in store.trees.segments(tree, 0, span, 1)]
    assert some == starts[:1]
    assert [each.start for each in store.trees.segments(tree, 0, span)] == starts


async def test_a_hundred_thousand_entries_are_written_and_listed(store: Store) -> None:
    count = 100_000

    def plant() -> int:
        with store.trees.writer(TREE) as writer:
            rooted(writer)
            for number in range(count):
                writer.add(file(b"%06d" % (number * 7919 % count), size=number))
                assert len(writer._entries) < BATCH
            return writer.publish((), None).number

    tree = await trio.to_thread.run_sync(plant)
    listed: list[bytes] = []
    after: int | None = None
    while page := store.trees.children(tree, ROOT, after, 1000):
        listed += [entry.name for _, entry in page]
        after = page[-1][0]
    assert listed == [b"%06d" % number for number in range(count)]


@pytest.mark.parametrize(
    "segment",
    [
        Segment(start=7, length=3, input_start=1, input_length=2, codec="deflate", crc32=0),
        Segment(start=7, length=3, input_start=1, input_length=2, codec="store", sha256=bytes(32)),
        Segment(start=7, length=3, input_start=1, input_length=2, codec="zstd", state=5, skip=9),
    ],
)
def test_a_segment_is_read_as_it_was_written(segment: Segment) -> None:
    assert unpack_segment(7, pack_segment(segment)) == segment


async def test_what_a_codec_must_have_before_a_segment_goes_with_the_tree(store: Store) -> None:
    with store.trees.writer(TREE) as writer:
        rooted(writer).add_segment(0, segment(0, 5), b"before")
        tree = writer.publish((), None).number
    assert store.trees.window(tree, 0, 0) == b"before"
    assert store.trees.window(tree, 0, 1) == b""
    store.trees._tables.purge(tree, 100)
    assert store.trees.window(tree, 0, 0) == b""
