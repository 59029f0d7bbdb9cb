"""Makes the inputs that fuzzing the parsers begins with: ``python -m tests.fuzz.seeds DIRECTORY``.

Real tools make them, from a few small files. What fuzzing has found since is in the corpus too.
"""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard

from cafs.codec import windows
from tests.fuzz.index_fuzz import flattened
from tests.indexed import ENTRIES, HEADER, Craft, written

TEXT = b"".join(b"line %d of a text that repeats itself\n" % number for number in range(200))
TIME = "2024-01-02 03:04:05.678901234"
TAR = ("tar", "-b1", "--owner=u:1000", "--group=g:1000", f"--mtime={TIME}", "-cf-", "-C")
SPARSE = ("--sparse", "--hole-detection=raw")
FORMS = {
    "v7": ("--format=v7", "short", "dir/text", "link", "hard"),
    "ustar": ("--format=ustar", "short", "dir", "link", "hard", "pipe"),
    "gnu": ("--format=gnu", "short", "dir", "t"),
    "pax": ("--format=posix", "--xattrs", "short", "dir/text", "t"),
    "global": ("--format=posix", "--pax-option=globexthdr.name=g,comment=x,mtime:=1", "dir"),
    "sparse-old": ("--format=gnu", *SPARSE, "holes"),
    "sparse-more": ("--format=gnu", *SPARSE, "many-holes"),
    "sparse-0.0": ("--format=posix", *SPARSE, "--sparse-version=0.0", "holes"),
    "sparse-0.1": ("--format=posix", *SPARSE, "--sparse-version=0.1", "holes"),
    "sparse-1.0": ("--format=posix", *SPARSE, "--sparse-version=1.0", "holes"),
    "incremental": ("--format=gnu", "--incremental", "dir"),
    "label": ("--format=gnu", "--label=volume", "short"),
}


def tree(root: Path) -> None:
    """The files that archives are made of."""
    (root / "dir").mkdir()
    (root / "short").write_bytes(b"content\n")
    (root / "dir" / "text").write_bytes(TEXT[:600])
    (root / "dir" / ("long" * 24)).write_bytes(b"")
    (root / "link").symlink_to("dir/text")
    (root / "hard").hardlink_to(root / "short")
    (root / "t" / ("u" * 120)).parent.mkdir()
    (root / "t" / ("u" * 120)).symlink_to("v" * 130)
    os.mkfifo(root / "pipe")
    os.setxattr(root / "short", "user.name", b"value=\n\0")
    for name, count in {"holes": 2, "many-holes": 6}.items():
        with (root / name).open("wb") as file:
            for at in range(count):
                file.seek(at << 11)
                file.write(b"data\n" * (at + 1))
            file.truncate(20_000)


def tool(*arguments: str | Path, given: bytes = b"", cwd: Path | None = None) -> bytes:
    """What a tool makes of its input."""
    return subprocess.run(
        arguments, input=given, stdout=subprocess.PIPE, check=True, cwd=cwd
    ).stdout


def tars(root: Path) -> Iterator[tuple[str, bytes]]:
    """Archives of every form; and the knobs before them."""
    for name, arguments in FORMS.items():
        yield name, b"\x04" + tool(*TAR, root, *arguments)
    yield "empty", b"\0" + bytes(1024)
    yield "v7-every", b"\x0c" + tool(*TAR, root, "--format=v7", "short", "link")


def zips(root: Path) -> Iterator[tuple[str, bytes]]:
    """Archives of every method that Info-ZIP and Python have, and as large ones are."""
    for name, arguments in {
        "deflate": ("-r", "-y", "-", ".", "-x", "holes", "pipe"),
        "store": ("-0", "-r", "-y", "-", "short", "dir", "link"),
        "bzip2": ("-Z", "bzip2", "-", "dir/text"),
        "bare": ("-X", "-D", "-r", "-", "dir"),
        "locked": ("-P", "secret", "-", "short"),
    }.items():
        yield name, b"\0" + tool("zip", "-q", *arguments, cwd=root)
    wide = (
        "import sys, zipfile; zipfile.ZIP64_LIMIT = 9;"
        "out = zipfile.ZipFile(sys.stdout.buffer, 'w', 8);"
        "out.writestr('a', b'text ' * 99); out.close()"
    )
    yield "zip64", b"\0" + tool(sys.executable, "-c", wide)
    lzma_zip = (
        "import sys, zipfile; out = zipfile.ZipFile(sys.stdout.buffer, 'w', zipfile.ZIP_LZMA);"
        "out.writestr('a', b'text ' * 99); out.comment = b'PK\\5\\6 of a comment'; out.close()"
    )
    yield "lzma", b"\0" + tool(sys.executable, "-c", lzma_zip)
    yield "shifted", b"\0#!/bin/sh\n" + tool("zip", "-q", "-X", "-", "short", cwd=root)


