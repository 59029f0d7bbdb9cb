"""Index files: all that is needed to read one archive, one layer, or one file, lazily.

An index has the entries of the tree that a first pass makes, and the segments of its stream with
their digests and windows. It is a function of the blob and of ``VERSION``, but for how well zstd
packs it; so its name is the sha256 of its bytes, and two of them are compared by ``what_it_says``
(``index_pieces.py``). docs/formats.md has it byte by byte, docs/adr/0027 has the reasons.

This file has its parts as values; ``index_writing.py`` and ``index_reading.py`` have the bytes.
"""

import struct
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from cafs.errors import MalformedError, UnsupportedError
from cafs.model.digest import CANONICAL, Digest

MAGIC: Final = b"\x89cafsix\n"
VERSION: Final = 1
"""Version of the format, and of what first passes make. Raise it when either changes."""
ENTRIES: Final = 4096
"""Entries in a page, at most."""
SEGMENTS: Final = 256
"""Segments in a page, at most: with their windows they are 8 MiB."""
WEIGHT: Final = 1 << 20
"""A page ends when its entries' names, texts, attributes and maps have so many bytes."""
UNPACKED: Final = 8 << 20
"""Bytes that a page's columns have, at most."""
DIGEST: Final = 32
ZIP: Final = "zip"
COMPRESSIONS: Final = ("none", "gzip", "zstd", "xz", "bzip2", ZIP)
"""What the blob is, by number: how the tar is compressed, or "zip"."""
FILE: Final = "+file"
MARKS: Final = ("", "+members", FILE)
"""Marks of makings, by number: an archive's tree, a layer's record, a file that is no tree."""
CODECS: Final = ("store", "gzip", "deflate", "zstd", "xz", "bzip2", "lzma")
"""Codecs of segments, by number."""

KIND: Final = 0x07
UNBOUND: Final = 0x08
HASHED: Final = 0x10
PLACED: Final = 0x20
"""Bits of an entry's shape: its kind; that its name means another entry, or nothing; that it has a
digest; that it has an offset other than 0."""

_HEADER: Final = struct.Struct("<8sHBBIIQQ32s")
HEADER: Final = _HEADER.size
PIECE: Final = struct.Struct("<HHII")
"""Entries or segments in a page, digests, and the bytes of its columns, packed and not."""
LENGTH: Final = struct.Struct("<H")
"""Bytes of a packed window."""

Bit64 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Bit32 = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
Delta = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o7777)]
Second = Annotated[int, msgspec.Meta(ge=-(1 << 33) - (1 << 30), le=(1 << 33) + (1 << 30))]
Nano = Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]
_Page = msgspec.Meta(max_length=ENTRIES)
_Segments = msgspec.Meta(max_length=SEGMENTS)

Row = tuple[
    bytes,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    int,
    bytes,
    int,
    int,
    bytes | None,
    int,
    int,
    tuple[tuple[bytes, bytes], ...],
    tuple[tuple[int, int], ...] | None,
]
"""An entry, as ``store/tables/records.py`` packs it: name, parent, kind, mode, mtime_ns, size,
offset, stream, links, sha256, uid, gid, target, link, device, xattrs, sparse. No Entry is made of
it: that would cost more than all the rest of an import."""


class EntryColumns(msgspec.Struct, array_like=True, gc=False):
    """The entries of a page, by columns: values of one kind pack well, and are read at once.

    ``parents`` are differences to the entry before, ``gaps`` those of offsets to where the content
    is expected to lie. ``others`` has what few entries have: the number in the page, the
    attributes, and the sparse map as the length of each hole and of the data behind it.
    """

    shapes: bytes
    names: Annotated[list[bytes], _Page]
    parents: Annotated[list[Delta], _Page]
    modes: Annotated[list[Mode], _Page]
    seconds: Annotated[list[Second], _Page]
    nanos: Annotated[list[Nano], _Page]
    sizes: Annotated[list[Bit64], _Page]
    gaps: Annotated[list[Delta], _Page]
    links: Annotated[list[Bit32], _Page]
    uids: Annotated[list[Bit32], _Page]
    gids: Annotated[list[Bit32], _Page]
    linked: Annotated[list[Bit32], _Page]
    devices: Annotated[list[Bit64], _Page]
    targets: Annotated[list[bytes | None], _Page]
    others: Annotated[
        list[tuple[Bit32, tuple[tuple[bytes, bytes], ...], list[Bit64] | None]], _Page
    ]


class SegmentColumns(msgspec.Struct, array_like=True, gc=False):
    """The segments of a page, by columns; where one starts is where the one before stops.

    ``gaps`` are between the input of a segment and that of the one before.
    """

    codecs: bytes
    lengths: Annotated[list[Bit64], _Segments]
    gaps: Annotated[list[Delta], _Segments]
    inputs: Annotated[list[Bit64], _Segments]
    states: Annotated[list[Bit32], _Segments]
    checksums: Annotated[list[Bit32 | None], _Segments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an index is of.

    ``blob`` is the digest of the raw bytes, ``size`` their number, ``decoded`` the bytes of the
    stream that the entries lie in. ``compression`` is one of ``COMPRESSIONS``, ``mark`` says which
    making the tree is of.
    """

    blob: Digest
    size: int
    decoded: int
    compression: str
    mark: str
    entries: int
    segments: int

    def pack(self) -> bytes:
        """The bytes that an index begins with."""
        return _HEADER.pack(
            MAGIC,
            VERSION,
            COMPRESSIONS.index(self.compression),
            MARKS.index(self.mark),
            self.entries,
            self.segments,
            self.size,
            self.decoded,
            self.blob.raw,
        )


def unpack_header(raw: bytes, name: str) -> Header:
    """The header in the first ``HEADER`` bytes.

    Raises:
        MalformedError: it is none.
        UnsupportedError: of another version.
    """
    if len(raw) < HEADER or not raw.startswith(MAGIC):
        raise MalformedError(f"{name}: no index")
    _, version, compression, mark, entries, segments, size, decoded, blob = _HEADER.unpack(raw)
    if version != VERSION:
        raise UnsupportedError(
            f"{name}: an index of format version {version}; this cafs knows {VERSION}",
            hint="cafs lock makes it anew",
        )
    if compression >= len(COMPRESSIONS) or mark >= len(MARKS):
        raise MalformedError(f"{name}: an index of nothing that there is")
    return Header(
        blob=Digest(CANONICAL, blob),
        size=size,
        decoded=decoded,
        compression=COMPRESSIONS[compression],
        mark=MARKS[mark],
        entries=entries,
        segments=segments,
    )


def unit(compression: str) -> int:
    """What contents are padded to, and the least that lies between two: a tar's block."""
    return 1 if compression == ZIP else 512


def following(offset: int, stored: int, block: int) -> int:
    """Where the next content is expected to lie, behind one of ``stored`` bytes."""
    return offset + stored if block == 1 else offset + (stored + block - 1) // block * block + block
