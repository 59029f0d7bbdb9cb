"""Tables of contents: what they say of a layer, and what is refused in them."""

import hashlib
import json
import os
import re
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import msgspec
import pytest

from cafs.codec import estargz, toc_entries as toc, toc_members, zstd_chunked
from cafs.codec.decoding import decoder
from cafs.codec.segments import decode
from cafs.codec.sniffing import Compression
from cafs.codec.toc_entries import toc_entries
from cafs.errors import CafsError, MalformedError, UnsupportedError
from cafs.model.digest import digest_of
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member, Piece
from cafs.model.record import Segment
from cafs.model.resolved import Contents
from cafs.testing import tabled
from cafs.testing.archives import MTIME, Item, directory, file, hard_link, symlink
from cafs.testing.tabled import Table, Tabled

LARGE = b"".join(number.to_bytes(4, "big") for number in range(50_000))
HOLEY = b"begin" + bytes(250_000) + b"end"
ITEMS = (
    directory("./"),
    directory("./bin", 0o2755),
    Item("./bin/tool", b"tool", mode=0o4755, uid=1000, gid=2000, mtime=MTIME + 0.25),
    file("./bin/large", LARGE),
    file("./empty"),
    file("./bin/holey", HOLEY),
    symlink("./bin/link", "tool"),
    hard_link("./again", "./bin/tool"),
    Item("./null", kind=tarfile.CHRTYPE, device=(1, 3)),
    Item("./disk", kind=tarfile.BLKTYPE, device=(8, 0)),
    Item("./pipe", kind=tarfile.FIFOTYPE),
    file("./.wh.gone"),
    Item("./marked", b"x", pax=(("SCHILY.xattr.user.note", "kept"),)),
)
FILES = {one.path.encode(): one.content for one in ITEMS if one.kind == tarfile.REGTYPE}


@dataclass
class Taken:
    """What a table has said."""

    members: list[Member] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    size: int = 0

    def member(self, member: Member) -> None:
        """Take a member."""
        self.members.append(member)

    def segment(self, segment: Segment) -> None:
        """Take a segment."""
        self.segments.append(segment)

    def content(self, layer: bytes, member: Member) -> bytes:
        """A file, out of the segments that it lies in."""
        stream = b"".join(
            decoded(layer, one) for one in sorted(self.segments, key=lambda one: one.start)
        )
        if member.sparse is None:
            return stream[member.offset :][: member.size]
        found = bytearray(member.size)
        at = member.offset
        for piece in member.sparse:
            found[piece.offset : piece.offset + piece.length] = stream[at:][: piece.length]
            at += piece.length
        return bytes(found)


def decoded(layer: bytes, segment: Segment) -> bytes:
    """What a segment decodes to, which must have its digest."""
    data = b"".join(decode(segment, lambda at, size: layer[at : at + size], b"", name="layer"))
    assert hashlib.sha256(data).digest() == segment.sha256
    return data


def read(layer: Tabled, limits: Limits | None = None) -> Taken:
    """What the table in a layer says."""
    limits, taken = limits or Limits(), Taken()
    if layer.media_type.endswith("gzip"):
        start = estargz.table_start(layer.data[-estargz.FOOTER :])
        assert start == layer.start
        packed = BytesIO(layer.data[start : -estargz.FOOTER])
        text = estargz.TableText(packed.read, name="layer", limits=limits)
        taken.size = estargz.read_table(text.read, taken, start=start, name="layer", limits=limits)
    else:
        contents = zstd_chunked.announced(layer.annotations)
        assert contents is not None
        packed = BytesIO(layer.data[contents.start :][: contents.length])
        json_text = decoder(Compression.ZSTD, packed.read, "table")
        taken.size = zstd_chunked.read_table(
            json_text.read, taken, start=contents.start, name="layer", limits=limits
        )
    return taken


LAYERS: dict[str, Callable[..., Tabled]] = {
    "estargz": lambda items=ITEMS, **more: tabled.estargz(items, chunk=60_000, **more),
    "shared members": lambda items=ITEMS, **more: tabled.estargz(
        items, chunk=60_000, together=100_000, **more
    ),
    "zstd:chunked": lambda items=ITEMS, **more: tabled.zstd_chunked(items, **more),
}
made = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


