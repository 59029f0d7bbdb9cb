"""What comes beside what is wanted: whole segments nearby, and what is read for the most part."""

from collections.abc import Callable, Sequence

import msgspec
from hypothesis import given, strategies as st

from cafs.fetch.content.beside import Files, beside
from cafs.fetch.flights.planning import BESIDE
from cafs.fetch.interfaces import Content
from cafs.model.record import Segment
from cafs.model.span import Span, SpanSet
from cafs.testing.faults import Stall
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, until
from tests.unit.fetch.test_segmented import Archive, archive, opened, planted

KIB = 1 << 10
MIB = 1 << 20
HEADER = 100
"""Raw bytes between two segments, which nobody needs."""
SIZE = 32 * KIB


def segments(sizes: Sequence[int], *, packed: int = 2) -> list[Segment]:
    """Segments of these sizes, each packed to a part of it, behind a header."""
    found: list[Segment] = []
    start = raw = 0
    for size in sizes:
        raw += HEADER
        length = max(1, size // packed)
        found.append(
            Segment(
                start=start,
                length=size,
                input_start=raw,
                input_length=length,
                codec="zstd",
                sha256=bytes(32),
            )
        )
        start, raw = start + size, raw + length
    return found


def apart(one: Segment, gap: int) -> Segment:
    """The same segment, with its input so many bytes further on."""
    return msgspec.structs.replace(one, input_start=one.input_start + gap)


def finder(every: Sequence[Segment]) -> Callable[[Span, int], Sequence[Segment]]:
    def find(span: Span, most: int) -> Sequence[Segment]:
        shared = [one for one in every if one.start < span.stop and _stop(one) > span.start]
        return shared[:most] if span.length else []

    return find


def _stop(one: Segment) -> int:
    return one.start + one.length


def inputs(run: Sequence[Segment]) -> Span:
    return Span(run[0].input_start, run[-1].input_start + run[-1].input_length)


def come(
    every: Sequence[Segment],
    first: int,
    last: int,
    *,
    here: Sequence[Span] = (),
    file: Span | None = None,
) -> Sequence[Span]:
    """What comes when the segments from the first to the last are wanted."""
    return beside(every[first : last + 1], file, finder(every), SpanSet(here).missing)


def test_whole_segments_nearby_come_and_no_part_of_any() -> None:
    every = segments([8 * KIB] * 400)
    [found] = come(every, 100, 100)
    whole = [one for one in every if found.start <= one.input_start < found.stop]
    assert found == inputs(whole)
    assert every[100] in whole
    assert len(whole) > 5
    assert found.length <= BESIDE


def test_of_long_neighbours_none_comes() -> None:
    every = segments([4 * MIB] * 3, packed=4)
    file = Span(0, 12 * MIB)
    assert come(every, 1, 1, file=file) == [inputs([every[1]])]


def test_what_is_here_does_not_come_again_and_nothing_beyond_it() -> None:
    every = segments([4 * KIB] * 100)
    around = [inputs([every[49]]), inputs([every[51]])]
    assert come(every, 50, 50, here=around) == [inputs([every[50]])]
    assert come(every, 49, 51, here=around) == [inputs([every[50]])]
    assert not come(every, 50, 50, here=[inputs([every[50]])])


def test_the_rest_of_a_block_comes_once_half_of_it_is_here() -> None:
    every = segments([SIZE] * 64)
    block = every[:16]  # 512 KiB
    for here, expected in ((6, block[7:8]), (7, block[8:])):
        [found] = come(every, here, here, here=[inputs(every[:here])])
        assert found.start == every[here].input_start
        assert found.stop <= expected[-1].input_start + expected[-1].input_length + BESIDE
        assert (found.stop >= inputs(block).stop) == (here == 7)


def test_a_long_block_of_a_file_comes_when_most_of_it_is_here_and_ends_with_the_file() -> None:
    every = segments([SIZE] * 256)
    file = Span(every[40].start, every[90].start)
    here = [inputs(every[40:70])]
    [found] = come(every, 72, 72, here=here, file=file)
    assert found == inputs(every[70:90])
    [alone] = come(every, 72, 72, here=here)
    assert alone.length < found.length
    [early] = come(every, 72, 72, here=[inputs(every[40:50])], file=file)
    assert early.length < found.length


@given(
    sizes=st.lists(st.integers(1, 600 * KIB), min_size=1, max_size=40),
    picked=st.data(),
    packed=st.integers(1, 8),
)
def test_all_that_is_wanted_comes_and_nothing_twice(
    sizes: list[int], picked: st.DataObject, packed: int
) -> None:
    every = segments(sizes, packed=packed)
    count = len(every)
    first = picked.draw(st.integers(0, count - 1))
    last = picked.draw(st.integers(first, count - 1))
    present = picked.draw(st.sets(st.integers(0, count - 1)))
    start = picked.draw(st.integers(0, first))
    file = picked.draw(st.sampled_from([None, Span(every[start].start, _stop(every[last]))]))
    here = SpanSet(inputs([every[number]]) for number in present)
    found = beside(every[first : last + 1], file, finder(every), here.missing)
    brought = SpanSet(found)
    for number in range(first, last + 1):
        assert brought.union(here).covers(inputs([every[number]]))
    assert not any(here.intersection(each) for each in found)
    assert sorted(found) == list(found)
    assert all(one.length <= 2 * MIB + inputs(every[first : last + 1]).length for one in found)


def test_what_lies_far_apart_in_the_input_comes_apart_and_nothing_in_between() -> None:
    first, second, third = segments([8 * KIB] * 3)
    far = [first, apart(second, 1 << 30), apart(third, 2 << 30)]
    assert come(far, 0, 1) == [inputs(far[:1]), inputs(far[1:2])]
    near = [first, apart(second, BESIDE - HEADER), apart(third, 2 << 30)]
    assert come(near, 0, 1) == [inputs(near[:2])]


def test_of_a_block_nothing_comes_that_would_cost_a_request_of_its_own() -> None:
    every = segments([SIZE] * 16)
    far = [*every[:12], *(apart(one, 1 << 30) for one in every[12:])]
    assert come(far, 8, 8, here=[inputs(far[:8])]) == [inputs(far[8:12])]


def test_of_many_files_those_read_last_are_known() -> None:
    files = Files()
    for number in range(100):
        files.note(Span(number * 10, number * 10 + 10))
    assert files.around(Span(995, 996)) == Span(990, 1000)
    assert files.around(Span(5, 6)) is None
    files.note(Span(0, 2000))
    assert files.around(Span(995, 996)) == Span(0, 2000)
    assert files.around(Span(2000, 2001)) is None


async def test_a_read_here_and_there_costs_fewer_requests_the_more_has_been_read(
    rig: Rig, origin: Origin
) -> None:
    small = archive(seed=9, count=128, size=SIZE)
    content = await _mapped(rig, origin, small)
    file = Span(0, len(small.content))
    # An order that is nobody's way forward.
    asked: list[int] = []
    for number in sorted(range(128), key=lambda number: number * 37 % 128):
        content.lies(lambda: file)
        at = number * SIZE
        assert await content.read(at, 100, USUAL) == small.content[at : at + 100]
        asked.append(len(origin.requests))
    assert asked[-1] < 64
    assert asked[-1] - asked[63] < asked[63] // 2
    assert origin.bytes_sent("/a") == len(small.data)


async def test_what_comes_beside_does_not_end_with_who_waits(rig: Rig, origin: Origin) -> None:
    small = archive(seed=9, count=64, size=4 * KIB)
    content = await _mapped(rig, origin, small)
    first = small.segments[0].input_length
    origin.fault("/a", Stall(first + 100))
    assert await content.read(0, 10, USUAL) == small.content[:10]
    origin.release()
    await until(lambda: origin.requests[0].ended)
    assert not origin.requests[0].aborted
    assert origin.bytes_sent("/a") > 6 * first
    for number in range(6):
        at = number * 4 * KIB
        assert await content.read(at, 100, USUAL) == small.content[at : at + 100]
    assert len(origin.requests) == 1


async def test_who_reads_one_file_to_its_end_has_nothing_fetched_of_the_next(
    rig: Rig, origin: Origin
) -> None:
    raw, content = await opened(rig, origin.put("/a.tar.gz", ARCHIVE.data))
    origin.forget()
    file = Span(0, 8 * 512 * KIB)
    for at in range(0, file.stop, 128 * KIB):
        content.lies(lambda: file)
        await content.read(at, 128 * KIB, USUAL)
    needed = sum(one.input_length for one in ARCHIVE.segments[:8])
    assert origin.bytes_sent("/a.tar.gz") == needed
    assert raw.digest() is None


ARCHIVE = archive()


async def _mapped(rig: Rig, origin: Origin, small: Archive) -> Content:
    """What an archive decodes to, with nothing of it here."""
    raw = await rig.pinned(small.digest, len(small.data), origin.put("/a", small.data))
    record = planted(rig.store, raw.key, small)
    origin.forget()
    return rig.fetcher.decoded(record, 0, raw)
