"""Small segments that lie together: what has come beside a segment is decoded with it, and kept."""

from collections.abc import Callable, Sequence
from itertools import islice, pairwise
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st
from msgspec.structs import replace

from cafs.codec.segments import Input, decode
from cafs.errors import DigestMismatchError
from cafs.fetch.content import segmented
from cafs.fetch.content.together import STRETCH, batched, stretch, together
from cafs.fetch.interfaces import Content
from cafs.model.record import Segment
from cafs.model.span import Span, SpanSet
from cafs.testing.faults import Corrupt
from cafs.testing.origin import Origin
from tests.small_disk import TOLD_IN_TIME, disk_of, fill
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all
from tests.unit.fetch.test_segmented import INDEX, Archive, archive, planted

SIZE = 20_000
SMALL = archive(seed=5, count=100, size=SIZE)
ALL = Span(0, len(SMALL.data))
# Less than all, or it passes the gate, and its bytes are read as those of a blob.
MOST = Span(0, len(SMALL.data) - 100_000)
FIRST = [one for one in SMALL.segments if one.start < STRETCH]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where segments begin, in the order in which they were decoded."""
    starts: list[int] = []

    def noted(segment: Segment, read: Input, window: bytes, *, name: str) -> object:
        starts.append(segment.start)
        return decode(segment, read, window, name=name)

    monkeypatch.setattr(segmented, "decode", noted)
    return starts


async def opened(
    rig: Rig,
    origin: Origin,
    *,
    came: Span = ALL,
    segments: Sequence[Segment] | None = None,
    small: Archive = SMALL,
) -> Content:
    """What an archive decodes to, of which these raw bytes have come."""
    raw = await rig.pinned(small.digest, len(small.data), origin.put("/a", small.data))
    ranges = rig.fetcher.ranges(raw)
    assert ranges is not None
    await ranges.ensure(came, USUAL)
    record = planted(rig.store, raw.key, small, index=INDEX, segments=segments)
    return rig.fetcher.decoded(record, 0, raw)


def piece(number: int, small: Archive = SMALL) -> bytes:
    segment = small.segments[number]
    return small.content[segment.start : segment.start + segment.length]


@pytest.mark.parametrize("came", [MOST, ALL])
async def test_what_is_here_around_a_segment_is_decoded_with_it(
    rig: Rig, origin: Origin, decoded: list[int], came: Span
) -> None:
    content = await opened(rig, origin, came=came)
    asked = len(origin.requests)
    assert await content.read(7 * SIZE + 5, 10, USUAL) == piece(7)[5:15]
    assert decoded == sorted(decoded, key=lambda start: (start < 7 * SIZE, abs(start - 7 * SIZE)))
    assert sorted(decoded) == [one.start for one in FIRST]
    assert content.present() == len(FIRST) * SIZE
    assert rig.metrics["fetch.verified"] % ALL.stop == len(FIRST) * SIZE
    for number in range(len(FIRST)):
        assert await content.read(number * SIZE, SIZE, USUAL) == piece(number)
    assert len(decoded) == len(FIRST)
    assert len(origin.requests) == asked


async def test_nothing_is_fetched_for_what_nobody_wants(
    rig: Rig, origin: Origin, decoded: list[int]
) -> None:
    wanted = SMALL.segments[30]
    content = await opened(rig, origin, came=Span(0, 100))
    before = origin.bytes_sent()
    assert await content.read(wanted.start, 10, USUAL) == piece(30)[:10]
    sent = origin.bytes_sent() - before
    assert content.present() == len(decoded) * SIZE
    assert sum(SMALL.segments[start // SIZE].input_length for start in decoded) <= sent
    assert sent < 5 * SIZE


async def test_all_who_want_something_of_a_stretch_decode_it_once(
    rig: Rig, origin: Origin, decoded: list[int]
) -> None:
    content = await opened(rig, origin)
    got: dict[int, bytes] = {}

    async def reader(number: int) -> None:
        got[number] = await content.read(number * SIZE, SIZE, USUAL)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(reader, number)
    assert [got[number] for number in range(20)] == [piece(number) for number in range(20)]
    assert len(decoded) == len(FIRST)
    assert await read_all(content) == SMALL.content
    assert len(decoded) == len(SMALL.segments)


@pytest.mark.expects_log("fetch.mirror.doubted")
@pytest.mark.parametrize("wrong", [3, 12])
async def test_a_wrong_neighbour_is_an_error_of_whoever_wants_it_and_of_nobody_else(
    rig: Rig, origin: Origin, wrong: int
) -> None:
    segments = list(SMALL.segments)
    segments[wrong] = replace(segments[wrong], sha256=bytes(32))
    content = await opened(rig, origin, segments=segments)
    assert await content.read(7 * SIZE, SIZE, USUAL) == piece(7)
    for number in (wrong - 1, wrong + 1, 0, 20):
        assert await content.read(number * SIZE, SIZE, USUAL) == piece(number)
    with pytest.raises(DigestMismatchError):
        await content.read(wrong * SIZE, SIZE, USUAL)
    assert content.present() < len(FIRST) * SIZE


@pytest.mark.expects_log("fetch.mirror.doubted")
async def test_a_neighbour_that_came_damaged_is_fetched_again_when_it_is_wanted(
    rig: Rig, origin: Origin
) -> None:
    damaged = SMALL.segments[9]
    origin.put("/a", SMALL.data)
    origin.fault("/a", Corrupt(at=damaged.input_start + 5000, times=1))
    content = await opened(rig, origin, came=MOST)
    assert await content.read(7 * SIZE, SIZE, USUAL) == piece(7)
    assert content.present() == damaged.start
    assert await content.read(damaged.start, SIZE, USUAL) == piece(9)


@TOLD_IN_TIME
async def test_on_a_full_disk_every_segment_can_be_read(tmp_path: Path, origin: Origin) -> None:
    with disk_of(tmp_path / "disk", 24) as disk:
        async with open_rig(origin, disk / "store") as small:
            content = await opened(small, origin)
            fill(disk)
            for number in (7, 8, 3, 40, 6):
                assert await content.read(number * SIZE, SIZE, USUAL) == piece(number)


def chosen(
    segment: Segment,
    segments: Sequence[Segment],
    *,
    there: Sequence[Span] = (),
    here: Callable[[Span], bool] = lambda _: True,
) -> list[int]:
    """The numbers of the segments that would be decoded at once."""

    def find(span: Span, most: int) -> list[Segment]:
        found = (
            one
            for one in segments
            if span.start < one.start + one.length > 0 and one.start < span.stop
        )
        return list(islice(found, most))

    run = together(segment, find, SpanSet(there).intersection, here)
    return [segments.index(one) for one in run]


ROW = list(SMALL.segments[:10])


def test_a_run_ends_at_what_is_there_at_a_gap_and_at_what_is_decoded_otherwise() -> None:
    assert chosen(ROW[4], ROW) == list(range(10))
    assert chosen(ROW[4], ROW, there=[Span(ROW[2].start, ROW[2].start + 1)]) == list(range(3, 10))
    assert chosen(ROW[4], ROW[:6] + ROW[7:]) == list(range(6))
    for other in (
        {"codec": "deflate"},
        {"skip": 1},
        {"sha256": b""},
        {"length": 70_000},
        {"input_length": 70_000},
        {"input_start": ROW[5].input_start},
        {"input_start": ROW[6].input_start + (1 << 20)},
    ):
        odd = replace(ROW[6], **other)
        assert chosen(ROW[4], [*ROW[:6], odd, *ROW[7:]]) == list(range(6)), other
        assert chosen(odd, [*ROW[:6], odd, *ROW[7:]]) in ([], [6, 7, 8, 9], list(range(6, 10)))


def test_a_segment_without_a_neighbour_is_decoded_alone() -> None:
    assert chosen(ROW[0], ROW[:1]) == []
    assert chosen(ROW[4], ROW, here=lambda _: False) == []


@given(st.integers(0, 99), st.integers(0, len(SMALL.data)), st.integers(0, len(SMALL.data)))
def test_a_run_is_of_one_stretch_without_a_gap_and_all_of_its_input_is_here(
    number: int, start: int, stop: int
) -> None:
    wanted, came = SMALL.segments[number], Span(min(start, stop), max(start, stop))
    numbers = chosen(
        wanted,
        SMALL.segments,
        here=lambda span: came.start <= span.start and span.stop <= came.stop,
    )
    assert all(two == one + 1 for one, two in pairwise(numbers))
    assert not numbers or number in numbers
    for each in set(numbers) - {number}:
        segment = SMALL.segments[each]
        assert came.start <= segment.input_start
        assert segment.input_start + segment.input_length <= came.stop
        assert stretch(segment) == stretch(wanted)


def row(count: int, length: int, gap: int) -> list[Segment]:
    """Segments that follow each other, with so many raw bytes between two."""
    return [
        Segment(
            start=number * length,
            length=length,
            input_start=number * (length + gap),
            input_length=length,
            codec="store",
            sha256=bytes(32),
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("wanted", [0, 4000, 8191])
def test_what_a_run_reads_at_once_is_bounded_whatever_lies_between(wanted: int) -> None:
    segments = row(8192, 64, 64 << 10)
    numbers = chosen(segments[wanted], segments)
    first, last = segments[numbers[0]], segments[numbers[-1]]
    assert wanted in numbers
    assert 1 << 20 < last.input_start + last.input_length - first.input_start <= 4 << 20


@pytest.mark.parametrize("wanted", [0, 250_000, STRETCH - 1])
def test_of_very_many_segments_only_some_are_looked_at(wanted: int) -> None:
    looked: list[int] = []

    def find(span: Span, most: int) -> list[Segment]:
        found = [one_byte(at) for at in range(span.start, min(span.stop, span.start + most))]
        looked.append(len(found))
        return found

    run = together(one_byte(wanted), find, SpanSet().intersection, lambda _: True)
    assert one_byte(wanted) in run
    assert 1000 < len(run) < 5000
    assert sum(looked) < 7000


def one_byte(at: int) -> Segment:
    return Segment(
        start=at, length=1, input_start=at, input_length=1, codec="store", sha256=bytes(32)
    )


async def test_one_task_makes_what_comes_together(
    rig: Rig, origin: Origin, decoded: list[int]
) -> None:
    content = await opened(rig, origin)
    assert await content.read(0, STRETCH, USUAL) == SMALL.content[:STRETCH]
    assert decoded == [one.start for one in FIRST]
    batches = batched(SMALL.segments)
    assert [one for batch in batches for one in batch] == list(SMALL.segments)
    assert list(batches[0]) == FIRST
    assert all(len({stretch(one) for one in batch}) == 1 for batch in batches)
    long = [replace(one, length=1 << 20) for one in FIRST]
    assert [len(batch) for batch in batched(long)] == [1] * len(FIRST)
    shared = [replace(one, input_start=0, skip=one.start) for one in FIRST]
    assert [len(batch) for batch in batched(shared)] == [len(FIRST)]
