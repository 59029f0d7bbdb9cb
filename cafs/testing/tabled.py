"""Makers of image layers with a table of contents: eStargz and zstd:chunked, right ones and others.

They are what the real converters write, but small enough to be looked at, and their tables can be
changed before they are pinned: ``edit`` gets the JSON as Python has it.

Source: docs/estargz.md of containerd's stargz-snapshotter; pkg/chunked of containers/storage.
"""

import base64
import gzip
import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cafs.testing.archives import Item, file, header
from cafs.testing.images import Layout

Table = dict[str, Any]
"""A table of contents: ``version`` and ``entries``, as JSON has them."""
Edit = Callable[[Table], object]
_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
_LANDMARK: Final = file(".no.prefetch.landmark", b"\x0f")
_XATTR: Final = "SCHILY.xattr."
_TYPES: Final = {
    tarfile.REGTYPE: "reg",
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}
_BLOCK: Final = 128 << 10
_SKIPPABLE: Final = 0x184D2A50


@dataclass(frozen=True, slots=True)
class Tabled:
    """A layer, what its manifest says of it, and where in it the table lies: ``start:stop``."""

    data: bytes
    media_type: str
    annotations: dict[str, str]
    table: Table
    start: int
    stop: int

    def manifest(self) -> bytes:
        """The manifest of an image of this layer alone."""
        return manifest([self])


def manifest(layers: Sequence[Tabled]) -> bytes:
    """The manifest of an image of these layers, lowest first."""
    described = [
        {
            "mediaType": layer.media_type,
            "digest": f"sha256:{_sha256(layer.data)}",
            "size": len(layer.data),
            "annotations": layer.annotations,
        }
        for layer in layers
    ]
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2}
    config["digest"] = f"sha256:{_sha256(b'{}')}"
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": described,
    }
    return json.dumps(document).encode()


def write_tabled(path: Path, layers: Sequence[Tabled]) -> Layout:
    """Write an OCI layout whose tag ``latest`` names an image of these layers, lowest first."""
    described = manifest(layers)
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for data in (described, b"{}", *(layer.data for layer in layers)):
        (blobs / _sha256(data)).write_bytes(data)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    digest = f"sha256:{_sha256(described)}"
    named = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": len(described),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    return Layout(path, "latest", digest)


def footer(start: int) -> bytes:
    """The last 51 bytes of an eStargz layer whose table begins there."""
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % start
    empty = b"\x01\x00\x00\xff\xff" + bytes(8)
    return b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra + empty


