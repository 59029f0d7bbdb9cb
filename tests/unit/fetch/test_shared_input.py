"""Chunks that lie together in one gzip member: decoded once, each checked by its own digest."""

import gzip
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st
from msgspec.structs import replace

from cafs.codec.segments import Input, decode
from cafs.errors import DigestMismatchError, StorageFullError
from cafs.fetch.content import segmented, shared_input
from cafs.fetch.content.raw_ranges import LaneRanges
from cafs.fetch.content.segment_jobs import Job
from cafs.fetch.content.segmented import SegmentedContent
from cafs.fetch.content.shared_input import fitting, sharing
from cafs.fetch.flights.turns import Turns
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.pulse import Pulse
from cafs.model.record import Segment
from cafs.model.span import Span, SpanSet
from cafs.store.streams.drafting import Draft
from cafs.testing.faults import Corrupt
from cafs.testing.origin import Origin
from tests.small_disk import TOLD_IN_TIME, disk_of, fill
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all
from tests.unit.fetch.test_segmented import COUNT, INDEX, Archive, planted

CHUNK = 40_000
HEADER = 512
EACH = 8


def shared(*, members: int = 4, each: int = EACH, size: int = CHUNK) -> Archive:
    """Chunks behind headers that are no part of the content, ``each`` to a gzip member."""
    dice = random.Random(members)
    raw, content = bytearray(), bytearray()
    segments: list[Segment] = []
    for _ in range(members):
        chunks = [dice.randbytes(size) for _ in range(each)]
        packed = gzip.compress(b"".join(bytes(HEADER) + one for one in chunks), 1, mtime=0)
        for number, one in enumerate(chunks):
            segments.append(
                Segment(
                    start=len(content),
                    length=size,
                    input_start=len(raw),
                    input_length=len(packed),
                    codec="gzip",
                    sha256=hashlib.sha256(one).digest(),
                    skip=HEADER + number * (size + HEADER),
                )
            )
            content += one
        raw += packed
    return Archive(bytes(raw), bytes(content), tuple(segments))


ARCHIVE = shared()


@dataclass
class Decodes:
    """How often something was decoded, and the most at once of what shares its input."""

    count: int = 0
    now: int = 0
    most: int = 0


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    seen = Decodes()

    def counted(segment: Segment, read: Input, window: bytes, *, name: str) -> Iterator[bytes]:
        seen.count += 1
        seen.now += 1
        seen.most = max(seen.most, seen.now)
        try:
            yield from decode(segment, read, window, name=name)
        finally:
            seen.now -= 1

    monkeypatch.setattr(segmented, "decode", counted)
    return seen


async def opened(rig: Rig, origin: Origin, archive: Archive = ARCHIVE, **said: object) -> Content:
    raw = await rig.pinned(archive.digest, len(archive.data), origin.put("/a", archive.data))
    record = planted(rig.store, raw.key, archive, index=INDEX, **said)  # type: ignore[arg-type]
    return rig.fetcher.decoded(record, 0, raw)


