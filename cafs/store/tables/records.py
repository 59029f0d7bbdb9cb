"""Records as bytes: what the tables hold, packed and unpacked.

Small, frequent records are fixed structures or positional arrays; the others are MessagePack maps
by field name, to which fields with defaults may be added. A record that cannot be unpacked reads as
absent: its checksum has vouched for the bytes, so another version wrote it.
"""

import hashlib
import logging
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from cafs.codec.index_file import Row
from cafs.errors import CafsError, MalformedError
from cafs.model.digest import CANONICAL, Digest
from cafs.model.member import Entry, Kind, Piece
from cafs.model.record import Segment

T = TypeVar("T")
_LOG: Final = logging.getLogger("cafs.store")
_STREAM: Final = struct.Struct("<8sIqB")
_BLOB: Final = 1
_DECODED: Final = 2
"""What the digest in a stream's record says: that the stream is that blob, or comes from it."""
_SEGMENT: Final = struct.Struct("<qqqBI")
_CHECKED: Final = 1
_RESUMED: Final = 2
"""What a segment's flags say: that it has the archive's checksum; that more stands behind it."""
_RESUME: Final = struct.Struct("<32sBIq")
"""Its digest, whether it has one, the codec's state, and how much is skipped."""
_KINDS: Final = {kind.value: kind for kind in Kind}


def hashed(text: str) -> bytes:
    """The key of a text from outside: 32 bytes, whatever its length."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Packed(Generic[T]):
    """Packs values of one type as MessagePack."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(kind)

    def pack(self, value: T) -> bytes:
        """The bytes of a value."""
        return self._encoder.encode(value)

    def unpack(self, raw: bytes | None) -> T | None:
        """The value in the bytes; None, logged, when it is not one."""
        if raw is None:
            return None
        try:
            return self._decoder.decode(raw)
        except (msgspec.MsgspecError, CafsError) as error:
            _LOG.warning("store.record.unknown kind=%s error=%s", self._kind.__name__, error)
            return None


class Incarnation(msgspec.Struct, frozen=True):
    """A stream from its first byte until any of its bytes are taken away; as in its record."""

    file: bytes
    generation: int

    @property
    def admitted(self) -> "Incarnation":
        """What it is once these bytes, and none but these, have become a blob."""
        return Incarnation(self.file, self.generation + 1)


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """A stream and the file that holds it.

    ``file`` is the 8 random bytes in the file's name; spans belong to it, and to no other
    incarnation. ``generation`` rises whenever spans are taken away, and when it becomes a blob.
    ``digest`` names the blob that the stream has become; then there is no stream file. ``source``
    is the blob that every byte in the file was decoded from, once that has been checked as a whole;
    None while nothing stands behind them.
    """

    file: bytes
    generation: int
    size: int | None
    digest: Digest | None
    source: Digest | None = None

    @property
    def incarnation(self) -> Incarnation:
        """What its bytes are bytes of."""
        return Incarnation(self.file, self.generation)

    @property
    def behind(self) -> Digest | None:
        """The blob that stands behind all of its bytes: they are it, or come from it."""
        return self.digest or self.source

    def pack(self) -> bytes:
        """The bytes of the record."""
        size = -1 if self.size is None else self.size
        kind = _BLOB if self.digest is not None else _DECODED if self.source is not None else 0
        head = _STREAM.pack(self.file, self.generation, size, kind)
        return head if self.behind is None else head + self.behind.raw


def unpack_stream(raw: bytes) -> StreamRecord:
    """The stream record in the bytes."""
    file, generation, size, kind = _STREAM.unpack_from(raw)
    behind = Digest(CANONICAL, raw[_STREAM.size :]) if kind else None
    digest, source = (None, behind) if kind == _DECODED else (behind, None)
    return StreamRecord(file, generation, None if size < 0 else size, digest, source)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobRecord:
    """A verified blob.

    ``aliases`` are its other digests as text, ``streams`` the keys that are it, the one as which it
    came first. ``admitted_ns`` is when, since the epoch.
    """

    media_type: str
    size: int
    admitted_ns: int
    aliases: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()


class _Row(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """An entry as a positional array: what most files need comes first."""

    name: bytes
    parent: int
    kind: int
    mode: int
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    stream: int = 0
    links: int = 1
    sha256: bytes = b""
    uid: int = 0
    gid: int = 0
    target: bytes | None = None
    link: int = 0
    device: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    sparse: tuple[tuple[int, int], ...] | None = None


_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE: Final = msgspec.msgpack.Decoder(_Row).decode


def pack_entry(entry: Entry) -> bytes:
    """The bytes of an entry.

    Raises:
        MalformedError: a number of it does not fit into 64 bits.
    """
    sparse = entry.sparse
    row = _Row(
        entry.name,
        entry.parent,
        entry.kind,
        entry.mode,
        entry.mtime_ns,
        entry.size,
        entry.offset,
        entry.stream,
        entry.links,
        entry.sha256,
        entry.uid,
        entry.gid,
        entry.target,
        entry.link,
        entry.device,
        entry.xattrs,
        None if sparse is None else tuple((piece.offset, piece.length) for piece in sparse),
    )
    try:
        return _ENCODE(row)
    except OverflowError as error:
        name = entry.name.decode("utf-8", "backslashreplace")
        raise MalformedError(f"{name}: a number in its header is out of range") from error


def pack_rows(rows: Iterable[Row]) -> list[bytes]:
    """The bytes of entries that an index has, of which no Entry need be made."""
    return [_ENCODE(row) for row in rows]  # a row is spelled as an entry is


def unpack_entry(raw: bytes) -> Entry:
    """The entry in the bytes."""
    row = _DECODE(raw)
    sparse = row.sparse
    return Entry(
        name=row.name,
        parent=row.parent,
        kind=_KINDS[row.kind],
        mode=row.mode,
        uid=row.uid,
        gid=row.gid,
        mtime_ns=row.mtime_ns,
        size=row.size,
        stream=row.stream,
        offset=row.offset,
        target=row.target,
        link=row.link,
        links=row.links,
        device=row.device,
        xattrs=row.xattrs,
        sparse=None if sparse is None else tuple(Piece(*piece) for piece in sparse),
        sha256=row.sha256,
    )


def digest_in(raw: bytes) -> bytes:
    """The raw digest of an entry's content, in the entry's bytes; empty when it has none."""
    return _DECODE(raw).sha256


def pack_segment(segment: Segment) -> bytes:
    """The bytes of a segment but for its start, which is in the key."""
    resumed = bool(segment.sha256 or segment.state or segment.skip)
    head = _SEGMENT.pack(
        segment.length,
        segment.input_start,
        segment.input_length,
        (_CHECKED if segment.crc32 is not None else 0) | (_RESUMED if resumed else 0),
        segment.crc32 or 0,
    )
    if resumed:
        digest = segment.sha256
        head += _RESUME.pack(digest, bool(digest), segment.state, segment.skip)
    return head + segment.codec.encode()


def unpack_segment(start: int, raw: bytes) -> Segment:
    """The segment in the bytes."""
    length, input_start, input_length, flags, crc32 = _SEGMENT.unpack_from(raw)
    digest, hashed_, state, skip, at = b"", False, 0, 0, _SEGMENT.size
    if flags & _RESUMED:
        digest, hashed_, state, skip = _RESUME.unpack_from(raw, at)
        at += _RESUME.size
    return Segment(
        start=start,
        length=length,
        input_start=input_start,
        input_length=input_length,
        codec=raw[at:].decode(),
        crc32=crc32 if flags & _CHECKED else None,
        sha256=digest if hashed_ else b"",
        state=state,
        skip=skip,
    )
