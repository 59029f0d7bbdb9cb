"""Random archives of every format: what is read of them anywhere, in any order, is what was packed.

Each is read in the store that has made a pass, there again when what was decoded is dropped, and in
another one that has the index alone and fetches what it reads. ``EXAMPLES=200`` has so many of each
format instead of two.
"""

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
import zstandard
from hypothesis import Phase, given, settings, strategies as st

from cafs.fetch.interfaces import Content
from cafs.model.digest import digest_of
from cafs.model.member import ROOT, Kind
from cafs.model.record import TreeRecord
from cafs.testing.origin import Origin, running_origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all
from tests.unit.fetch.test_indexed import lend

EXAMPLES = int(os.environ.get("EXAMPLES", "2"))
MIB = 1 << 20
_SOURCE = random.Random(11)
WORDS = [_SOURCE.randbytes(_SOURCE.randrange(2, 9)).hex().encode() for _ in range(4000)]
TEXT = b" ".join(_SOURCE.choices(WORDS, k=400_000))
NOISE = _SOURCE.randbytes(3 * MIB)
METHODS = [
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
]
SUFFIXES = {"gz": ".gz", "bg": ".gz", "zs": ".zst", "xz": ".xz", "bz": ".bz2"}
Packer = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class File:
    """A file's content: of a kind, so long, from somewhere."""

    kind: int
    size: int
    at: int

    def content(self) -> bytes:
        if self.kind == 0:
            return bytes(self.size)
        source = NOISE if self.kind == 1 else TEXT
        at = self.at % len(source)
        return (source[at:] + source)[: self.size]


sizes = st.sampled_from([700_000, 3 * MIB, 0, 1, 511, 512, 513, 40_000])
files = st.lists(
    st.builds(File, st.integers(0, 3), sizes, st.integers(0, 8 * MIB)), min_size=1, max_size=6
)
reads = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3 * MIB), st.sampled_from([1, 4096, 131_072, MIB])),
    min_size=1,
    max_size=12,
)


def tar_of(contents: list[bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, data in enumerate(contents):
            member = tarfile.TarInfo(f"{number}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zip_of(contents: list[bytes], dice: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, data in enumerate(contents):
            method = dice.choice(METHODS)
            # The slow ones are of small members.
            method = method if len(data) < MIB else min(method, zipfile.ZIP_DEFLATED)
            archive.writestr(f"{number}", data, method)
    return out.getvalue()


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def tool(data: bytes, *arguments: str) -> bytes:
    return subprocess.run(arguments, input=data, stdout=subprocess.PIPE, check=True).stdout


def bgzf(data: bytes) -> bytes:
    """Members of at most 64 KiB that tell their size, and an empty one at the end."""
    members = []
    for piece in [*cut(data, 0xFF00), b""]:
        member = gzip.compress(piece, 1, mtime=0)
        size = (len(member) + 7).to_bytes(2, "little")
        head = member[:3] + b"\4" + member[4:10] + b"\6\0BC\2\0" + size
        members.append(head + member[10:])
    return b"".join(members)


def parts(data: bytes, dice: random.Random, pack: Callable[[bytes], bytes], least: int) -> bytes:
    """Packed in one part, or many."""
    size = dice.choice([len(data), MIB, least])
    return b"".join(map(pack, cut(data, size)))


FORMATS: dict[str, Packer] = {
    "tar": lambda data, _: data,
    "gzip": lambda data, dice: tool(data, "gzip", "-n", f"-{dice.choice([1, 6, 9])}"),
    "gzip-members": lambda data, dice: parts(data, dice, partial(gzip.compress, mtime=0), 5000),
    "gzip-flushed": lambda data, dice: tool(data, "gzip", "-n", "--rsyncable"),
    "bgzf": lambda data, _: bgzf(data),
    "zstd": lambda data, dice: tool(data, "zstd", "-c", f"-{dice.choice([1, 3])}"),
    "zstd-frames": lambda data, dice: parts(data, dice, zstandard.compress, 30_000),
    "xz": lambda data, _: tool(data, "xz", "-0", "-c"),
    "xz-blocks": lambda data, dice: tool(
        data, "xz", "-0", "-c", f"--block-size={dice.choice([200_000, MIB])}"
    ),
    "xz-streams": lambda data, dice: parts(data, dice, partial(lzma.compress, preset=0), 100_000),
    "bzip2": lambda data, dice: bz2.compress(data, dice.choice([1, 9])),
    "bzip2-streams": lambda data, dice: parts(data, dice, bz2.compress, 200_000),
}
"""Packers of a tar; a zip is made of files."""


@dataclass(frozen=True)
class Packed:
    """An archive, where it is, and what is in it."""

    body: bytes
    url: str
    contents: list[bytes]

    async def opened(self, rig: Rig) -> Content:
        return await rig.pinned(digest_of(self.body), len(self.body), self.url)

    async def check(
        self, rig: Rig, record: TreeRecord, raw: Content, reads: list[tuple[int, int, int]]
    ) -> None:
        """Read as programs would: never beyond the end of a file."""
        for number, start, most in reads:
            name, data = number % len(self.contents), self.contents[number % len(self.contents)]
            found = rig.store.trees.child(record.number, ROOT, b"%d" % name)
            assert found is not None
            entry = rig.store.trees.entry(record.number, found)
            assert (entry.kind, entry.size) == (Kind.FILE, len(data))
            at = start % (len(data) + 1)
            length = min(most, len(data) - at)
            content = rig.fetcher.decoded(record, entry.stream, raw)
            got = await content.read(entry.offset + at, length, USUAL)
            assert got == data[at : at + length]


async def read_twice(packed: Packed, origin: Origin, reads: list[tuple[int, int, int]]) -> None:
    """Here, after what a pass has decoded was dropped; and elsewhere, where nobody made a pass."""
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        async with open_rig(origin, Path(first)) as rig:
            raw = await packed.opened(rig)
            record = await rig.plant(raw)
            await packed.check(rig, record, raw, reads)
            for stream in record.streams:
                held = rig.store.streams.find(stream.key)
                if held is not None:
                    await held.discard()
            await packed.check(rig, record, raw, reads[::-1])
            if zipfile.is_zipfile(io.BytesIO(packed.body)):
                # Its index has digests of members that were read out of a whole blob.
                await read_all(raw)
                every = [(number, 0, 4 * MIB) for number in range(len(packed.contents))]
                await packed.check(rig, record, raw, every)
                await rig.store.members.flush()
            lent = await lend(rig, record, packed.body)
        async with open_rig(origin, Path(second)) as rig:
            raw = await packed.opened(rig)
            record = await lent.borrow(rig, raw)
            await packed.check(rig, record, raw, reads)


@pytest.mark.parametrize("form", [*FORMATS, "zip"])
def test_what_is_read_of_a_random_archive_is_what_was_packed(form: str) -> None:
    with running_origin() as origin:

        @settings(max_examples=EXAMPLES, phases=[Phase.reuse, Phase.generate])
        @given(files, reads, st.integers(0, 1 << 32))
        def holds(files: list[File], reads: list[tuple[int, int, int]], seed: int) -> None:
            dice = random.Random(seed)
            # bzip2 takes its time.
            most = MIB if form.startswith("bzip2") else 3 * MIB
            contents = [file.content()[:most] for file in files]
            pack = FORMATS.get(form)
            body = zip_of(contents, dice) if pack is None else pack(tar_of(contents), dice)
            path = "/x.zip" if pack is None else f"/x.tar{SUFFIXES.get(form[:2], '')}"
            packed = Packed(body, origin.put(path, body), contents)
            trio.run(read_twice, packed, origin, reads)

        holds()