async def test_what_comes_by_is_kept_and_a_member_is_decoded_once(
    rig: Rig, origin: Origin, decodes: Decodes
) -> None:
    content = await opened(rig, origin)
    at = 5 * CHUNK + 7
    assert await content.read(at, 10, USUAL) == ARCHIVE.content[at : at + 10]
    assert content.present() == EACH * CHUNK
    assert decodes.count == 1
    assert await read_all(content, CHUNK // 3) == ARCHIVE.content
    assert decodes.count == 4


async def test_many_readers_of_one_member_decode_it_once(
    rig: Rig, origin: Origin, decodes: Decodes
) -> None:
    content = await opened(rig, origin)
    got: dict[int, bytes] = {}

    async def reader(number: int) -> None:
        got[number] = await content.read(number * CHUNK, CHUNK, USUAL)

    async with trio.open_nursery() as nursery:
        for number in range(EACH):
            nursery.start_soon(reader, number)
    assert b"".join(got[number] for number in range(EACH)) == ARCHIVE.content[: EACH * CHUNK]
    assert decodes.count == 1


async def test_each_chunk_is_checked_by_its_own_digest(
    rig: Rig, origin: Origin, decodes: Decodes
) -> None:
    forged = list(ARCHIVE.segments)
    for number in (2, 6):
        forged[number] = replace(forged[number], sha256=bytes(32))
    content = await opened(rig, origin, segments=forged)
    assert await content.read(4 * CHUNK, CHUNK, USUAL) == ARCHIVE.content[4 * CHUNK : 5 * CHUNK]
    assert content.present() == (EACH - 2) * CHUNK
    for number in (0, 1, 3, 5, 7):
        data = await content.read(number * CHUNK, CHUNK, USUAL)
        assert data == ARCHIVE.content[number * CHUNK :][:CHUNK]
    assert decodes.count == 1


@pytest.mark.expects_log("fetch.mirror.doubted")
async def test_a_wrong_chunk_is_an_error_and_those_beside_it_are_kept(
    rig: Rig, origin: Origin
) -> None:
    forged = list(ARCHIVE.segments)
    forged[3] = replace(forged[3], sha256=bytes(32))
    content = await opened(rig, origin, segments=forged)
    with pytest.raises(DigestMismatchError, match="the index says"):
        await content.read(3 * CHUNK, 1, USUAL)
    assert content.present() == 3 * CHUNK
    assert await content.read(4 * CHUNK, CHUNK, USUAL) == ARCHIVE.content[4 * CHUNK : 5 * CHUNK]


async def test_damage_behind_what_is_wanted_is_not_its_error(rig: Rig, origin: Origin) -> None:
    content = await opened(rig, origin)
    last = ARCHIVE.segments[0].input_length - 20_000  # in the last chunk
    origin.fault("/a", Corrupt(at=last))
    assert await content.read(CHUNK, 10, USUAL) == ARCHIVE.content[CHUNK : CHUNK + 10]
    assert content.present() == (EACH - 1) * CHUNK


async def test_what_the_table_says_beyond_the_members_end_is_not_the_error_of_others(
    rig: Rig, origin: Origin
) -> None:
    said = list(ARCHIVE.segments)
    said[7] = replace(said[7], skip=said[7].skip + 1)
    content = await opened(rig, origin, segments=said)
    assert await content.read(CHUNK, 10, USUAL) == ARCHIVE.content[CHUNK : CHUNK + 10]
    assert content.present() == (EACH - 1) * CHUNK


async def test_it_goes_on_for_a_while_behind_what_is_wanted(
    rig: Rig, origin: Origin, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_input, "_ON", 2 * CHUNK)
    content = await opened(rig, origin)
    await content.read(CHUNK, 10, USUAL)
    assert content.present() == 4 * CHUNK
    await content.read(7 * CHUNK, 10, USUAL)
    assert content.present() == EACH * CHUNK
    assert decodes.count == 2


async def test_chunks_that_are_too_long_for_memory_are_kept_too(
    rig: Rig, origin: Origin, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("shared_input", "segment_jobs"):
        monkeypatch.setattr(f"cafs.fetch.content.{module}.IN_MEMORY", CHUNK - 1)
    forged = list(ARCHIVE.segments)
    forged[2] = replace(forged[2], sha256=bytes(32))
    content = await opened(rig, origin, segments=forged)
    assert await content.read(4 * CHUNK, CHUNK, USUAL) == ARCHIVE.content[4 * CHUNK : 5 * CHUNK]
    assert content.present() == (EACH - 1) * CHUNK
    assert decodes.count == 1


async def test_a_long_chunk_that_is_removed_meanwhile_is_decoded_again(
    rig: Rig, origin: Origin, decodes: Decodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("shared_input", "segment_jobs"):
        monkeypatch.setattr(f"cafs.fetch.content.{module}.IN_MEMORY", CHUNK - 1)
    keep, gone = Draft.keep, [True]

    def once_gone(draft: Draft) -> bool:
        if gone:
            gone.clear()
            draft.drop()
            return False
        return keep(draft)

    monkeypatch.setattr(Draft, "keep", once_gone)
    content = await opened(rig, origin)
    assert await content.read(0, EACH * CHUNK, USUAL) == ARCHIVE.content[: EACH * CHUNK]
    assert decodes.count == 2


@TOLD_IN_TIME
async def test_on_a_full_disk_chunks_come_through_memory(origin: Origin, tmp_path: Path) -> None:
    archive = shared(members=6, each=16, size=60_000)
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as rig:
            content = await opened(rig, origin, archive)
            fill(disk)
            for number in (3, 20, 95, 4):
                data = await content.read(number * 60_000 + 100, 59_000, USUAL)
                assert data == archive.content[number * 60_000 + 100 :][:59_000]


@TOLD_IN_TIME
async def test_on_a_full_disk_a_member_is_decoded_once_for_all_its_chunks(
    origin: Origin, tmp_path: Path, decodes: Decodes
) -> None:
    """But for tries whether there is room by now, of which there is one a second."""
    size, members = 60_000, 6
    archive = shared(members=members, each=16, size=size)
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as rig:
            content = await opened(rig, origin, archive)
            fill(disk)
            before = rig.metrics["fetch.verified"]
            began = trio.current_time()
            for member in range(members):
                for number in (9, 3, *range(16)):
                    at = (member * 16 + number) * size
                    assert await content.read(at, size, USUAL) == archive.content[at : at + size]
            tries = 3 * (2 + int(trio.current_time() - began))
            assert members <= decodes.count <= members + tries
            assert rig.metrics["fetch.verified"] - before >= members * 16 * size


@TOLD_IN_TIME
@pytest.mark.expects_log("fetch.mirror.doubted")
async def test_on_a_full_disk_only_what_is_right_comes_by(origin: Origin, tmp_path: Path) -> None:
    archive = shared(members=1, each=16, size=60_000)
    forged = list(archive.segments)
    for number in (2, 6):
        forged[number] = replace(forged[number], sha256=bytes(32))
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as rig:
            content = await opened(rig, origin, archive, segments=forged)
            fill(disk)
            for number in (4, 0, 7, 15):
                data = await content.read(number * 60_000, 60_000, USUAL)
                assert data == archive.content[number * 60_000 :][:60_000]
            with pytest.raises(DigestMismatchError, match="the index says"):
                await content.read(6 * 60_000, 60_000, USUAL)


@pytest.mark.parametrize(
    ("room", "chosen"),
    [(0, [3]), (10, [3, 4]), (39, [3, 4, 5]), (40, [3, 4, 5, 6]), (60, [1, 2, 3, 4, 5, 6])],
)
async def test_what_fits_into_memory_is_what_follows_first(room: int, chosen: list[int]) -> None:
    group = tuple(segment(10 * at, 10 + 10 * (at == 6), 10 * at) for at in range(7))
    wanted = group[3]
    job = Job(wanted, Span(0, 1), no_input, None, Work[None](0.0), group=group)
    assert [one.start // 10 for one in fitting(job, room).group] == chosen


async def no_input(offset: int, length: int) -> bytes:
    raise AssertionError("nothing is decoded")


def segment(start: int, length: int, skip: int, at: int = 0) -> Segment:
    return Segment(
        start=start, length=length, input_start=at, input_length=1, codec="gzip", skip=skip
    )


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30), st.integers(0, 1)), min_size=1),
    st.lists(st.integers(0, 100)),
    st.data(),
)
def test_a_group_ascends_and_does_not_overlap_whatever_a_table_says(
    rows: list[tuple[int, int, int]], there: list[int], data: st.DataObject
) -> None:
    segments: list[Segment] = []
    for length, skip, at in rows:
        start = segments[-1].start + segments[-1].length if segments else 0
        segments.append(segment(start, length, skip, at))
    wanted = data.draw(st.sampled_from(segments))

    def find(span: Span, most: int) -> list[Segment]:
        found = [
            one for one in segments if one.start < span.stop and span.start < one.start + one.length
        ]
        return found[:most]

    present = SpanSet(Span(at, at + 1) for at in there)
    group = sharing(wanted, find, lambda _: present)
    assert not group or wanted in group
    for one, two in pairwise(group):
        assert one.start + one.length <= two.start
        assert one.skip + one.length <= two.skip
        assert one.input_start == two.input_start


