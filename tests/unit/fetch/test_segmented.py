"""Streams that are decoded from many places: what is read costs its segments, and nothing else."""

import gzip
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import trio

from cafs.fetch.interfaces import Content
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import (
    StreamKey,
    archive_tree,
    decoded_stream,
    indexed_stream,
    indexed_tree,
)
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.store.store import Store
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, read_all, until

MIB = 1 << 20
PIECE = 512 << 10
COUNT = 40
DOUBTED = pytest.mark.expects_log("fetch.mirror.doubted")
INDEX = digest_of(b"an index")


@dataclass(frozen=True)
class Archive:
    """Gzip members, one behind the other: each is a segment of what all of them decode to."""

    data: bytes
    content: bytes
    segments: tuple[Segment, ...]

    @property
    def digest(self) -> Digest:
        return digest_of(self.data)


def archive(seed: int = 1, count: int = COUNT, size: int = PIECE) -> Archive:
    source = random.Random(seed)
    raw, content = bytearray(), bytearray()
    segments: list[Segment] = []
    for _ in range(count):
        piece = source.randbytes(size)
        packed = gzip.compress(piece, 0, mtime=0)
        segments.append(
            Segment(
                start=len(content),
                length=size,
                input_start=len(raw),
                input_length=len(packed),
                codec="gzip",
                sha256=hashlib.sha256(piece).digest(),
            )
        )
        raw += packed
        content += piece
    return Archive(bytes(raw), bytes(content), tuple(segments))


ARCHIVE = archive()


def planted(
    store: Store,
    raw: StreamKey,
    archive: Archive = ARCHIVE,
    *,
    index: Digest | None = None,
    segments: Sequence[Segment] | None = None,
) -> TreeRecord:
    """The tree that a pass has made of an archive; or that an index says is its."""
    identity, key = archive_tree(raw), decoded_stream(raw, "gzip")
    if index is not None:
        identity, key = indexed_tree(identity, index), indexed_stream(raw, index)
    with store.trees.writer(identity) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        for segment in archive.segments if segments is None else segments:
            writer.add_segment(0, segment)
        what = TreeStream(
            key=key,
            size=len(archive.content),
            raw=raw,
            part=0,
            rules="segments",
            vouched=index is not None,
        )
        return writer.publish((what,), archive.digest if index is None else None)


async def opened(rig: Rig, *urls: str, index: Digest | None = None) -> tuple[Content, Content]:
    """The raw content, and what it decodes to, with nothing of either here."""
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), *urls)
    return raw, rig.fetcher.decoded(planted(rig.store, raw.key, index=index), 0, raw)


@pytest.mark.parametrize("index", [None, INDEX])
@pytest.mark.parametrize("pinned", [False, True])
async def test_a_read_fetches_the_segment_that_it_touches_and_little_else(
    rig: Rig, origin: Origin, *, pinned: bool, index: Digest | None
) -> None:
    url = origin.put("/a.tar.gz", ARCHIVE.data)
    raw, content = await opened(rig, url, index=index)
    if not pinned:
        raw = await rig.located(url)
        record = planted(rig.store, raw.key, index=index)
        content = rig.fetcher.decoded(record, 0, raw)
    origin.forget()
    start = 17 * PIECE + 12345
    assert await content.read(start, 4096, USUAL) == ARCHIVE.content[start : start + 4096]
    (segment,) = ARCHIVE.segments[17:18]
    slack = 2 * (256 << 10)
    assert segment.input_length <= origin.bytes_sent("/a.tar.gz") <= segment.input_length + slack
    assert content.present() == PIECE
    assert raw.digest() is None
    before = origin.bytes_sent()
    assert await content.read(17 * PIECE, PIECE, USUAL) == ARCHIVE.content[17 * PIECE : 18 * PIECE]
    assert origin.bytes_sent() == before


async def test_all_of_it_is_right_in_any_order(rig: Rig, origin: Origin) -> None:
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    dice = random.Random(3)

    async def reader() -> None:
        for _ in range(40):
            start, length = dice.randrange(len(ARCHIVE.content)), dice.choice([1, 4096, MIB])
            data = await content.read(start, length, USUAL)
            assert data == ARCHIVE.content[start : start + length]

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(reader)
    assert await read_all(content) == ARCHIVE.content


async def test_what_came_by_ranges_passes_the_gate_when_it_is_whole(
    rig: Rig, origin: Origin
) -> None:
    raw, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    assert await read_all(content) == ARCHIVE.content
    await until(lambda: raw.digest() == ARCHIVE.digest)
    assert origin.bytes_sent("/a.tar.gz") == len(ARCHIVE.data)
    assert await raw.read(5, 100, USUAL) == ARCHIVE.data[5:105]
