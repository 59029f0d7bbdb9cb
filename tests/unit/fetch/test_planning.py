"""Planning: what is missing is asked for in few requests, and nothing twice."""

from hypothesis import given, strategies as st

from cafs.fetch.flights.planning import AT_ONCE, LARGEST_GAP, LONGEST, requests, window, worth
from cafs.fetch.sources.rating import Figures
from cafs.model.span import Span, SpanSet

MIB = 1 << 20


def spans(limit: int) -> st.SearchStrategy[Span]:
    edge = st.integers(0, limit)
    return st.builds(lambda a, b: Span(min(a, b), max(a, b)), edge, edge)


def test_what_is_present_or_under_way_is_never_fetched_again() -> None:
    present = SpanSet([Span(MIB, MIB + 4096), Span(4 * MIB, 5 * MIB)])
    found = requests(Span(0, 5 * MIB), present, [Span(2 * MIB, 3 * MIB)], 5 * MIB)
    assert found == [Span(0, MIB), Span(MIB + 4096, 2 * MIB), Span(3 * MIB, 4 * MIB)]


@given(
    spans(40 * MIB),
    st.lists(spans(40 * MIB), max_size=6),
    st.lists(spans(40 * MIB), max_size=4),
)
def test_all_comes_and_nothing_twice(span: Span, present: list[Span], flying: list[Span]) -> None:
    size = 40 * MIB
    covered = SpanSet(present).union(SpanSet(flying))
    planned = requests(span, SpanSet(present), flying, size)
    assert covered.union(SpanSet(planned)).covers(span.clamp(size))
    assert planned == sorted(planned)
    assert sum(one.length for one in planned) == SpanSet(planned).total
    assert all(0 < one.length <= LONGEST for one in planned)
    assert not any(covered.intersection(one) for one in planned)


def test_a_gap_is_worth_what_comes_in_a_round_trip() -> None:
    assert worth(None) == 0
    assert worth(Figures(latency_s=0.001, rate=125e6)) == 125_000
    assert worth(Figures(latency_s=0.03, rate=12.5e6)) == 375_000
    assert worth(Figures(latency_s=2.0, rate=125e6)) == LARGEST_GAP


def test_the_window_of_a_long_read_grows_with_what_helps() -> None:
    assert window(0, 1 << 30, 1) == window(0, 1 << 30)
    assert window(0, 1 << 30).length == (AT_ONCE - 1) * LONGEST
    assert window(0, 1 << 30, 16).length == 15 * LONGEST