def test_of_very_many_that_share_their_input_the_nearest_are_looked_at() -> None:
    looked: list[int] = []

    def find(span: Span, most: int) -> list[Segment]:
        stop = min(span.stop, span.start + most, 1 << 20)
        found = [segment(at, 1, at) for at in range(span.start, stop)]
        looked.append(len(found))
        return found

    wanted = segment(1 << 19, 1, 1 << 19)
    group = sharing(wanted, find, lambda _: SpanSet())
    assert wanted in group
    assert 1000 < wanted.start - group[0].start < 10_000
    assert 1000 < group[-1].start - wanted.start < 10_000
    assert all(two.start == one.start + 1 for one, two in pairwise(group))
    assert sum(looked) < 30_000


async def test_one_at_a_time_has_a_turn_and_nothing_is_left(autojump_clock: object) -> None:
    turns, order = Turns(), list[str]()

    async def one(name: str) -> None:
        async with turns.hold("a", Pulse()):
            order.append(f"{name} begins")
            await trio.sleep(1)
            order.append(f"{name} ends")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "x")
        nursery.start_soon(one, "y")
        await trio.sleep(0.5)
        with trio.move_on_after(0.1):
            await one("z")
    assert [each.split()[1] for each in order] == ["begins", "ends"] * 2
    assert not turns._turns


async def test_decoders_leave_the_threads_that_all_share_to_others(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may wait for work that needs one: here what they decode is fetched as they go."""
    archive = shared(members=COUNT + 10, each=1, size=100_000)
    content = await opened(rig, origin, archive)
    ensure, pull, go = LaneRanges.ensure, SegmentedContent._pull, trio.Event()
    pulling = 0

    async def no_room(ranges: LaneRanges, span: Span, patience: Patience) -> None:
        if not go.is_set():
            raise StorageFullError("no room")
        await ensure(ranges, span, patience)

    async def late(content: SegmentedContent, work: Work[None], offset: int, length: int) -> bytes:
        nonlocal pulling
        pulling += 1
        await go.wait()
        return await pull(content, work, offset, length)

    monkeypatch.setattr(LaneRanges, "ensure", no_room)
    monkeypatch.setattr(SegmentedContent, "_pull", late)
    async with trio.open_nursery() as nursery:
        for number in range(COUNT + 10):
            nursery.start_soon(content.read, number * 100_000, 10, USUAL)
        await trio.testing.wait_all_tasks_blocked(0.5)
        assert pulling
        with trio.fail_after(20):
            await trio.to_thread.run_sync(int)
        go.set()