def estargz(
    items: Iterable[Item], *, chunk: int = 4 << 20, together: int = 0, edit: Edit = len
) -> Tabled:
    """A layer as ``ctr-remote image convert --estargz`` makes it.

    Args:
        items: its members.
        chunk: bytes of a chunk.
        together: chunks share a gzip member until it has so many bytes (``MinChunkSize``).
        edit: may change the table.
    """
    layer = _Stargz(together)
    entries: list[Table] = []
    for item in [_LANDMARK, *items]:
        entry = _entry(item, whole_seconds=True)
        entries.append(entry)
        layer.write(header(item).tobuf(tarfile.PAX_FORMAT))
        if item.content:
            entry["digest"] = f"sha256:{_sha256(item.content)}"
        for start in range(0, len(item.content), chunk):
            piece = item.content[start : start + chunk]
            place: Table = layer.chunk(piece)
            place["chunkDigest"] = f"sha256:{_sha256(piece)}"
            if len(piece) < len(item.content) and start + chunk < len(item.content):
                place["chunkSize"] = len(piece)
            if start:
                entries.append({"name": item.path, "type": "chunk", "chunkOffset": start} | place)
            else:
                entry |= place
        layer.write(bytes(-len(item.content) % tarfile.BLOCKSIZE))
    start = layer.end()
    table = {"version": 1, "entries": entries}
    edit(table)
    text = json.dumps(table, indent="\t").encode()
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("stargz.index.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    data = layer.data + gzip.compress(inner.getvalue(), mtime=0)
    said = {"containerd.io/snapshot/stargz/toc.digest": f"sha256:{_sha256(text)}"}
    return Tabled(data + footer(start), _GZIP, said, table, start, len(data))


class _Stargz:
    """The gzip members of a layer, as they are written."""

    def __init__(self, together: int) -> None:
        self._together = together
        self._open = bytearray()
        self._since = -1
        self.data = b""

    def write(self, data: bytes) -> None:
        """Bytes of the tar that are no chunk."""
        self._open += data

    def chunk(self, data: bytes) -> Table:
        """A chunk; where it is."""
        shared = self._since >= 0 and len(self._open) - self._since < self._together
        if not shared:
            self.end()
            self._since = 0
        place: Table = {"offset": len(self.data)}
        if self._open:
            place["innerOffset"] = len(self._open)
        self._open += data
        return place

    def end(self) -> int:
        """End the member; where the next one begins."""
        if self._open:
            self.data += gzip.compress(bytes(self._open), 1, mtime=0)
        self._open.clear()
        self._since = -1
        return len(self.data)


def zstd_chunked(
    items: Iterable[Item],
    *,
    chunk: int = 64 << 10,
    prefix: str = "io.github.containers.zstd-chunked.",
    edit: Edit = len,
) -> Tabled:
    """A layer as ``skopeo copy --dest-compress-format zstd:chunked`` makes it.

    Chunks of zeros are holes. Its frames hold what they hold as it is, so that no flipped bit of it
    is noticed by zstd.

    Args:
        items: its members.
        chunk: bytes of a chunk.
        prefix: what the annotations begin with.
        edit: may change the table.
    """
    data = b""
    entries: list[Table] = []
    for item in items:
        data += frame(header(item).tobuf(tarfile.PAX_FORMAT))
        entry = _entry(item, whole_seconds=False)
        entries.append(entry)
        for start in range(0, len(item.content), chunk):
            piece = item.content[start : start + chunk]
            place: Table = {"offset": len(data)}
            if len(item.content) > chunk:
                place |= {"chunkSize": len(piece), "chunkDigest": f"sha256:{_sha256(piece)}"}
                place |= {} if any(piece) else {"chunkType": "zeros"}
            if start:
                entries.append({"type": "chunk", "name": item.path, "chunkOffset": start} | place)
            else:
                entry |= place
            data += frame(piece)
        if item.content:
            entry |= {"digest": f"sha256:{_sha256(item.content)}", "endOffset": len(data)}
        data += frame(bytes(-len(item.content) % tarfile.BLOCKSIZE))
    data += frame(bytes(2 * tarfile.BLOCKSIZE))
    table = {"version": 1, "entries": entries}
    edit(table)
    text = json.dumps(table, separators=(",", ":")).encode()
    packed = frame(text)
    data += struct.pack("<II", _SKIPPABLE, len(packed))
    start = len(data)
    data += packed
    said = {
        f"{prefix}manifest-position": f"{start}:{len(packed)}:{len(text)}:1",
        f"{prefix}manifest-checksum": f"sha256:{_sha256(packed)}",
    }
    return Tabled(data, _ZSTD, said, table, start, len(data))


def frame(content: bytes) -> bytes:
    """A zstd frame that holds its content as it is; nothing for no content.

    Source: RFC 8878 §3.1.1; a single segment, raw blocks, no checksum.
    """
    if not content:
        return b""
    blocks = [content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)]
    parts = [struct.pack("<IBI", 0xFD2FB528, 0xA0, len(content))]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        parts += [(len(block) << 3 | last).to_bytes(3, "little"), block]
    return b"".join(parts)


def _entry(item: Item, *, whole_seconds: bool) -> Table:
    """What both kinds say of a member, its content left out."""
    moment = datetime.fromtimestamp(round(item.mtime) if whole_seconds else item.mtime, UTC)
    slash = "/" if item.kind == tarfile.DIRTYPE else ""
    entry: Table = {"name": item.path + slash, "type": _TYPES[item.kind], "mode": item.mode}
    entry["modtime"] = moment.isoformat().replace("+00:00", "Z")
    more = {"size": len(item.content), "linkName": item.target, "uid": item.uid, "gid": item.gid}
    more |= {"devMajor": item.device[0], "devMinor": item.device[1]}
    entry |= {name: value for name, value in more.items() if value}
    attributes = {
        name.removeprefix(_XATTR): base64.b64encode(value.encode()).decode()
        for name, value in item.pax
        if name.startswith(_XATTR)
    }
    return entry | ({"xattrs": attributes} if attributes else {})


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
