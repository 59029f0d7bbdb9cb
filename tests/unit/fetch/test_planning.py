"""Planning: gaps that cost less than a request are fetched too; the rest is left alone."""

from hypothesis import given, strategies as st

from cafs.fetch.planning import AT_ONCE, LARGEST_GAP, LONGEST, joined, requests, window, worth
from cafs.fetch.rating import Figures
from cafs.model.span import Span, SpanSet

KIB, MIB = 1 << 10, 1 << 20


def spans(limit: int) -> st.SearchStrategy[Span]:
    edge = st.integers(0, limit)
    return st.builds(lambda a, b: Span(min(a, b), max(a, b)), edge, edge)


def islands(count: int, size: int, distance: int) -> SpanSet:
    """What scattered reads left behind."""
    return SpanSet(Span(at * distance, at * distance + size) for at in range(1, count + 1))


def test_islands_that_cost_less_than_a_request_are_fetched_again() -> None:
    present = islands(7, 256 * KIB, MIB)
    apart = requests(Span(0, 8 * MIB), present, [], 8 * MIB)
    assert len(apart) == 8
    assert requests(Span(0, 8 * MIB), present, [], 8 * MIB, 256 * KIB) == [Span(0, 8 * MIB)]
    assert requests(Span(0, 8 * MIB), present, [], 8 * MIB, 256 * KIB - 1) == apart


def test_what_is_under_way_is_never_fetched_again() -> None:
    flying = [Span(2 * MIB, 3 * MIB)]
    found = requests(Span(0, 5 * MIB), SpanSet(), flying, 5 * MIB, 4 * MIB)
    assert found == [Span(0, 2 * MIB), Span(3 * MIB, 5 * MIB)]


@given(
    spans(40 * MIB),
    st.lists(spans(40 * MIB), max_size=6),
    st.lists(spans(40 * MIB), max_size=4),
    st.integers(0, 9 * MIB),
)
def test_with_any_gap_all_comes_and_no_more_than_the_gaps(
    span: Span, present: list[Span], flying: list[Span], gap: int
) -> None:
    size = 40 * MIB
    there, flights = SpanSet(present), SpanSet(flying)
    planned = requests(span, there, flying, size, gap)
    covered = there.union(flights)
    assert covered.union(SpanSet(planned)).covers(span.clamp(size))
    assert planned == sorted(planned)
    assert sum(one.length for one in planned) == SpanSet(planned).total
    assert all(0 < one.length <= LONGEST for one in planned)
    assert not any(flights.intersection(one) for one in planned)
    for one in planned:
        assert all(each.length <= gap for each in there.intersection(one))


def test_spans_are_joined_over_small_gaps_only() -> None:
    given_spans = [Span(0, 10), Span(12, 20), Span(25, 30)]
    assert joined(given_spans, 2) == [Span(0, 20), Span(25, 30)]
    assert joined(given_spans, 5) == [Span(0, 30)]
    assert joined([], 5) == []


def test_a_gap_is_worth_what_comes_in_a_round_trip() -> None:
    assert worth(None) == 0
    assert worth(Figures(latency_s=0.001, rate=125e6)) == 125_000
    assert worth(Figures(latency_s=0.03, rate=12.5e6)) == 375_000
    assert worth(Figures(latency_s=2.0, rate=125e6)) == LARGEST_GAP


def test_the_window_of_a_long_read_grows_with_what_helps() -> None:
    assert window(0, 1 << 30, 1) == window(0, 1 << 30)
    assert window(0, 1 << 30).length == (AT_ONCE - 1) * LONGEST
    assert window(0, 1 << 30, 16).length == 15 * LONGEST
