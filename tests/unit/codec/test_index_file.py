"""Index files: what was written is read, and what no pass could have made is refused by name."""

import os
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import msgspec
import pytest
import zstandard

from cafs.codec import index_writing, windows
from cafs.codec.index_file import (
    COMPRESSIONS,
    ENTRIES as PAGE,
    HASHED,
    HEADER as HEADER_BYTES,
    PIECE,
    PLACED,
    SEGMENTS as SEGMENT_PAGE,
    UNBOUND,
    UNPACKED,
    WEIGHT,
    Header,
)
from cafs.codec.index_pieces import what_it_says
from cafs.codec.index_reading import IndexReader
from cafs.errors import MalformedError, UnsupportedError
from cafs.model.digest import Digest, digest_of
from cafs.model.limits import Limits
from cafs.model.member import Entry, Kind
from cafs.model.record import Segment
from tests.indexed import (
    A_DIGEST,
    BLOB,
    ENTRIES,
    HEADER,
    ROOT_ENTRY,
    SEGMENTS,
    WINDOWS,
    Craft,
    listed,
    piece,
    reader,
    written,
)

DOCUMENT = Path(__file__).parents[3] / "docs" / "formats.md"
VERSION_AT = (8, 9)
RECORD = replace(HEADER, mark="+members")
ZIPPED = Header(
    blob=BLOB, size=1000, decoded=8192, compression="zip", mark="", entries=0, segments=0
)


def said(data: bytes) -> Digest:
    return what_it_says(BytesIO(data).read, len(data), name="index", unpack=windows.unpack)


def test_what_was_written_is_read() -> None:
    header, entries, segments = listed(written(ENTRIES))
    assert header == replace(HEADER, entries=len(ENTRIES), segments=2)
    assert entries == ENTRIES
    assert segments == list(zip(SEGMENTS, WINDOWS, strict=True))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_index_says_what_the_blob_is(compression: str) -> None:
    codec = {"none": "store", "zip": "deflate"}.get(compression, compression)
    whole = Segment(
        start=0, length=1000, input_start=0, input_length=1000, codec=codec, sha256=A_DIGEST
    )
    end = 1000 if compression != "zip" else 1030
    header = replace(HEADER, compression=compression, size=end, decoded=1000)
    data = written([(ROOT_ENTRY, True)], [whole], [b""], header)
    assert listed(data)[0].compression == compression
    assert listed(data)[2] == [(whole, b"")]


def test_an_archive_without_a_byte_of_content_has_no_segments() -> None:
    header = replace(ZIPPED, decoded=0)
    assert listed(written([(ROOT_ENTRY, True)], [], [], header))[2] == []


def test_members_of_a_zip_lie_in_any_order_with_their_checksums() -> None:
    parts = [
        Segment(
            start=0, length=8000, input_start=500, input_length=9, codec="deflate", crc32=7,
            sha256=A_DIGEST,
        ),
        Segment(
            start=8000, length=192, input_start=100, input_length=192, codec="store", crc32=0,
            sha256=A_DIGEST,
        ),
    ]  # fmt: skip
    text = Entry(name=b"link", parent=0, kind=Kind.SYMLINK, mode=0o777, size=192, offset=8000)
    data = written([(ROOT_ENTRY, True), (text, True)], parts, [b"", b""], ZIPPED)
    assert listed(data)[1][1] == (text, True)
    assert [part for part, _ in listed(data)[2]] == parts


def test_a_record_has_what_is_no_directory_for_a_parent_and_links_by_path() -> None:
    entries = [
        (msgspec.structs.replace(ROOT_ENTRY, links=0), True),
        (Entry(name=b"a", parent=0, kind=Kind.FILE, mode=0, offset=512, size=3), False),
        (Entry(name=b"b", parent=1, kind=Kind.HARD_LINK, mode=0, target=b"a", offset=1536), True),
        (Entry(name=b"a", parent=0, kind=Kind.SYMLINK, mode=0, target=b"", offset=2048), True),
    ]
    assert listed(written(entries, header=RECORD))[1] == entries