@made
def test_every_file_is_what_its_chunks_decode_to(make: Callable[..., Tabled]) -> None:
    layer = make()
    taken = read(layer)
    files = {one.path: taken.content(layer.data, one) for one in taken.members if one.size}
    assert files == {path: content for path, content in FILES.items() if content}
    assert sum(one.length for one in taken.segments) == taken.size


@made
def test_members_are_what_the_tar_says(make: Callable[..., Tabled]) -> None:
    taken = read(make())
    found = {one.path.rstrip(b"/"): one for one in taken.members}
    assert [one.path.rstrip(b"/") for one in taken.members] == [
        one.path.rstrip("/").encode() for one in ITEMS
    ]
    tool = found[b"./bin/tool"]
    assert (tool.mode, tool.uid, tool.gid, tool.size) == (0o4755, 1000, 2000, 4)
    assert (found[b"./bin"].kind, found[b"./bin"].mode) == (Kind.DIRECTORY, 0o2755)
    assert (found[b"./bin/link"].kind, found[b"./bin/link"].target) == (Kind.SYMLINK, b"tool")
    again = found[b"./again"]
    assert (again.kind, again.target, again.size) == (Kind.HARD_LINK, b"./bin/tool", 0)
    assert (found[b"./null"].kind, found[b"./null"].device) == (
        Kind.CHARACTER_DEVICE,
        os.makedev(1, 3),
    )
    assert found[b"./disk"].kind is Kind.BLOCK_DEVICE
    assert found[b"./pipe"].kind is Kind.FIFO
    assert found[b"./marked"].xattrs == ((b"user.note", b"kept"),)
    assert found[b"./.wh.gone"].kind is Kind.FILE
    assert found[b"./empty"].mtime_ns == MTIME * 10**9
    assert not any(one.sha256 for one in taken.members), "nobody here has hashed them"


def test_times_have_the_fractions_that_a_table_has() -> None:
    mtime = {
        kind: {one.path: one.mtime_ns for one in read(make()).members}[b"./bin/tool"]
        for kind, make in LAYERS.items()
    }
    assert mtime["zstd:chunked"] == MTIME * 10**9 + 250_000_000
    assert mtime["estargz"] == MTIME * 10**9


def test_chunks_that_share_a_gzip_member_begin_inside_it() -> None:
    alone, shared = read(LAYERS["estargz"]()), read(LAYERS["shared members"]())
    assert not any(one.skip for one in alone.segments)
    assert any(one.skip for one in shared.segments)
    places = {(one.input_start, one.input_length) for one in shared.segments}
    assert len(places) < len(shared.segments)


def test_chunks_of_zeros_are_holes() -> None:
    holey = {one.path: one for one in read(LAYERS["zstd:chunked"]()).members}[b"./bin/holey"]
    assert holey.sparse == (Piece(0, 65536), Piece(3 * 65536, len(HOLEY) - 3 * 65536))


def test_a_file_of_zeros_alone_has_no_content() -> None:
    taken = read(tabled.zstd_chunked([file("zeros", bytes(200_000)), file("more", "x")]))
    assert [(one.path, one.sparse, one.offset) for one in taken.members] == [
        (b"zeros", (), 0),
        (b"more", None, 0),
    ]


def test_what_estargz_adds_to_a_layer_is_not_shown() -> None:
    items = [file(".prefetch.landmark", "x"), file("a/.prefetch.landmark", "own")]
    layer = tabled.estargz([*items, file("./stargz.index.json", "y")])
    assert [one["name"] for one in layer.table["entries"]][:2] == [
        ".no.prefetch.landmark",
        ".prefetch.landmark",
    ]
    taken = read(layer)
    assert [one.path for one in taken.members] == [b"a/.prefetch.landmark"]
    assert taken.content(layer.data, taken.members[0]) == b"own"
    assert taken.size == 3


@made
def test_the_last_of_a_name_comes_last(make: Callable[..., Tabled]) -> None:
    layer = make([file("a", "first"), file("a", "second")])
    taken = read(layer)
    assert [taken.content(layer.data, one) for one in taken.members] == [b"first", b"second"]


@made
def test_a_layer_without_members_has_an_empty_table(make: Callable[..., Tabled]) -> None:
    assert read(make([])).members == []
    assert read(make([], edit=lambda table: table.update(entries=None))).members == []