def gzips(root: Path) -> Iterator[tuple[str, bytes]]:
    """gzip, members, raw deflate, windows and segments."""
    archive = tool(*TAR, root, "--format=gnu", "short", "dir", "link")
    content = TEXT[:2000] + bytes(4000) + TEXT[2000::-1]
    yield "tool", b"\0" + tool("gzip", "-9", given=archive)
    yield "named", b"\x14" + tool("gzip", "-c", "dir/text", cwd=root)
    yield "members", b"\x04" + b"".join(gzip.compress(TEXT[at::5], mtime=0) for at in range(5))
    yield "zeros", b"\0" + gzip.compress(content, mtime=0) + bytes(100)
    for number, strategy in enumerate((0, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)):
        packer = zlib.compressobj(6, zlib.DEFLATED, -15, 1, strategy)
        parts = []
        for at in range(0, len(content), 2500):
            parts += [packer.compress(content[at : at + 2500]), packer.flush(zlib.Z_SYNC_FLUSH)]
        raw = b"".join(parts) + packer.flush()
        yield f"deflate-{number}", bytes([1 | number << 2]) + raw
    for number in range(3):
        # Blocks of 127 symbols: each begins at some bit.
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 1)
        raw = packer.compress(TEXT[number * 700 : 2500]) + packer.flush()
        yield f"bits-{number}", b"\x05" + raw
    yield "stored", b"\x05" + _deflated(TEXT[:1500], 0) + _deflated(b"", 6) + _deflated(TEXT, 1)
    yield "window", b"\x02" + windows.pack(TEXT)
    packer = zlib.compressobj(6, zlib.DEFLATED, -15, 9, 0, TEXT[:1000])
    behind = packer.compress(TEXT[:500]) + packer.flush()
    yield "segment", b"\x03\0\xe8\x03\xf4\x01\0\0" + TEXT[:1000] + behind
    yield "segment-gzip", b"\x03\x10\0\0\x64\0\x0a\0" + gzip.compress(TEXT[:200], mtime=0)