def test_pages_end_by_number_and_by_weight() -> None:
    small = [
        (Entry(name=b"%d" % n, parent=0, kind=Kind.FILE, mode=0), True) for n in range(PAGE + 7)
    ]
    heavy = [
        (msgspec.structs.replace(entry, xattrs=((b"user.x", bytes(WEIGHT // 2)),)), True)
        for entry, _ in small[:5]
    ]
    entries = [(ROOT_ENTRY, True), *small[5:], *heavy]
    data = written(entries)
    assert [len(page.rows) for page in reader(data).entries()] == [PAGE, 5, 2, 1]
    assert listed(data)[1] == entries


def test_segments_come_in_pages() -> None:
    count = 2 * SEGMENT_PAGE + 1
    parts = [
        Segment(start=at, length=1, input_start=at, input_length=1, codec="store", sha256=A_DIGEST)
        for at in range(count)
    ]
    header = replace(HEADER, compression="none", size=count, decoded=count)
    data = written([(ROOT_ENTRY, True)], parts, [b""] * count, header)
    assert [part for part, _ in listed(data)[2]] == parts


def test_an_entry_takes_few_bytes_beside_its_digest() -> None:
    entries = [(ROOT_ENTRY, True)]
    at = 512
    for number in range(1, 20_000):
        entry = Entry(
            name=b"module_%d.py" % number, parent=0, kind=Kind.FILE, mode=0o644, size=number % 977,
            offset=at, mtime_ns=10**18, sha256=os.urandom(32),
        )  # fmt: skip
        entries.append((entry, True))
        at += 512 + (entry.size + 511) // 512 * 512
    whole = msgspec.structs.replace(SEGMENTS[0], length=at, input_length=at // 5)
    header = replace(HEADER, size=at // 5, decoded=at)
    assert len(written(entries, [whole], [b""], header)) < 40 * len(entries)


def test_two_versions_of_zstd_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    window = os.urandom(99) + bytes(9999)
    first = written(ENTRIES, windows=[b"", zstandard.compress(window, 1)])
    monkeypatch.setattr(index_writing, "_LEVEL", 1)
    second = written(ENTRIES, windows=[b"", zstandard.compress(window, 19)])
    assert first != second
    assert said(first) == said(second)
    other = written(
        [*ENTRIES[:-1], (msgspec.structs.replace(ENTRIES[-1][0], mode=0o601), True)],
        windows=WINDOWS,
    )
    assert said(written(ENTRIES, windows=[b"", b""])) != said(first)
    with pytest.raises(MalformedError):
        said(other)  # whose window is no window


def test_the_example_in_the_documents_is_an_index() -> None:
    block = DOCUMENT.read_text().partition("<!-- golden: index -->\n```\n")[2].partition("```")[0]
    rows = re.findall(r"^([0-9a-f ]+?)(?:   .*)?$", block, re.MULTILINE)
    data = bytes.fromhex("".join(rows))
    header, entries, segments = listed(data)
    assert header == replace(HEADER, size=345, decoded=2560, entries=3, segments=1)
    assert [(entry.name, entry.kind, bound) for entry, bound in entries] == [
        (b"", Kind.DIRECTORY, True),
        (b"bin", Kind.DIRECTORY, True),
        (b"true", Kind.FILE, True),
    ]
    assert (entries[2][0].parent, entries[2][0].size, entries[2][0].offset) == (1, 7, 1024)
    assert entries[2][0].sha256 == digest_of(b"content").raw
    whole = Segment(
        start=0, length=2560, input_start=0, input_length=345, codec="gzip", sha256=bytes(range(32))
    )
    assert segments == [(whole, b"")]
    # Another zstd may pack it otherwise; what it says is the same.
    assert said(written(entries, [whole], [b""], header)) == said(data)


def test_an_index_of_another_version_is_not_read() -> None:
    data = bytearray(written(ENTRIES))
    data[8] += 1
    with pytest.raises(UnsupportedError, match="version 2"):
        reader(bytes(data))


@pytest.mark.parametrize(
    "segment",
    [
        msgspec.structs.replace(SEGMENTS[0], codec="method-97"),
        msgspec.structs.replace(SEGMENTS[0], skip=1),
        msgspec.structs.replace(SEGMENTS[0], sha256=b""),
    ],
)
def test_what_an_index_cannot_say_is_not_written(segment: Segment) -> None:
    with pytest.raises(UnsupportedError, match="test: a segment at 0"):
        written(ENTRIES, [segment], [b""])
    with pytest.raises(UnsupportedError, match="one stream"):
        written([(msgspec.structs.replace(ROOT_ENTRY, stream=1), True)])


def test_no_index_is_cut_short_or_longer_without_being_refused() -> None:
    data = written(ENTRIES)
    for length in range(len(data)):
        with pytest.raises(MalformedError, match=r"^index: "):
            listed(data[:length])
    for more in (b"\0", data):
        with pytest.raises(MalformedError, match="behind its end"):
            listed(data + more)


def test_a_flipped_byte_is_refused_or_makes_another_tree_that_can_be() -> None:
    data = written(ENTRIES)
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            flipped = bytearray(data)
            flipped[at] ^= mask
            try:
                header, entries, segments = listed(bytes(flipped))
            except MalformedError:
                continue
            except UnsupportedError:
                assert at in VERSION_AT
                continue
            assert all(entry.parent < n for n, (entry, _) in enumerate(entries) if n)
            assert sum(segment.length for segment, _ in segments) == header.decoded


def crafted(**header: object) -> Craft:
    return Craft(header=replace(HEADER, **header))  # type: ignore[arg-type]  # of its fields


def nested(depth: int, *, name: bytes = b"d", **header: object) -> Craft:
    """Directories, each in the one before."""
    one = crafted(**header)
    for number in range(depth):
        one.add(name, shapes=Kind.DIRECTORY, parents=min(number, 1))
    return one


def holed(*maps: list[int]) -> Craft:
    """Files of holes and data by turns."""
    one = crafted()
    for number, lengths in enumerate(maps, 1):
        one.add(b"%d" % number, sizes=1 << 40)
        one.entries.others.append((number, (), lengths))
    return one


def attributed(attribute: tuple[bytes, bytes]) -> Craft:
    """A file with one attribute again and again."""
    one = crafted().add(b"a")
    one.entries.others.append((1, (attribute,) * ((1 << 16) + 1), None))
    return one


LINK = Kind.HARD_LINK
WRONG = {
    "a name": [
        crafted().add(b""),
        crafted().add(b"."),
        crafted().add(b".."),
        crafted().add(b"a/b"),
        crafted().add(b"a\0"),
        crafted().add(b"x" * 256),
    ],
    "its parent does not come before": [
        crafted().add(b"a", parents=1),
        crafted().add(b"a", parents=-1),
        crafted().add(b"a", parents=2),
        crafted().add(b"a").add(b"b", parents=1 << 62).add(b"c", parents=1 << 62),
        crafted(mark="+members").add(b"a", parents=1),
    ],
    "below what is no directory": [crafted().add(b"a").add(b"b", parents=1)],
    "a path of": [nested(257), nested(257, mark="+members"), nested(17, name=b"x" * 255)],
    "attributes of": [
        holed([1, 1] * (1 << 17) + [1, 1]),
        holed(*[[1, 1] * (1 << 17)] * 6),
        attributed((b"", b"")),
        attributed((b"user.x", bytes(64))),
    ],
    "no root": [
        Craft(entries=msgspec.structs.replace(Craft().entries, shapes=bytes([Kind.FILE]))),
        Craft(entries=msgspec.structs.replace(Craft().entries, shapes=bytes([1 | UNBOUND]))),
        Craft(entries=msgspec.structs.replace(Craft().entries, names=[b"a"])),
        Craft(entries=msgspec.structs.replace(Craft().entries, parents=[1])),
    ],
    "a kind that there is not": [
        crafted().add(b"a", shapes=0),
        crafted().add(b"a", shapes=0x42),
        crafted().add(b"a", shapes=HASHED),
    ],
    "a link to what is not there": [
        crafted().add(b"a", shapes=LINK),
        crafted().add(b"a", shapes=LINK, linked=1),
        crafted().add(b"a", shapes=LINK, linked=2).add(b"b"),
        crafted().add(b"a", shapes=Kind.DIRECTORY).add(b"b", shapes=LINK, linked=1),
        crafted().add(b"a").add(b"b", shapes=LINK, linked=1).add(b"c", shapes=LINK, linked=2),
        crafted().add(b"a").add(b"b", shapes=LINK, linked=1, targets=b"a"),
        crafted().add(b"a").add(b"b", linked=1),
        crafted().add(b"a", targets=b"b"),
        crafted().add(b"a", shapes=Kind.DIRECTORY, targets=b"b"),
        crafted().add(b"a", shapes=Kind.SYMLINK),
        crafted().add(b"a", shapes=Kind.SYMLINK, targets=b""),
        crafted().add(b"a", shapes=Kind.SYMLINK, targets=b"a\0b"),
        crafted().add(b"a", shapes=Kind.SYMLINK, targets=b"a" * 4097),
        crafted().add(b"a", shapes=Kind.SYMLINK, sizes=4097),
        crafted(mark="+members").add(b"a").add(b"b", shapes=LINK, linked=1),
        crafted(mark="+members").add(b"a", shapes=LINK),
    ],
    "content lies beyond": [
        crafted().add(b"a", sizes=8193),
        crafted().add(b"a", sizes=(1 << 63) - 1),
        crafted().add(b"a", sizes=1, shapes=2 | PLACED, gaps=8192),
        crafted().add(b"a", shapes=2 | PLACED, gaps=-1),
        crafted().add(b"a", shapes=2 | PLACED, gaps=(1 << 63) - 1),
        crafted().add(b"a", shapes=Kind.SYMLINK | PLACED, sizes=100, gaps=8100),
    ],
    "entries that cannot be read": [
        crafted().add(b"a", sizes=-1),
        crafted().add(b"a", sizes=1 << 63),
        crafted().add(b"a", modes=0o10000),
        crafted().add(b"a", modes=-1),
        crafted().add(b"a", uids=1 << 32),
        crafted().add(b"a", links=-1),
        crafted().add(b"a", nanos=1_000_000_000),
        crafted().add(b"a", devices=-1),
        crafted().add(b"a", names="text"),
    ],
    "a time beyond": [
        crafted().add(b"a", seconds=(1 << 33) + (1 << 30)),
        crafted().add(b"a", seconds=-(1 << 33) - (1 << 30)),
    ],
    "digest": [
        crafted().add(b"a", shapes=2 | HASHED, sizes=1),
        Craft(digests=bytes(32)).add(b"a"),
        Craft(digests=bytes(32)).add(b"a", shapes=2 | HASHED),
        Craft(sums=bytes(32)),
    ],
    "columns of different lengths": [
        Craft(entries=msgspec.structs.replace(Craft().entries, names=[b"", b"a"])),
        Craft(entries=msgspec.structs.replace(Craft().entries, targets=[])),
        Craft(segments=msgspec.structs.replace(Craft().segments, inputs=[1])),
    ],
    "a codec that is not": [
        Craft(segments=msgspec.structs.replace(Craft().segments, codecs=b"\x01\x03")),
        Craft(segments=msgspec.structs.replace(Craft().segments, codecs=b"\x01\xff")),
        crafted(compression="zstd"),
    ],
    "a state": [
        Craft(segments=msgspec.structs.replace(Craft().segments, states=[1, 0])),
        Craft(segments=msgspec.structs.replace(Craft().segments, states=[0, 8])),
    ],
    "decoded bytes": [
        Craft(segments=msgspec.structs.replace(Craft().segments, lengths=[0, 8192])),
        Craft(segments=msgspec.structs.replace(Craft().segments, lengths=[5000, 3193])),
        Craft(segments=msgspec.structs.replace(Craft().segments, lengths=[(1 << 63) - 1, 1])),
    ],
    "segments of": [
        Craft(segments=msgspec.structs.replace(Craft().segments, lengths=[5000, 3191])),
        crafted(decoded=8193),
    ],
    "input lies before": [
        Craft(segments=msgspec.structs.replace(Craft().segments, gaps=[-1, 0])),
        Craft(segments=msgspec.structs.replace(Craft().segments, gaps=[0, -2])),
    ],
    "input reaches beyond": [
        Craft(segments=msgspec.structs.replace(Craft().segments, inputs=[600, 402])),
        Craft(segments=msgspec.structs.replace(Craft().segments, inputs=[600, 0])),
        Craft(segments=msgspec.structs.replace(Craft().segments, gaps=[0, 1 << 62])),
    ],
    "a window where": [Craft(windows=(b"window", b""))],
    "ends in a window": [Craft(windows=(b"",))],
    "decode to": [crafted(decoded=1 << 41), crafted(decoded=(1 << 27) + 8192, size=1)],
    "a layer that is a zip": [crafted(compression="zip", mark="+members")],
    "a file that is an archive": [
        crafted(mark="+file"),
        crafted(compression="none", size=8192, mark="+file").add(b"a"),
    ],
    "plain bytes of two": [crafted(compression="none")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "craft"),
    [
        pytest.param(what, craft, id=f"{what}-{number}")
        for what, crafts in WRONG.items()
        for number, craft in enumerate(crafts)
    ],
)
def test_what_no_pass_makes_is_refused(what: str, craft: Craft) -> None:
    with pytest.raises(MalformedError, match=f"^index: .*{what.removeprefix('a name')}"):
        listed(craft.bytes())


def test_what_is_crafted_without_a_lie_is_read() -> None:
    listed(Craft().bytes())
    listed(crafted().add(b"a").add(b"b", shapes=LINK, linked=1).bytes())


OTHERS = [
    [(2, (), None)],
    [(1, (), None), (1, (), None)],
    [(0, (), [])],
    [(1, (), [1])],
    [(1, (), [0, 0])],
    [(1, (), [0, 10, 0, 11])],
    [(1, (), [11, 10])],
    [(1, (), [1 << 62, 1 << 62, 1 << 62, 1 << 62])],
    [(1, ((b"user.a\0security.b", b""),), None)],
]


@pytest.mark.parametrize("others", OTHERS, ids=repr)
def test_attributes_and_maps_of_nothing_that_can_be_are_refused(others: list[object]) -> None:
    craft = crafted().add(b"a", sizes=20)
    craft.entries.others = others  # type: ignore[assignment]  # wrong ones
    with pytest.raises(MalformedError, match=r"^index: entry "):
        listed(craft.bytes())


@pytest.mark.parametrize("header", [HEADER, RECORD])
def test_paths_stay_within_limits(header: Header) -> None:
    """Else ten thousand nested names would be put together to paths again, each longer."""
    deep = [
        (msgspec.structs.replace(ROOT_ENTRY, name=b"d" * 200, parent=at), True) for at in range(5)
    ]
    entries = [(ROOT_ENTRY, True), *deep]
    assert listed(written(entries, header=header))[1] == entries
    for limits in (Limits(depth=4), Limits(path_bytes=1000)):
        with pytest.raises(MalformedError, match="entry 5: a path of 1005 bytes"):
            listed(written(entries, header=header), limits)
    listed(written(entries, header=header), Limits(depth=5, path_bytes=1004))


def test_more_entries_than_are_allowed_are_refused_before_they_are_read() -> None:
    data = written(ENTRIES)
    listed(data, Limits(members=len(ENTRIES)))
    with pytest.raises(MalformedError, match="9 entries, 8 are allowed"):
        reader(data, Limits(members=8))


@pytest.mark.parametrize(("entries", "segments"), [(1 << 20, 2), (9, 1 << 20), (0, 2)])
def test_promises_that_so_small_a_file_cannot_keep_are_refused(entries: int, segments: int) -> None:
    header = replace(HEADER, entries=entries, segments=segments)
    data = header.pack() + written(ENTRIES)[HEADER_BYTES:]
    with pytest.raises(MalformedError):
        reader(data)


BOMB = zstandard.ZstdCompressor(level=1, write_content_size=True).compress(bytes(UNPACKED + 1))


@pytest.mark.parametrize(
    "page",
    [
        piece(1, bytes(UNPACKED + 1), b""),
        piece(1, b"\x90" * 100, b"", unpacked=99),
        PIECE.pack(1, 0, len(BOMB), 100) + BOMB,
        PIECE.pack(1, 0, 0, 0),
        piece(1, b"\x90", b"", packed=5),
        piece(0, b"\x90", b""),
        piece(2, b"\x90", b""),
        piece(1, b"\x90", bytes(64)),
        piece(1, b"\xdd\xff\xff\xff\xff", b""),
        PIECE.pack(1, 0, 100, 100) + bytes(100),
    ],
)
def test_pages_that_unpack_to_something_else_are_refused(page: bytes) -> None:
    header = replace(HEADER, entries=1, segments=0).pack()
    with pytest.raises(MalformedError, match=r"^index: "):
        listed(header + page)


def test_a_page_is_not_taken_into_memory_that_is_larger_than_what_is_in_it() -> None:
    """An index may have 512 MiB, and so might one page of it."""
    page = PIECE.pack(1, 0, 64 << 20, 100) + bytes(64 << 20)
    data = replace(HEADER, entries=1, segments=0).pack() + page
    source = BytesIO(data)
    index = IndexReader(source.read, len(data), name="index")
    with pytest.raises(MalformedError, match="67108864 bytes that would be no more than 100"):
        list(index.entries())
    assert source.tell() < 1 << 20


@pytest.mark.parametrize("size", [1, 100, 4096, 1 << 17, (1 << 20) + 1, UNPACKED])
def test_columns_that_do_not_shrink_fit_their_page(size: int) -> None:
    page = piece(1, os.urandom(size), b"")
    with pytest.raises(MalformedError, match="entries that cannot be read"):
        listed(replace(HEADER, entries=1, segments=0).pack() + page)


def test_an_index_that_unpacks_to_too_much_is_refused() -> None:
    files = [Entry(name=b"%d" % n, parent=0, kind=Kind.FILE, mode=0) for n in range(2000)]
    data = written([(ROOT_ENTRY, True), *((file, True) for file in files)])
    listed(data)
    with pytest.raises(MalformedError, match="bytes that would be"):
        listed(data, Limits(free_bytes=8192, ratio=0))
