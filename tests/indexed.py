"""Index files that tests write, right ones and wrong ones, and what is read of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO

import msgspec
import zstandard

from cafs.codec.index_file import (
    DIGEST,
    LENGTH,
    PIECE,
    EntryColumns,
    Header,
    Row,
    SegmentColumns,
)
from cafs.codec.index_reading import IndexReader
from cafs.codec.index_writing import IndexWriter
from cafs.model.digest import digest_of
from cafs.model.limits import Limits
from cafs.model.member import ROOT, Entry, Kind, Piece
from cafs.model.record import Segment

BLOB = digest_of(b"blob")
ROOT_ENTRY = Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755)
A_DIGEST = digest_of(b"content").raw
HEADER = Header(
    blob=BLOB, size=1000, decoded=8192, compression="gzip", mark="", entries=0, segments=0
)
SEGMENTS = [
    Segment(
        start=0, length=5000, input_start=0, input_length=600, codec="gzip", sha256=bytes(range(32))
    ),
    Segment(
        start=5000,
        length=3192,
        input_start=599,
        input_length=400,
        codec="deflate",
        sha256=bytes(range(32, 64)),
        state=3,
    ),
]
WINDOWS = [b"", b"packed"]
ENTRIES = [
    (ROOT_ENTRY, True),
    (
        msgspec.structs.replace(
            ROOT_ENTRY, name=b"dir", mtime_ns=-1, offset=512, uid=1000, gid=(1 << 32) - 1
        ),
        True,
    ),
    (
        Entry(
            name=b"caf\xe9",
            parent=1,
            kind=Kind.FILE,
            mode=0o4755,
            mtime_ns=1_700_000_000_123_456_789,
            size=600,
            offset=1024,
            links=2,
            sha256=A_DIGEST,
            xattrs=((b"user.a", b"\0\xff"), (b"user.b", b"")),
        ),
        True,
    ),
    (Entry(name=b"same", parent=1, kind=Kind.HARD_LINK, mode=0o644, link=2), True),
    (
        Entry(
            name=b"text", parent=0, kind=Kind.SYMLINK, mode=0o777, offset=3072, target=b"../\xfe"
        ),
        True,
    ),
    (
        Entry(
            name=b"holes",
            parent=0,
            kind=Kind.FILE,
            mode=0o600,
            size=1 << 40,
            offset=4096,
            sparse=(Piece(0, 5), Piece(4096, 100), Piece(4196, 7)),
        ),
        True,
    ),
    (Entry(name=b"hole", parent=0, kind=Kind.FILE, mode=0, size=9, offset=5120, sparse=()), True),
    (Entry(name=b"gone", parent=0, kind=Kind.FIFO, mode=0o600, offset=5632, links=0), False),
    (
        Entry(
            name=b"gone",
            parent=0,
            kind=Kind.CHARACTER_DEVICE,
            mode=0o600,
            offset=6144,
            device=0x0501,
        ),
        True,
    ),
]
"""All that an archive's tree can have."""
Listed = tuple[Header, list[tuple[Entry, bool]], list[tuple[Segment, bytes]]]


def written(
    entries: Sequence[tuple[Entry, bool]],
    segments: Sequence[Segment] = SEGMENTS,
    windows: Sequence[bytes] = WINDOWS,
    header: Header = HEADER,
) -> bytes:
    """An index of these."""
    out = BytesIO()
    header = replace(header, entries=len(entries), segments=len(segments))
    writer = IndexWriter(out.write, header, "test")
    for entry, bound in entries:
        writer.entry(entry, bound=bound)
    for segment, window in zip(segments, windows, strict=True):
        writer.segment(segment, window)
    writer.finish()
    return out.getvalue()


def reader(data: bytes, limits: Limits | None = None) -> IndexReader:
    """A reader of an index in memory."""
    return IndexReader(BytesIO(data).read, len(data), name="index", limits=limits)


def listed(data: bytes, limits: Limits | None = None) -> Listed:
    """All that is in an index."""
    source = reader(data, limits)
    entries: list[tuple[Entry, bool]] = []
    for page in source.entries():
        bound = {number for _, _, number in page.names}
        numbered = enumerate(page.rows, page.first)
        entries += [(entry_of(row), not number or number in bound) for number, row in numbered]
    segments = [each for page in source.segments() for each in page]
    assert source.finish() == digest_of(data)
    return source.header, entries, segments


def entry_of(row: Row) -> Entry:
    """A row as an entry."""
    sparse = row[16]
    return Entry(
        name=row[0],
        parent=row[1],
        kind=Kind(row[2]),
        mode=row[3],
        mtime_ns=row[4],
        size=row[5],
        offset=row[6],
        stream=row[7],
        links=row[8],
        sha256=row[9],
        uid=row[10],
        gid=row[11],
        target=row[12],
        link=row[13],
        device=row[14],
        xattrs=row[15],
        sparse=None if sparse is None else tuple(Piece(*piece) for piece in sparse),
    )


@dataclass
class Craft:
    """The parts of a small index, to be put together otherwise than the writer would."""

    header: Header = HEADER
    entries: EntryColumns = field(
        default_factory=lambda: EntryColumns(
            shapes=bytes([Kind.DIRECTORY]),
            names=[b""],
            parents=[0],
            modes=[0o755],
            seconds=[0],
            nanos=[0],
            sizes=[0],
            gaps=[0],
            links=[1],
            uids=[0],
            gids=[0],
            linked=[0],
            devices=[0],
            targets=[None],
            others=[],
        )
    )
    digests: bytes = b""
    segments: SegmentColumns = field(
        default_factory=lambda: SegmentColumns(
            codecs=b"\x01\x02",
            lengths=[5000, 3192],
            gaps=[0, -1],
            inputs=[600, 400],
            states=[0, 3],
            checksums=[None, None],
        )
    )
    sums: bytes = bytes(64)
    windows: Sequence[bytes] = (b"", b"packed")

    def add(self, name: bytes, **values: object) -> "Craft":
        """One more entry: a file below the root, but for what is said."""
        row: dict[str, object] = {
            "shapes": Kind.FILE,
            "names": name,
            "parents": 0,
            "modes": 0o644,
            "links": 1,
            "targets": None,
            **values,
        }
        columns = self.entries
        self.entries = msgspec.structs.replace(
            columns,
            shapes=columns.shapes + bytes([row.pop("shapes")]),  # type: ignore[list-item]  # a number
            others=columns.others,
            **{
                each: [*getattr(columns, each), row.get(each, 0)]
                for each in EntryColumns.__struct_fields__
                if each not in {"shapes", "others"}
            },
        )
        return self

    def bytes(self) -> bytes:
        """The index."""
        entries, segments = len(self.entries.shapes), len(self.segments.codecs)
        header = replace(self.header, entries=entries, segments=segments)
        parts = [header.pack(), piece(entries, self.entries, self.digests)]
        if segments:
            parts.append(piece(segments, self.segments, self.sums))
            parts += [LENGTH.pack(len(window)) + window for window in self.windows]
        return b"".join(parts)


def piece(count: int, columns: object, digests: bytes, **lies: int) -> bytes:
    """A page; ``unpacked`` and ``packed`` may say what is not so."""
    raw = columns if isinstance(columns, bytes) else msgspec.msgpack.encode(columns)
    packed = zstandard.ZstdCompressor(level=1, write_content_size=True).compress(raw)
    said = (lies.get("packed", len(packed)), lies.get("unpacked", len(raw)))
    return PIECE.pack(count, len(digests) // DIGEST, *said) + packed + digests
