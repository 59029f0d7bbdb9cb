"""Makers of archives for tests: ordinary trees, and hostile ones.

A tree is a sequence of items in archive order; what one means where names repeat is the reader's
business. Everything is deterministic: the same items give the same bytes.
"""

import bz2
import gzip
import io
import lzma
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import IO, Final, Literal as Choice

from cafs.testing.bodies import Body, Generated, Joined, Literal

Dialect = Choice[0, 1, 2]
"""tarfile's USTAR_FORMAT, GNU_FORMAT or PAX_FORMAT."""
MTIME: Final = 1_600_000_000
"""Default modification time, s since the epoch."""
_WORDS: Final = ("int", "return", "struct", "void", "needle", "static", "const", "include", "char")
_LINK_MODE: Final = 0o777
_DOS_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class Compression(Enum):
    """How a tar is compressed; the value is the suffix of its name."""

    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"
    XZ = ".xz"
    BZIP2 = ".bz2"


@dataclass(frozen=True, slots=True)
class Item:
    """One member. ``kind`` is tarfile's type flag; ``target`` is for links; ``mtime`` in s."""

    path: str
    content: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    target: str = ""
    mtime: float = MTIME
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    pax: tuple[tuple[str, str], ...] = ()


def file(path: str, content: bytes | str = b"", mode: int = 0o644) -> Item:
    """A regular file."""
    return Item(path, content.encode() if isinstance(content, str) else content, mode=mode)


def script(path: str, content: str) -> Item:
    """An executable file."""
    return file(path, content, 0o755)


def directory(path: str, mode: int = 0o755) -> Item:
    """A directory."""
    return Item(path, kind=tarfile.DIRTYPE, mode=mode)


def symlink(path: str, target: str) -> Item:
    """A symbolic link."""
    return Item(path, kind=tarfile.SYMTYPE, mode=_LINK_MODE, target=target)


def hard_link(path: str, target: str) -> Item:
    """A hard link; ``target`` is a member's path."""
    return Item(path, kind=tarfile.LNKTYPE, target=target)


def whiteout(path: str) -> Item:
    """A layer's mark that a lower layer's path is gone."""
    parent, slash, name = path.rpartition("/")
    return file(f"{parent}{slash}.wh.{name}")


def opaque(path: str) -> Item:
    """A layer's mark that a directory shows nothing of the lower layers."""
    return file(f"{path}/.wh..wh..opq")


def small_files(count: int, *, seed: int = 0, per_directory: int = 100) -> Iterator[Item]:
    """So many source-like files of up to a few KiB, in directories, each of those before them."""
    chance = random.Random(seed)  # noqa: S311 - test data
    lines = [" ".join(chance.choices(_WORDS, k=6)) for _ in range(256)]
    for number in range(count):
        folder, place = divmod(number, per_directory)
        if not place:
            if not folder % per_directory:
                yield directory(f"tree/{folder // per_directory:03}")
            yield directory(_folder(folder, per_directory))
        content = "\n".join(chance.choices(lines, k=chance.randint(1, 100)))
        yield file(f"{_folder(folder, per_directory)}/{place:03}.c", content)


def _folder(number: int, width: int) -> str:
    return f"tree/{number // width:03}/{number % width:03}"


def write_tar(
    path: Path,
    items: Iterable[Item],
    compression: Compression = Compression.NONE,
    *,
    dialect: Dialect = tarfile.PAX_FORMAT,
) -> Path:
    """Write a tar without holding it in memory; the path."""
    plain = path if compression is Compression.NONE else path.with_name(path.name + ".plain")
    with plain.open("wb") as out:
        _write(out, items, dialect)
    if compression is not Compression.NONE:
        with plain.open("rb") as source, path.open("wb") as target:
            _compress(source, target, compression)
        plain.unlink()
    return path


def tar(
    items: Iterable[Item],
    compression: Compression = Compression.NONE,
    *,
    dialect: Dialect = tarfile.PAX_FORMAT,
) -> bytes:
    """A tar in memory; ``dialect`` is one of tarfile's formats."""
    out = io.BytesIO()
    _write(out, items, dialect)
    return compress(out.getvalue(), compression)


def compress(content: bytes, compression: Compression) -> bytes:
    """The bytes as one gzip member, zstd frame, xz or bzip2 stream."""
    match compression:
        case Compression.NONE:
            return content
        case Compression.GZIP:
            return gzip.compress(content, 6, mtime=0)
        case Compression.XZ:
            return lzma.compress(content)
        case Compression.BZIP2:
            return bz2.compress(content)
        case Compression.ZSTD:
            command = ["zstd", "--quiet", "--stdout"]
            return subprocess.run(command, input=content, capture_output=True, check=True).stdout


_TOOLS: Final = {
    Compression.GZIP: ("gzip", "-n", "-6"),
    Compression.ZSTD: ("zstd", "--quiet"),
    Compression.XZ: ("xz", "-1"),
    Compression.BZIP2: ("bzip2",),
}


def _compress(source: IO[bytes], target: IO[bytes], compression: Compression) -> None:
    tool = [*_TOOLS[compression], "-c"]
    subprocess.run(tool, stdin=source, stdout=target, check=True)


def _write(out: IO[bytes], items: Iterable[Item], dialect: Dialect) -> None:
    for item in items:
        out.write(header(item).tobuf(dialect, "utf-8", "surrogateescape"))
        out.write(item.content + bytes(-len(item.content) % tarfile.BLOCKSIZE))
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def header(item: Item) -> tarfile.TarInfo:
    """The tarfile header of an item."""
    info = tarfile.TarInfo(item.path)
    info.type = item.kind
    info.mode = item.mode
    info.size = len(item.content)
    info.mtime = item.mtime
    info.linkname = item.target
    info.uid, info.gid = item.uid, item.gid
    info.devmajor, info.devminor = item.device
    info.pax_headers = dict(item.pax)
    return info