def _entry(table: Table, name: str, kind: str = "") -> Table:
    found: Table = next(
        one
        for one in table["entries"]
        if one["name"].strip("./") == name and kind in {"", one["type"]}
    )
    return found


def _without(name: str, *keys: str, kind: str = "") -> Callable[[Table], object]:
    def edit(table: Table) -> None:
        for key in keys:
            _entry(table, name, kind).pop(key, None)

    return edit


def _with(which: str, kind: str = "", **values: object) -> Callable[[Table], object]:
    return lambda table: _entry(table, which, kind).update(values)


def _swapped(table: Table) -> None:
    large = [one for one in table["entries"] if one["name"].endswith("large")]
    first, second = large[1], large[2]
    first["offset"], second["offset"] = second["offset"], first["offset"]


def _orphan(table: Table) -> None:
    table["entries"].insert(0, {"name": "x", "type": "chunk", "offset": 5, "chunkSize": 5})


def _one_too_many(table: Table) -> None:
    last = [one for one in table["entries"] if one["name"].endswith("large")][-1]
    place = table["entries"].index(last)
    table["entries"].insert(place + 1, dict(last))


MALFORMED: dict[str, Callable[[Table], object]] = {
    "a chunk behind the end": _with("marked", offset=1 << 40, endOffset=(1 << 40) + 9),
    "a chunk at 2^63 - 1": _with("bin/tool", offset=(1 << 63) - 1),
    "an offset of 2^64": _with("bin/tool", offset=1 << 64),
    "an offset below 0": _with("bin/tool", offset=-1),
    "a size of 2^63 - 1": _with("bin/tool", size=(1 << 63) - 1),
    "a size of 2^70": _with("bin/tool", size=1 << 70),
    "a file smaller than its chunks": _with("bin/large", size=100, kind="reg"),
    "chunks that change places": _swapped,
    "a chunk that stands twice": _one_too_many,
    "a chunk that begins elsewhere": _with("bin/large", kind="chunk", chunkOffset=7),
    "a chunk larger than its file": _with("bin/large", kind="reg", chunkSize=1 << 50),
    "a chunk of no file": _orphan,
    "a digest that is cut off": _with("bin/tool", digest="sha256:00", chunkDigest="sha256:00"),
    "a digest that is no hex": _with("bin/tool", chunkDigest=f"sha256:{'g' * 64}"),
    "a link to nothing": _without("bin/link", "linkName"),
    "an attribute that is no base64": _with("marked", xattrs={"user.a": "*"}),
    "a time that is none": _with("bin/tool", modtime="yesterday"),
    "a time without a zone": _with("bin/tool", modtime="2020-01-01T00:00:00"),
    "a device that cannot be": _with("null", devMajor=1 << 40),
    "a name that is a number": _with("bin/tool", name=5),
    "half a surrogate in a name": _with("bin/tool", name="\ud800"),
    "an entry without a name": _without("bin/tool", "name"),
    "objects in objects": _with("marked", more={"a": {"b": {"c": {}}}}),
}


def test_a_file_larger_than_its_chunks_is_refused() -> None:
    larger = _with("bin/large", size=len(LARGE) + 1, kind="reg")
    with pytest.raises(MalformedError, match=r"its chunks have 200000 of 200001 bytes"):
        read(tabled.zstd_chunked(ITEMS, edit=larger))
    # The last chunk of eStargz has what the others leave; then it does not decode to so much.
    layer = tabled.estargz(ITEMS, edit=larger)
    last = next(one for one in read(layer).segments if one.length == len(LARGE) + 1)
    with pytest.raises((MalformedError, AssertionError)):
        decoded(layer.data, last)


UNSUPPORTED: dict[str, Callable[[Table], object]] = {
    "a chunk without a digest": _without("bin/tool", "digest", "chunkDigest"),
    "a chunk of many without one": _without("bin/large", "chunkDigest", kind="chunk"),
    "a digest of another kind": _with("bin/tool", chunkDigest=f"sha512:{'0' * 128}"),
    "an entry of another type": _with("pipe", type="socket"),
    "a chunk of another type": _with("bin/tool", chunkType="lzma"),
    "a name that JSON cannot spell": _with("bin/tool", name="caf\N{REPLACEMENT CHARACTER}"),
    "another version": lambda table: table.update(version=2),
}


