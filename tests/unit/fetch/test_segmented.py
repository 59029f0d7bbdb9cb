"""Streams that are decoded from many places: what is read costs its segments, and nothing else."""

import gzip
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st
from msgspec import structs

from cafs.errors import (
    BudgetError,
    DigestMismatchError,
    MalformedError,
    OfflineError,
    StorageError,
)
from cafs.fetch.flights.planning import FINE, joined
from cafs.fetch.interfaces import Content
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import (
    StreamKey,
    archive_tree,
    decoded_stream,
    indexed_stream,
    indexed_tree,
    merged_tree,
)
from cafs.model.member import ROOT, Entry, Kind
from cafs.model.record import Segment, TreeRecord, TreeStream
from cafs.model.span import Span
from cafs.store.store import Store
from cafs.testing.faults import Corrupt, Latency, Stall
from cafs.testing.origin import Origin, running_origin
from tests.small_disk import TOLD_IN_TIME, disk_of, fill
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all, until

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


def middle(number: int) -> int:
    """A raw byte in the middle of a segment's input."""
    segment = ARCHIVE.segments[number]
    return segment.input_start + segment.input_length // 2


@pytest.fixture
def mirror() -> Iterator[Origin]:
    """Another place that has the archive."""
    with running_origin() as one:
        one.put("/a.tar.gz", ARCHIVE.data)
        yield one


@DOUBTED
@pytest.mark.parametrize("index", [None, INDEX])
async def test_a_wrong_byte_is_fetched_again_from_another_mirror(
    rig: Rig, origin: Origin, mirror: Origin, index: Digest | None
) -> None:
    bad, good = origin.put("/a.tar.gz", ARCHIVE.data), mirror.url("/a.tar.gz")
    origin.fault("/a.tar.gz", Corrupt(at=middle(3)))
    mirror.fault("/a.tar.gz", Latency(0.05))  # the other is asked first
    _, content = await opened(rig, bad, good, index=index)
    assert await content.read(3 * PIECE, PIECE, USUAL) == ARCHIVE.content[3 * PIECE : 4 * PIECE]
    # Who sent it is asked last from now on.
    before = origin.bytes_sent("/a.tar.gz")
    assert await content.read(30 * PIECE, PIECE, USUAL) == ARCHIVE.content[30 * PIECE : 31 * PIECE]
    assert origin.bytes_sent("/a.tar.gz") == before


@DOUBTED
async def test_a_byte_that_was_wrong_once_is_fetched_again_from_the_same_place(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/a.tar.gz", ARCHIVE.data)
    origin.fault("/a.tar.gz", Corrupt(at=middle(3), times=1))
    _, content = await opened(rig, url)
    assert await content.read(3 * PIECE, PIECE, USUAL) == ARCHIVE.content[3 * PIECE : 4 * PIECE]


@DOUBTED
@pytest.mark.parametrize("index", [None, INDEX])
async def test_a_byte_that_stays_wrong_is_an_error_that_names_what_did_not_match(
    rig: Rig, origin: Origin, index: Digest | None
) -> None:
    url = origin.put("/a.tar.gz", ARCHIVE.data)
    origin.fault("/a.tar.gz", Corrupt(at=middle(3)))
    _, content = await opened(rig, url, index=index)
    with pytest.raises(MalformedError) as failed:
        await content.read(3 * PIECE, 10, USUAL)
    segment = ARCHIVE.segments[3]
    stop = segment.input_start + segment.input_length
    assert url in failed.value.line
    assert f"bytes {segment.input_start}-{stop - 1} of the archive" in failed.value.line
    assert f"sha256:{segment.sha256.hex()}" in failed.value.line
    asked = len(origin.requests)
    with pytest.raises(MalformedError):
        await content.read(3 * PIECE, 10, USUAL)  # remembered
    assert len(origin.requests) == asked
    # What lies beside it can be read.
    assert await content.read(5 * PIECE, 10, USUAL) == ARCHIVE.content[5 * PIECE :][:10]
    assert content.present() == PIECE


async def test_a_forged_index_hands_out_nothing_and_blames_no_blob(
    rig: Rig, origin: Origin
) -> None:
    """The archive is here, and was checked: what contradicts it is wrong."""
    url = origin.put("/a.tar.gz", ARCHIVE.data)
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), url)
    await raw.ensure(Span(0, raw.size), USUAL)
    forged = [structs.replace(one, sha256=bytes(32)) for one in ARCHIVE.segments]
    record = planted(rig.store, raw.key, index=INDEX, segments=forged)
    content = rig.fetcher.decoded(record, 0, raw)
    with pytest.raises(DigestMismatchError, match="the index says"):
        await content.read(0, 10, USUAL)
    assert content.present() == 0
    assert await raw.read(0, 100, USUAL) == ARCHIVE.data[:100]
    assert origin.bytes_sent("/a.tar.gz") == len(ARCHIVE.data)


