"""The parts that decide and do not act."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from cafs.errors import NotFoundError, RefusedError, SizeMismatchError, SourceChangedError
from cafs.fetch.flights.judging import Terms, judge
from cafs.fetch.flights.planning import GRANULE, LONGEST, requests, window
from cafs.fetch.flights.readahead import LARGEST, SMALLEST, ReadAhead
from cafs.fetch.sources.rotation import Rotation
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.model.validator import UNKNOWN_VERSION, Validator
from cafs.transport.interfaces import Head

MIB = 1 << 20


def spans(limit: int) -> st.SearchStrategy[Span]:
    edge = st.integers(0, limit)
    return st.builds(lambda a, b: Span(min(a, b), max(a, b)), edge, edge)


@given(
    spans(100 * MIB),
    st.lists(spans(100 * MIB), max_size=6),
    st.lists(spans(100 * MIB), max_size=4),
    st.integers(1, 100 * MIB),
)
def test_requests_bring_all_that_is_missing_and_nothing_that_is_not(
    span: Span, present: list[Span], flying: list[Span], size: int
) -> None:
    there = SpanSet(present)
    planned = requests(span, there, flying, size)
    covered = there.union(SpanSet(flying))
    assert covered.union(SpanSet(planned)).covers(span.clamp(size))
    assert all(0 < one.length <= LONGEST and one.stop <= size for one in planned)
    assert all(not covered.intersection(one) for one in planned)
    assert sum(one.length for one in planned) == SpanSet(planned).total
    assert planned == sorted(planned)


@given(spans(20 * MIB))
def test_requests_fetch_at_most_the_granules_around(span: Span) -> None:
    planned = requests(span, SpanSet(), [], 20 * MIB)
    assert SpanSet(planned).total <= span.align(GRANULE).length


@given(st.integers(0, 100 * MIB), st.integers(0, 100 * MIB))
def test_the_window_of_a_long_read_is_four_requests_at_most(first: int, length: int) -> None:
    found = window(first, first + length)
    assert found.start == first
    assert found.stop <= first + length
    assert found.length <= 4 * LONGEST
    assert found.stop == first + length or found.stop % LONGEST == 0
    assert not length or found.length


def test_a_forward_reader_gets_a_window_that_doubles() -> None:
    ahead = ReadAhead()
    windows: list[Span] = []
    for offset in range(0, 80 * MIB, 128 << 10):
        found = ahead.advise(Span(offset, offset + (128 << 10)), 1 << 30)
        if found is not None:
            windows.append(found)
    assert [one.length for one in windows[:5]] == [MIB, 2 * MIB, 4 * MIB, 8 * MIB, 8 * MIB]
    assert windows[0].length == SMALLEST
    assert max(one.length for one in windows) == LARGEST
    assert all(one.stop == two.start for one, two in pairwise(windows))


def test_the_next_window_is_due_before_the_reader_reaches_the_end_of_the_last() -> None:
    ahead = ReadAhead()
    frontier = 0
    for offset in range(0, 64 * MIB, 128 << 10):
        found = ahead.advise(Span(offset, offset + (128 << 10)), 1 << 30)
        if found is not None:
            frontier = found.stop
        if offset > 16 * MIB:
            assert frontier - (offset + (128 << 10)) >= LARGEST


def test_a_seek_begins_again_with_the_smallest_window() -> None:
    ahead = ReadAhead()
    for offset in range(0, 30 * MIB, 128 << 10):
        ahead.advise(Span(offset, offset + (128 << 10)), 1 << 30)
    assert ahead.advise(Span(500 * MIB, 501 * MIB), 1 << 30) is None
    found = ahead.advise(Span(501 * MIB, 502 * MIB), 1 << 30)
    assert found == Span(502 * MIB, 503 * MIB)


def test_scattered_reads_get_nothing_ahead() -> None:
    ahead = ReadAhead()
    offsets = [900, 100, 700, 300, 500, 200, 800, 400, 600, 50]
    assert all(ahead.advise(Span(at * MIB, at * MIB + 4096), 1 << 30) is None for at in offsets)


def test_reads_that_the_kernel_sends_out_of_order_are_one_reader() -> None:
    ahead = ReadAhead()
    piece = 128 << 10
    order = [0, 1, 3, 2, 5, 4, 7, 6, 8, 10, 9, 12, 11]
    found = [ahead.advise(Span(at * piece, (at + 1) * piece), 1 << 30) for at in order]
    assert any(found)
    assert max(one.length for one in found if one is not None) >= 2 * MIB


def test_two_readers_of_one_content_do_not_disturb_each_other() -> None:
    ahead = ReadAhead()
    seen = {0: 0, 500: 0}
    for step in range(64):
        for base in seen:
            start = base * MIB + step * (128 << 10)
            found = ahead.advise(Span(start, start + (128 << 10)), 1 << 30)
            seen[base] += 0 if found is None else found.length
    assert all(total >= 15 * MIB for total in seen.values())


def test_nothing_is_advised_beyond_the_end() -> None:
    ahead = ReadAhead()
    ahead.advise(Span(0, MIB), 2 * MIB + 5)
    assert ahead.advise(Span(MIB, MIB + 10), 2 * MIB + 5) == Span(MIB + 10, 2 * MIB + 5)
    assert ahead.advise(Span(2 * MIB, 2 * MIB + 5), 2 * MIB + 5) is None


def test_sources_take_turns_and_a_round_ends_with_a_pause() -> None:
    rotation, order = Rotation(), [1, 2, 0]
    assert rotation.pick(order) == 1
    assert not rotation.failed(1, order)
    assert rotation.pick(order) == 2
    assert rotation.others(2, order) == [0]
    assert not rotation.failed(2, order)
    assert rotation.pick(order) == 0
    assert rotation.failed(0, order)
    assert (rotation.pick(order), rotation.rounds) == (1, 1)
    rotation.progressed()
    assert rotation.rounds == 0


def test_a_source_that_refused_is_left_out() -> None:
    rotation, order = Rotation(), [0, 1]
    rotation.refused(0, NotFoundError("first"), order)
    assert rotation.pick(order) == 1
    assert rotation.failed(1, order)
    with pytest.raises(NotFoundError, match="first"):
        rotation.refused(1, RefusedError("second"), order)


def test_a_source_that_is_best_now_is_asked_though_another_was_best_before() -> None:
    rotation = Rotation()
    assert rotation.pick([0, 1]) == 0
    assert rotation.pick([1, 0]) == 1


def terms(*, pinned: bool = False, validator: Validator = UNKNOWN_VERSION) -> Terms:
    return Terms(
        name="x",
        key=StreamKey("0" * 64),
        size=100,
        validator=validator,
        pinned=pinned,
        ranges=True,
        limit=1000,
    )


def head(
    status: int = 206, total: int | None = 100, validator: Validator = UNKNOWN_VERSION
) -> Head:
    return Head(url="u", status=status, total=total, validator=validator)


ETAG = Validator(etag='"1"')
OTHER = Validator(etag='"2"')


@pytest.mark.parametrize(
    ("promise", "answer", "whole"),
    [
        (terms(validator=ETAG), head(validator=ETAG), False),
        (terms(validator=ETAG), head(), False),
        (terms(validator=ETAG), head(200, validator=ETAG), True),
        (terms(), head(200), True),
        (terms(), head(200, total=None), True),
        (terms(pinned=True), head(validator=OTHER), False),
        (terms(pinned=True), head(200), True),
    ],
)
def test_right_answers_are_taken(promise: Terms, answer: Head, *, whole: bool) -> None:
    assert judge(answer, promise, promise.size) is whole


MTIME = Validator(mtime_ns=5, size=100)


@pytest.mark.parametrize(
    ("promise", "answer"),
    [
        (terms(validator=ETAG), head(validator=OTHER)),
        (terms(validator=ETAG), head(200)),
        (terms(validator=ETAG), head(200, validator=OTHER)),
        (terms(validator=ETAG), head(total=99, validator=ETAG)),
        (terms(), head(200, total=101)),
        (terms(validator=MTIME), head(validator=Validator(mtime_ns=6, size=100))),
        (
            terms(validator=Validator(last_modified="a", dated=True)),
            head(validator=Validator(last_modified="b", dated=True)),
        ),
    ],
)
def test_another_version_is_never_taken(promise: Terms, answer: Head) -> None:
    with pytest.raises(SourceChangedError):
        judge(answer, promise, promise.size)


def test_a_pin_takes_no_other_size() -> None:
    with pytest.raises(SizeMismatchError):
        judge(head(total=99), terms(pinned=True), 100)