@made
@pytest.mark.parametrize("edit", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_makes_no_sense_is_refused(
    make: Callable[..., Tabled], edit: Callable[[Table], object]
) -> None:
    with pytest.raises(MalformedError):
        read(make(edit=edit))


@made
@pytest.mark.parametrize("edit", UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_does_not_do_is_said_to(
    make: Callable[..., Tabled], edit: Callable[[Table], object]
) -> None:
    with pytest.raises(UnsupportedError):
        read(make(edit=edit))


LONG = "x" * 100_000
PREFIX = zstd_chunked.PREFIXES[0]


@pytest.mark.parametrize(
    "edit",
    [
        _with("bin/tool", modtime=LONG),
        _with("bin/tool", chunkDigest=f"sha256:{LONG}"),
        _with("bin/tool", chunkType=LONG),
        _with("bin/tool", type=LONG),
        _with("null", name=LONG, devMajor=LONG),
    ],
)
def test_an_error_shows_little_of_a_long_text(edit: Callable[[Table], object]) -> None:
    with pytest.raises((MalformedError, UnsupportedError)) as caught:
        read(tabled.estargz(ITEMS, edit=edit))
    assert len(caught.value.line) < 1000


def test_an_error_shows_little_of_long_annotations() -> None:
    for codec, said in (
        (estargz, {estargz.ANNOTATION: LONG}),
        (
            zstd_chunked,
            {PREFIX + zstd_chunked.POSITION: LONG, PREFIX + zstd_chunked.CHECKSUM: LONG},
        ),
        (
            zstd_chunked,
            {PREFIX + zstd_chunked.POSITION: "1:1:1:1", PREFIX + zstd_chunked.CHECKSUM: LONG},
        ),
    ):
        with pytest.raises(UnsupportedError) as caught:
            codec.announced(said)
        assert len(caught.value.line) < 1000


def test_many_chunks_at_one_place_are_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toc_members, "_TOGETHER", 100)

    def edit(table: Table) -> None:
        first = table["entries"][1]
        table["entries"][2:] = [dict(first, innerOffset=at) for at in range(1, last)]

    last = 100
    read(tabled.estargz([file("a", "x"), file("b", "y")], edit=edit))
    last = 101
    with pytest.raises(UnsupportedError, match="at one place"):
        read(tabled.estargz([file("a", "x"), file("b", "y")], edit=edit))


def test_chunks_that_lie_upon_each_other_are_no_layer() -> None:
    def edit(table: Table) -> None:
        first = table["entries"][1]
        table["entries"][2:] = [dict(first, innerOffset=5), dict(first, innerOffset=at)]

    at = 6
    read(tabled.estargz([file("a", "x"), file("b", "y")], edit=edit))
    at = 5
    with pytest.raises(MalformedError, match="upon each other"):
        read(tabled.estargz([file("a", "x"), file("b", "y")], edit=edit))


def test_no_chunk_lies_farther_inside_than_its_input_can_decode_to() -> None:
    """Who reads it would decode all of that for a byte."""

    def edit(table: Table) -> None:
        table["entries"][1]["innerOffset"] = at

    at = 63 << 20
    read(tabled.estargz([file("a", "x"), file("b", "y")], edit=edit))
    at = 1 << 30
    with pytest.raises(MalformedError, match="bytes into what"):
        read(tabled.estargz([file("a", "x"), file("b", "y")], edit=edit))


@pytest.mark.parametrize("make", [LAYERS["estargz"], LAYERS["zstd:chunked"]])
def test_limits_hold(make: Callable[..., Tabled]) -> None:
    layer = make()
    for limits in (Limits(members=10), Limits(size=1000), Limits(ratio=0, free_bytes=1000)):
        with pytest.raises(MalformedError):
            read(layer, limits)
    with pytest.raises(MalformedError):
        read(make([file("a" * 5000, "x")]), Limits(header_bytes=1000))


def pieces(text: bytes, size: int) -> Callable[[int], bytes]:
    """Gives text in pieces."""
    at = 0

    def more(_: int) -> bytes:
        nonlocal at
        piece = text[at : at + size]
        at += size
        return piece

    return more


TEXT = json.dumps(
    {
        "version": 1,
        "entries": [
            {"name": 'a"b\\{}[],', "type": "dir", "xattrs": {"user.{": "fQ=="}},
            {"name": "c", "type": "dir", "unknown": [1, {"x": [2]}, "]"], "more": None},
        ],
        "tail": {"entries": [5]},
    },
    indent=1,
).encode()


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_json_may_come_in_any_pieces(size: int) -> None:
    found = list(toc_entries(pieces(TEXT, size), name="table", limits=Limits()))
    assert [one.name for one in found] == ['a"b\\{}[],', "c"]
    assert found[0].xattrs == {"user.{": "fQ=="}


def many(names: Sequence[str], indent: int | None) -> bytes:
    entries = [{"name": name, "type": "dir", "xattrs": {"user.{": "fQ=="}} for name in names]
    return json.dumps({"version": 1, "entries": entries}, indent=indent).encode()


FORGING = ('a},{"name":"forged","type":"dir"},{', 'b"},{"name":"forged","type":"dir"}', "},{" * 99)
"""Names that look like what stands between two entries."""


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [1000, 300_000])
def test_what_looks_like_the_end_of_an_entry_is_none_within_a_name(
    size: int, indent: int | None
) -> None:
    names = [
        f"{number}{FORGING[number % 40 % 3] if number % 40 < 5 else ''}" for number in range(3000)
    ]
    text = many(names, indent)
    found = toc_entries(pieces(text, size), name="table", limits=Limits())
    assert [one.name for one in found] == names
    forging = [f"{number}{FORGING[number % 3]}" for number in range(2000)]
    found = toc_entries(pieces(many(forging, indent), size), name="table", limits=Limits())
    assert [one.name for one in found] == forging