async def test_an_index_that_says_no_digest_hands_out_nothing(rig: Rig, origin: Origin) -> None:
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), origin.put("/a.tar.gz", ARCHIVE.data))
    silent = [structs.replace(one, sha256=b"") for one in ARCHIVE.segments]
    record = planted(rig.store, raw.key, index=INDEX, segments=silent)
    content = rig.fetcher.decoded(record, 0, raw)
    with pytest.raises(MalformedError, match="does not say"):
        await content.read(0, 10, USUAL)


@DOUBTED
async def test_a_forged_input_span_is_an_error(rig: Rig, origin: Origin) -> None:
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), origin.put("/a.tar.gz", ARCHIVE.data))
    beyond = [structs.replace(one, input_start=len(ARCHIVE.data)) for one in ARCHIVE.segments]
    content = rig.fetcher.decoded(planted(rig.store, raw.key, index=INDEX, segments=beyond), 0, raw)
    with pytest.raises(MalformedError, match="there are only"):
        await content.read(0, 10, USUAL)
    other = digest_of(b"another index")
    within = [structs.replace(one, input_start=one.input_start + 7) for one in ARCHIVE.segments[:9]]
    content = rig.fetcher.decoded(planted(rig.store, raw.key, index=other, segments=within), 0, raw)
    with pytest.raises(MalformedError):
        await content.read(0, 10, USUAL)


async def test_many_readers_of_a_segment_fetch_and_decode_it_once(rig: Rig, origin: Origin) -> None:
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    origin.fault("/a.tar.gz", Latency(0.1))
    got: list[bytes] = []

    async def reader(number: int) -> None:
        got.append(await content.read(9 * PIECE + number, 1, USUAL))

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(reader, number)
    assert sorted(got) == sorted(bytes([each]) for each in ARCHIVE.content[9 * PIECE :][:30])
    assert rig.metrics["fetch.verified"] == PIECE
    assert origin.bytes_sent() <= ARCHIVE.segments[9].input_length + (512 << 10)


async def test_with_its_last_reader_the_fetch_ends(rig: Rig, origin: Origin) -> None:
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    origin.fault("/a.tar.gz", Stall(after_bytes=1000))
    with trio.move_on_after(0.2) as scope:
        await content.read(9 * PIECE, 10, USUAL)
    assert scope.cancelled_caught
    await until(lambda: not rig.fetcher.inflight())
    origin.heal()
    origin.release()
    assert await content.read(9 * PIECE, 10, USUAL) == ARCHIVE.content[9 * PIECE :][:10]


async def test_a_source_without_ranges_is_fetched_whole_and_read_all_the_same(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/a.tar.gz", ARCHIVE.data, ranges=False)
    raw, content = await opened(rig, url)
    assert await content.read(30 * PIECE, 10, USUAL) == ARCHIVE.content[30 * PIECE :][:10]
    await until(lambda: raw.digest() == ARCHIVE.digest)
    assert origin.bytes_sent() < len(ARCHIVE.data) + MIB


@TOLD_IN_TIME
async def test_on_a_full_disk_what_is_read_comes_through_memory(
    origin: Origin, tmp_path: Path
) -> None:
    url = origin.put("/a.tar.gz", ARCHIVE.data)
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as rig:
            _, content = await opened(rig, url)
            fill(disk)
            for number in (3, 20, 39, 4):
                start = number * PIECE + 100
                data = await content.read(start, 100_000, USUAL)
                assert data == ARCHIVE.content[start:][:100_000]


async def test_nothing_is_fetched_without_leave(origin: Origin, tmp_path: Path) -> None:
    url = origin.put("/a.tar.gz", ARCHIVE.data)
    async with open_rig(origin, tmp_path / "store", offline=True) as rig:
        _, content = await opened(rig, url)
        with pytest.raises(OfflineError):
            await content.read(0, 10, USUAL)
        with pytest.raises(OfflineError):
            await content.read(0, 4 * PIECE, USUAL)
        assert not origin.requests
    async with open_rig(origin, tmp_path / "store", budget=3 * MIB) as rig:
        _, content = await opened(rig, url)
        assert await content.read(0, 10, USUAL) == ARCHIVE.content[:10]
        with pytest.raises(BudgetError):
            await read_all(content)
        # What the origin has sent may be more: it lies in sockets that nobody read.
        assert rig.metrics["fetch.bytes"] < 4 * MIB


async def test_segments_that_lie_apart_come_in_one_request_where_that_costs_less(
    rig: Rig, origin: Origin
) -> None:
    """As a long read of many small members has it."""
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    origin.fault("/a.tar.gz", Latency(0.03))
    assert await content.read(0, 10, USUAL) == ARCHIVE.content[:10]
    origin.forget()
    await content.ensure(Span(8 * PIECE, 24 * PIECE), USUAL)
    assert (
        await content.read(8 * PIECE, 16 * PIECE, USUAL)
        == ARCHIVE.content[8 * PIECE :][: 16 * PIECE]
    )
    assert len(origin.requests) <= 5


async def test_who_reads_on_finds_what_follows_on_its_way(rig: Rig, origin: Origin) -> None:
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    origin.fault("/a.tar.gz", Latency(0.02))
    assert await read_all(content) == ARCHIVE.content
    assert origin.bytes_sent("/a.tar.gz") == len(ARCHIVE.data)
    assert len(origin.requests) < COUNT // 2


async def test_who_reads_here_and_there_costs_his_segments_and_little_more(
    rig: Rig, origin: Origin
) -> None:
    """As the kernel reads a program that is mapped: forward for the most part."""
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    chosen = ARCHIVE.segments[::3]
    for one in chosen:
        at = one.start + one.length // 2
        assert await content.read(at, 4096, USUAL) == ARCHIVE.content[at : at + 4096]
    assert origin.bytes_sent("/a.tar.gz") <= sum(one.input_length + 2 * FINE for one in chosen)


@DOUBTED
@pytest.mark.expects_log("fetch.mirror.wrong")
async def test_who_sent_wrong_bytes_is_named_when_the_whole_has_passed_the_gate(
    rig: Rig, origin: Origin, mirror: Origin
) -> None:
    bad, good = origin.put("/a.tar.gz", ARCHIVE.data), mirror.url("/a.tar.gz")
    origin.fault("/a.tar.gz", Corrupt(at=middle(0), times=1))
    mirror.fault("/a.tar.gz", Latency(0.05))
    raw, content = await opened(rig, bad, good)
    assert await read_all(content) == ARCHIVE.content
    await until(lambda: raw.digest() == ARCHIVE.digest)
    host = f"127.0.0.1:{origin.port}"
    await until(
        lambda: any(one.host == host and one.state == "wrong" for one in rig.fetcher.mirrors())
    )


async def test_a_tree_that_another_pass_made_anew_is_found(rig: Rig, origin: Origin) -> None:
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), origin.put("/a.tar.gz", ARCHIVE.data))
    record = planted(rig.store, raw.key)
    image = shown_as(rig.store, record)
    content = rig.fetcher.decoded(image, 0, raw)
    assert await content.read(0, 10, USUAL) == ARCHIVE.content[:10]
    planted(rig.store, raw.key)
    await rig.store.trees.purge(rig.store.trees.left())
    assert await content.read(5 * PIECE, 10, USUAL) == ARCHIVE.content[5 * PIECE :][:10]


