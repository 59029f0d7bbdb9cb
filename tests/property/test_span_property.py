"""Span sets behave as sets of integers."""

from hypothesis import given, strategies as st

from cafs.model.span import Span, SpanSet

LIMIT = 40
spans = st.builds(
    lambda pair: Span(min(pair), max(pair)),
    st.tuples(st.integers(0, LIMIT), st.integers(0, LIMIT)),
)
span_sets = st.lists(spans, max_size=8)


def ints(each: Span) -> set[int]:
    return set(range(each.start, each.stop))


def model(of: list[Span]) -> set[int]:
    return set().union(*map(ints, of))


def content(of: SpanSet) -> set[int]:
    return model(list(of))


@given(span_sets)
def test_building_is_union_and_normal(of: list[Span]) -> None:
    built = SpanSet(of)
    assert content(built) == model(of)
    assert built.total == len(model(of))
    bounds = built.bounds
    assert list(bounds) == sorted(set(bounds))
    assert bool(built) == bool(model(of))


@given(span_sets, span_sets)
def test_equality_and_hash_follow_content(one: list[Span], other: list[Span]) -> None:
    same = model(one) == model(other)
    assert (SpanSet(one) == SpanSet(other)) is same
    if same:
        assert hash(SpanSet(one)) == hash(SpanSet(other))


@given(span_sets, spans)
def test_operations_with_a_span(of: list[Span], span: Span) -> None:
    built = SpanSet(of)
    assert content(built.add(span)) == model(of) | ints(span)
    assert content(built.remove(span)) == model(of) - ints(span)
    assert content(built.intersection(span)) == model(of) & ints(span)
    assert built.overlaps(span) == bool(model(of) & ints(span))
    assert content(built.missing(span)) == ints(span) - model(of)
    assert built.covers(span) == (ints(span) <= model(of))


@given(span_sets, span_sets)
def test_union(one: list[Span], other: list[Span]) -> None:
    assert content(SpanSet(one).union(SpanSet(other))) == model(one) | model(other)


@given(spans, st.integers(1, 16), st.integers(0, LIMIT))
def test_aligning_surrounds_and_clamping_cuts(span: Span, granule: int, size: int) -> None:
    aligned = span.align(granule)
    assert ints(span) <= ints(aligned)
    assert aligned.start % granule == aligned.stop % granule == 0
    assert aligned.length < span.length + 2 * granule
    assert ints(span.clamp(size)) == {each for each in ints(span) if each < size}