@pytest.mark.parametrize("indent", [None, 1])
def test_hardly_an_entry_is_cut_out_of_its_table_alone(
    indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[bytes] = []
    decode = msgspec.json.Decoder(tuple[toc.TocEntry]).decode

    class Watched:
        def decode(self, text: bytes) -> tuple[toc.TocEntry, ...]:
            alone.append(text)
            return decode(text)

    monkeypatch.setattr(toc, "_DECODER", Watched())
    text = many([str(number) for number in range(5000)], indent)
    assert len(list(toc_entries(BytesIO(text).read, name="table", limits=Limits()))) == 5000
    assert len(alone) < 20


class Searches:
    """A pattern that counts how often it is tried, and how many bytes it looks at for that."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.tries = self.looked = 0

    def match(self, text: bytes, start: int, stop: int = sys.maxsize) -> re.Match[bytes] | None:
        self.tries += 1
        stop = min(stop, len(text))
        self.looked += stop - start - len(text[start + 1 : stop].lstrip())
        return self._pattern.match(text, start, stop)


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_where_the_end_of_an_entry_is_not_found_it_is_searched_once(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    searches = Searches(toc._BETWEEN)
    monkeypatch.setattr(toc, "_BETWEEN", searches)
    hiding = {"name": "", "type": "dir", "modtime": "}" * 64 + " " * 100_000}
    entries = [*[{"name": "", "type": "dir"}] * 2600, hiding] * 2
    text = json.dumps({"version": 1, "entries": entries}, separators=(",", ":")).encode()
    found = toc_entries(pieces(text, size), name="table", limits=Limits())
    assert sum(1 for _ in found) == len(entries)
    assert searches.tries < len(entries) // 2
    assert searches.looked < len(text)


def nested(deep: int) -> bytes:
    """An entry with objects inside objects, so deep, and others that are not deep."""
    flat = b'"a":{"b":{}},' * 5
    return b'{"name":"b","type":"dir",%b"more":%b1%b}' % (flat, b'{"{":' * deep, b"}" * deep)


EMPTY = b'{"version":1,"entries":[ \n ]}'


@pytest.mark.parametrize("size", [1, 16, 100, 1 << 20])
@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("behind", [0, 5])
def test_how_deep_an_entry_may_be_is_the_same_wherever_it_stands_and_however_it_comes(
    size: int, before: int, behind: int
) -> None:
    plain = b'{"name":"a","type":"dir","xattrs":{"user.a":"fQ=="}}'

    def read_with(deep: int) -> list[str]:
        entries = b",".join([*[plain] * before, nested(deep), *[plain] * behind])
        text = b'{"version":1,"entries":[%b]}' % entries
        table = toc_entries(pieces(text, size), name="table", limits=Limits())
        return [entry.name for entry in table]

    assert read_with(2) == ["a"] * before + ["b"] + ["a"] * behind
    for deep in (3, 4, 50):
        with pytest.raises(MalformedError):
            read_with(deep)


@pytest.mark.parametrize("size", [1, 16, 1 << 20])
def test_a_table_may_be_empty_and_spaced_however_it_comes(size: int) -> None:
    assert not list(toc_entries(pieces(EMPTY, size), name="table", limits=Limits()))


@pytest.mark.parametrize("size", [1, 16, 1 << 20])
@pytest.mark.parametrize("space", [b" " * 900, b"\f"])
def test_what_stands_between_entries_counts_and_is_json_however_it_comes(
    size: int, space: bytes
) -> None:
    entry = b'{"name":"%b","type":"dir"}' % (b"b" * 200)
    for place in ((b"", space), (space, b"")):
        entries = b",".join([entry, entry + place[0], place[1] + entry, entry])
        text = b'{"version":1,"entries":[%b]}' % entries
        found = toc_entries(pieces(text, size), name="table", limits=Limits(header_bytes=1000))
        with pytest.raises(MalformedError):
            list(found)


def test_no_entry_is_longer_than_a_header_may_be_however_it_is_read() -> None:
    text = many(["a", "b" * 900, "c", "d"], None)
    limits = Limits(header_bytes=1000)
    assert len(list(toc_entries(BytesIO(text).read, name="table", limits=limits))) == 4
    with pytest.raises(MalformedError, match="an entry of more than 500 bytes"):
        list(toc_entries(BytesIO(text).read, name="table", limits=Limits(header_bytes=500)))


def test_an_entry_that_cannot_be_is_told_where_entries_are_read_together() -> None:
    good = many([str(number) for number in range(500)], None)
    text = good.replace(b'"name": "300"', b'"name": 300')
    seen = toc_entries(BytesIO(text).read, name="table", limits=Limits())
    with pytest.raises(MalformedError, match="an entry cannot be read"):
        assert [next(seen).name for _ in range(301)]


def test_a_table_that_is_cut_off_anywhere_is_malformed() -> None:
    for stop in range(len(TEXT)):
        with pytest.raises(MalformedError):
            list(toc_entries(BytesIO(TEXT[:stop]).read, name="table", limits=Limits()))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'{"version":1}',
        b'{"entries":{}}',
        b'{"version":1,"entries":[1]}',
        b'{"version":1,"entries":[{"name":"a","type":"dir"},]}',
        b'{"version":1,"entries":[{"name":"a","type":"dir"}]} more',
        b'{"version":1,"entries":[{"name":"a","type":"dir"}],"entries":{}}',
        b'{"version":1,"entries":[{"name":"\xff","type":"dir"}]}',
        b'{"version":' + b"[" * 100_000,
        b'{"version":1,"entries":[' + b'{"a":' * 100_000,
        b'{"version":1,"entries":[{"name":"' + b"\\n" * 3_000_000,
        b'{"version":1,"entries":[' + b" " * 3_000_000,
        b'{"version":1,"entries":[],"x":"' + b" " * 3_000_000 + b'"}',
    ],
)
def test_what_is_no_table_is_malformed(text: bytes) -> None:
    with pytest.raises(MalformedError):
        list(toc_entries(BytesIO(text).read, name="table", limits=Limits()))


def test_entries_that_stand_twice_are_not_read_twice() -> None:
    entries = '"entries":[{"name":"a","type":"dir"}]'
    text = f'{{"version":1,{entries},{entries}}}'.encode()
    with pytest.raises(UnsupportedError):
        list(toc_entries(BytesIO(text).read, name="table", limits=Limits()))


def test_a_table_takes_as_much_memory_as_an_entry_of_it() -> None:
    def text() -> Iterator[bytes]:
        yield b'{"version":1,"entries":['
        for number in range(20_000):
            entry = {"name": f"directory/{number}", "type": "reg", "digest": f"sha256:{number:064}"}
            yield json.dumps(entry).encode() + b",\n"
        yield b'{"name":"last","type":"dir"}]}'

    source = text()

    def more(_: int) -> bytes:
        return b"".join(piece for piece, _ in zip(source, range(500), strict=False))

    tracemalloc.start()
    try:
        count = sum(1 for _ in toc_entries(more, name="table", limits=Limits()))
        assert count > 19_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_footer_says_where_the_table_begins() -> None:
    assert estargz.table_start(tabled.footer(0xABCDE)) == 0xABCDE


def test_a_footer_with_a_flipped_bit_says_nothing_or_another_place() -> None:
    right = tabled.footer(0xABCDE)
    digits = range(16, 32)
    for place in range(len(right)):
        for bit in range(8):
            wrong = bytearray(right)
            wrong[place] ^= 1 << bit
            found = estargz.table_start(bytes(wrong))
            # Who wrote it, and when, is said in bytes 4 to 9, and means nothing; digits may be
            # spelled in capitals.
            capital = place in digits and wrong.lower() == right.lower()
            same = capital or place in range(4, 10)
            assert found == 0xABCDE if same else place in digits or found is None


@pytest.mark.parametrize("wrong", [b"", bytes(51), tabled.footer(5)[4:], b"x" + tabled.footer(5)])
def test_what_is_no_footer_is_none(wrong: bytes) -> None:
    assert estargz.table_start(wrong) is None


@pytest.mark.parametrize("digits", [b"0x00000000000005", b"-000000000000005", b"0000_00000000005"])
def test_a_place_is_spelled_in_digits(digits: bytes) -> None:
    assert estargz.table_start(tabled.footer(0).replace(b"0" * 16, digits)) is None


def test_a_table_whose_gzip_member_is_damaged_is_never_another_one() -> None:
    layer = tabled.estargz([file("a", "x")])
    packed = layer.data[layer.start : -estargz.FOOTER]
    right = _text(packed)
    pinned = layer.annotations[estargz.ANNOTATION]
    assert str(digest_of(right)) == pinned
    for place in range(len(packed)):
        wrong = bytearray(packed)
        wrong[place] ^= 0x55
        try:
            text = _text(bytes(wrong))
        except CafsError:
            continue
        assert text == right or str(digest_of(text)) != pinned


def _text(packed: bytes) -> bytes:
    table = estargz.TableText(BytesIO(packed).read, name="table", limits=Limits())
    return b"".join(iter(lambda: table.read(1000), b""))


@made
def test_a_flipped_byte_of_a_chunk_never_has_its_digest(make: Callable[..., Tabled]) -> None:
    layer = make([file("a", "content of a"), file("b", "content of b")])
    taken = read(layer)
    for segment in taken.segments:
        right = decoded(layer.data, segment)
        for place in range(segment.input_start, segment.input_start + segment.input_length):
            wrong = bytearray(layer.data)
            wrong[place] ^= 0x55
            try:
                data = decoded(bytes(wrong), segment)
            except (CafsError, AssertionError):
                continue
            assert data == right


def test_annotations_of_both_spellings_are_understood() -> None:
    for prefix in zstd_chunked.PREFIXES:
        layer = tabled.zstd_chunked([file("a", "x")], prefix=prefix)
        found = zstd_chunked.announced(layer.annotations)
        packed = layer.data[layer.start : layer.stop]
        assert found == Contents(
            kind="zstd:chunked",
            digest=digest_of(packed),
            start=layer.start,
            length=len(packed),
            size=len(json.dumps(layer.table, separators=(",", ":"))),
        )


@pytest.mark.parametrize(
    ("position", "checksum"),
    [
        ("1:2:3", "sha256:" + "0" * 64),
        ("1:2:3:2", "sha256:" + "0" * 64),
        ("-1:2:3:1", "sha256:" + "0" * 64),
        ("1:2:3:1:5", "sha256:" + "0" * 64),
        (f"{1 << 70}:2:3:1", "sha256:" + "0" * 64),
        ("٣:2:3:1", "sha256:" + "0" * 64),
        ("1:2:3:1", "sha256:00"),
        ("1:2:3:1", "md5:" + "0" * 32),
    ],
)
def test_annotations_that_say_something_else_are_not_believed(position: str, checksum: str) -> None:
    prefix = zstd_chunked.PREFIXES[0]
    said = {f"{prefix}manifest-position": position, f"{prefix}manifest-checksum": checksum}
    with pytest.raises(UnsupportedError):
        zstd_chunked.announced(said)
    with pytest.raises(UnsupportedError):
        estargz.announced({estargz.ANNOTATION: "sha256:00"})
    assert estargz.announced({}) is None