async def test_the_segments_of_an_image_lie_in_the_records_of_its_layers(
    rig: Rig, origin: Origin
) -> None:
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), origin.put("/a.tar.gz", ARCHIVE.data))
    record = planted(rig.store, raw.key, index=INDEX)
    image = shown_as(rig.store, record)
    content = rig.fetcher.decoded(image, 0, raw)
    assert await content.read(7 * PIECE, 10, USUAL) == ARCHIVE.content[7 * PIECE :][:10]
    await rig.store.trees.delete(record.identity)
    content = rig.fetcher.decoded(image, 0, raw)
    with pytest.raises(StorageError, match="left the store"):
        await content.read(9 * PIECE, 10, USUAL)


def shown_as(store: Store, record: TreeRecord) -> TreeRecord:
    """An image's tree over one layer."""
    with store.trees.writer(merged_tree([record.identity])) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        streams = (replace(record.streams[0], planted=record.identity),)
        return writer.publish(streams, None)


async def test_what_is_read_of_an_evicted_archive_is_verified_as_before(
    rig: Rig, origin: Origin
) -> None:
    raw, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    await content.read(0, 10, USUAL)
    stream = rig.store.streams.find(content.key)
    assert stream is not None
    assert stream.behind() == ARCHIVE.digest
    assert raw.digest() is None


async def test_what_an_index_says_has_nothing_of_ours_behind_it(rig: Rig, origin: Origin) -> None:
    _, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data), index=INDEX)
    await content.read(0, 10, USUAL)
    stream = rig.store.streams.find(content.key)
    assert stream is not None
    assert stream.behind() is None


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3000)), max_size=20),
    st.integers(0, 2000),
)
def test_spans_are_joined_where_the_gap_is_small(pairs: list[tuple[int, int]], gap: int) -> None:
    spans = [Span(start, start + length) for start, length in pairs]
    found = joined(spans, gap)
    assert all(
        any(one.start <= span.start and span.stop <= one.stop for one in found) for span in spans
    )
    assert all(one.stop + gap < two.start for one, two in pairwise(found))


async def test_a_long_segment_is_decoded_once_and_read_when_it_was_checked(
    rig: Rig, origin: Origin
) -> None:
    """Of 9 MiB: more than is held in memory."""
    long = archive(count=2, size=9 * MIB)
    raw = await rig.pinned(long.digest, len(long.data), origin.put("/a.tar.gz", long.data))
    content = rig.fetcher.decoded(planted(rig.store, raw.key, long), 0, raw)
    assert await content.read(10 * MIB, 4096, USUAL) == long.content[10 * MIB :][:4096]
    assert content.present() == 9 * MIB
    assert await content.read(0, 18 * MIB, USUAL) == long.content
    forged = [structs.replace(one, sha256=bytes(32)) for one in long.segments]
    await until(lambda: raw.digest() == long.digest)
    record = planted(rig.store, raw.key, long, index=INDEX, segments=forged)
    content = rig.fetcher.decoded(record, 0, raw)
    with pytest.raises(DigestMismatchError):
        await content.read(10 * MIB, 4096, USUAL)
    assert content.present() == 0