def tar_bytes(files: Mapping[str, tuple[int, bytes]], *, compression: str = "") -> bytes:
    """A tar of files, ``{path: (mode, content)}``; ``compression`` is a suffix without its dot."""
    items = (file(path, content, mode) for path, (mode, content) in files.items())
    return tar(items, Compression(f".{compression}" if compression else ""))


def many_files_tar(path: Path, *, files: int, seed: int = 0) -> int:
    """Write ``small_files`` as a tar, compressed as the path says; the bytes of their contents."""
    compression = next(
        (one for one in Compression if one.value and path.name.endswith(one.value)),
        Compression.NONE,
    )
    size = 0

    def counted() -> Iterator[Item]:
        nonlocal size
        for item in small_files(files, seed=seed):
            size += len(item.content)
            yield item

    write_tar(path, counted(), compression)
    return size


def wheel_bytes(name: str, files: Mapping[str, bytes]) -> bytes:
    """A wheel of version 1.0 with these files, for any Python."""
    info = f"{name}-1.0.dist-info"
    described = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(f"{path},,\n" for path in (*files, *described, f"{info}/RECORD"))
    contents: dict[str, bytes | str] = {**files, **described, f"{info}/RECORD": listed}
    return zip_archive(file(path, content) for path, content in contents.items())


@dataclass(frozen=True, slots=True)
class StoredZip(Joined):
    """A zip of generated members that are stored as they are; costs no memory."""

    members: Mapping[str, Generated] = field(default_factory=dict)

    def member(self, name: str) -> bytes:
        """The content of one member."""
        body = self.members[name]
        return body.read(0, body.size)


def stored_zip(*, members: int, size: int, seed: int = 0) -> StoredZip:
    """A zip of so many members of so many bytes each.

    Source: PKWARE's appnote, 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (its end).
    """
    named = {f"member-{n:05}": Generated(size, seed * members + n) for n in range(members)}
    parts: list[Body] = []
    directory_of: list[bytes] = []
    offset = 0
    for name, body in named.items():
        crc = zlib.crc32(body.read(0, size))
        facts = struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0x21, crc, size, size, len(name), 0)
        parts += [Literal(b"PK\x03\x04" + facts + name.encode()), body]
        place = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, offset)
        directory_of.append(b"PK\x01\x02\x14\x03" + facts + place + name.encode())
        offset += parts[-2].size + size
    listed = b"".join(directory_of)
    end = struct.pack("<HHHHIIH", 0, 0, members, members, len(listed), offset, 0)
    parts += [Literal(listed), Literal(b"PK\x05\x06" + end)]
    return StoredZip(tuple(parts), members=named)


def zip_archive(items: Iterable[Item], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of the directories, files and symbolic links among the items, with their modes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for item in items:
            kind, name, content = 0o100000, item.path, item.content
            if item.kind == tarfile.DIRTYPE:
                kind, name = 0o040000, f"{item.path}/"
            elif item.kind == tarfile.SYMTYPE:
                kind, content = 0o120000, item.target.encode()
            info = zipfile.ZipInfo(name, _DOS_EPOCH)
            info.create_system = 3  # Unix: the mode is in the external attributes
            info.external_attr = (kind | item.mode) << 16
            info.compress_type = method
            archive.writestr(info, content)
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class Hostile:
    """A hostile archive. ``member`` is the one to blame; ``refused`` unless it can be contained."""

    name: str
    content: bytes
    member: str
    refused: bool = True


def hostile_tars() -> Iterator[Hostile]:
    """Tars that try to escape, to loop, or to lie; each with one bad member."""
    good = file("good", "good")
    yield Hostile("parent", tar([good, file("../evil", "x")]), "../evil")
    yield Hostile("hidden-parent", tar([good, file("a/../../evil", "x")]), "a/../../evil")
    yield Hostile("absolute", tar([good, file("/evil", "x")]), "/evil", refused=False)
    yield Hostile(
        "through-symlink",
        tar([directory("in"), symlink("out", "/etc"), file("out/evil", "x")]),
        "out/evil",
        refused=False,
    )
    loop = [symlink("a", "b"), symlink("b", "a"), file("a/evil", "x")]
    yield Hostile("symlink-loop", tar(loop), "a/evil")
    yield Hostile("link-to-nothing", tar([good, hard_link("evil", "none")]), "evil")
    yield Hostile("link-outside", tar([good, hard_link("evil", "../good")]), "evil")
    yield Hostile("cut-in-content", tar([good, file("evil", bytes(5000))])[:3000], "evil")
    yield Hostile("checksum", _bad_checksum([good, file("evil", "x")]), "")
    lying = Item("evil", pax=(("size", str(1 << 62)),))
    yield Hostile("size-of-everything", tar([good, lying]), "evil")
    nested = "/".join(["d"] * 2000)
    yield Hostile("deep", tar([good, file(f"{nested}/evil", "x")]), "d/d")


def _bad_checksum(items: list[Item]) -> bytes:
    content = bytearray(tar(items))
    place = content.index(b"evil")
    content[place] ^= 1
    return bytes(content)


def renamed(items: Iterable[Item], prefix: str) -> Iterator[Item]:
    """The items below a directory; what hard links point to moves with them."""
    for item in items:
        target = f"{prefix}/{item.target}" if item.kind == tarfile.LNKTYPE else item.target
        yield replace(item, path=f"{prefix}/{item.path}", target=target)