def _deflated(content: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def frames(root: Path) -> Iterator[tuple[str, bytes]]:
    """zstd, xz and bzip2: by their tools, and in parts."""
    archive = tool(*TAR, root, "--format=gnu", "short", "dir", "link")
    for number, program in enumerate(("zstd", "xz", "bzip2")):
        yield program, bytes([number]) + tool(program, "-c", given=archive)
        parts = [
            tool(program, "-c", given=TEXT[at : at + 2500]) for at in range(0, len(TEXT), 2500)
        ]
        yield f"{program}-parts", bytes([number | 4]) + b"".join(parts)
    yield "xz-blocks", b"\x05" + tool("xz", "-c", "--block-size=1000", given=TEXT)
    yield "xz-sha256", b"\x05" + tool("xz", "-c", "--check=sha256", "--x86", "--lzma2", given=TEXT)
    yield "xz-padded", b"\x01" + lzma.compress(TEXT[:99]) + bytes(8) + lzma.compress(b"")
    yield "zstd-skipped", b"\0\x50\x2a\x4d\x18\4\0\0\0abcd" + zstandard.compress(TEXT)
    yield "zstd-long", b"\x04" + tool("zstd", "-c", "--long=20", "--no-check", given=TEXT * 30)
    yield "bzip2-many", b"\x06" + bz2.compress(bytes(range(256)) * 500, 1)
    kinds = ((0x00, 0, zstandard.compress), (0x14, 12, lzma.compress), (0x20, 4, bz2.compress))
    for state, start, pack in kinds:
        # 700 bytes behind 100 that are skipped.
        yield f"segment-{start}", bytes([0x83, state, 0xBC, 2, 100, 0]) + pack(TEXT[:900])[start:]
    for number in range(4):
        yield f"made-{number}", bytes([3, number, 3, 9, 200, 0, 0]) + TEXT[:900]


def contents(root: Path) -> Iterator[tuple[str, bytes]]:
    """Tables of contents as the tools' documents show them."""
    digest = "sha256:" + "00" * 32
    file = {
        "name": "dir/text", "type": "reg", "size": 600, "modtime": "2024-01-02T03:04:05.6Z",
        "mode": 0o100644, "uid": 1000, "gid": 1000, "userName": "u", "offset": 100,
        "xattrs": {"user.a": "AAE="}, "digest": digest,
    }  # fmt: skip
    chunk = {"name": "dir/text", "type": "chunk", "offset": 300, "chunkOffset": 400}
    entries = [
        {"name": "dir/", "type": "dir", "mode": 0o40755, "modtime": "2024-01-02T03:04:05Z"},
        {**file, "chunkSize": 400, "chunkDigest": digest},
        {**chunk, "chunkSize": 200, "chunkDigest": digest},
        {"name": "link", "type": "symlink", "linkName": "dir/text"},
        {"name": "hard", "type": "hardlink", "linkName": "dir/text"},
        {"name": "null", "type": "char", "devMajor": 1, "devMinor": 3},
        {"name": "pipe", "type": "fifo"},
        {"name": "empty", "type": "reg"},
        {**file, "name": "inner", "offset": 500, "innerOffset": 512, "size": 9, "endOffset": 900},
        {**file, "name": "holes", "offset": 900, "chunkSize": 100, "chunkDigest": digest},
        {
            **chunk,
            "name": "holes",
            "offset": 0,
            "chunkOffset": 100,
            "chunkSize": 500,
            "chunkType": "zeros",
        },
    ]
    table = json.dumps({"version": 1, "entries": entries}).encode()
    yield "estargz", b"\2" + table
    yield "chunked", b"\3" + json.dumps({"entries": entries[:9], "version": 1}, indent=1).encode()
    yield "empty", b'\2{"version":1,"entries":[]}'
    packed = io.BytesIO()
    name = root / "stargz.index.json"
    name.write_bytes(table)
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as member:
        member.write(tool(*TAR, root, "--format=ustar", name.name))
    yield "text", b"\1" + packed.getvalue()
    footer = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0%016xSTARGZ\1\0\0\xff\xff" % 4711
    yield "footer", b"\0" + footer + bytes(8)
    yield (
        "annotations",
        b"\4io.github.containers.zstd-chunked.manifest-position\n1:2:3:1\n"
        + (f"io.github.containers.zstd-chunked.manifest-checksum\n{digest}".encode()),
    )
    yield "annotation", b"\4containerd.io/snapshot/stargz/toc.digest\n" + digest.encode()


def indexes(_: Path) -> Iterator[tuple[str, bytes]]:
    """An index of all that a tree can have, packed and not."""
    packed = (b"", windows.pack(TEXT[:100]))
    index = written(ENTRIES, windows=packed)
    yield "packed", b"\0" + index
    yield "flat", b"\1" + flattened(index)
    yield "imported", b"\x09" + flattened(index)
    yield "small", b"\1" + flattened(Craft(windows=packed).bytes())
    layer = Craft(header=replace(HEADER, mark="+members"), windows=packed)
    yield "layer", b"\x09" + flattened(layer.add(b"a", shapes=4, targets=b"b").bytes())


def main() -> None:
    """Write them all."""
    to = Path(sys.argv[1])
    makers = {
        "tar": tars, "zip": zips, "gzip": gzips,
        "frames": frames, "contents": contents, "index": indexes,
    }  # fmt: skip
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        tree(root)
        for name, make in makers.items():
            (to / name).mkdir(parents=True, exist_ok=True)
            for seed, data in make(root):
                (to / name / seed).write_bytes(data)


if __name__ == "__main__":
    main()
