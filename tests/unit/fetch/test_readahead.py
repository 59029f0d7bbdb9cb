"""Read-ahead: how far it goes where more requests help, and which gaps it steps over."""

from cafs.fetch.flights.readahead import LARGEST, ReadAhead
from cafs.fetch.flights.runs import NEAR, Runs
from cafs.model.span import Span

MIB = 1 << 20
PIECE = 256 << 10
SIZE = 1 << 30


def ahead_of(ahead: ReadAhead, stop: int, at_once: int) -> list[tuple[int, int]]:
    """Where a reader was, and how far ahead of it things were advised then."""
    frontier, found = 0, []
    for offset in range(0, stop, PIECE):
        advice = ahead.advise(Span(offset, offset + PIECE), SIZE, at_once=at_once)
        if advice is not None:
            assert advice.length <= LARGEST
            frontier = advice.stop
        found.append((offset + PIECE, frontier - offset - PIECE))
    return found


def test_a_long_walk_has_as_many_requests_ahead_as_help() -> None:
    for at_once in (2, 4, 8):
        far = ahead_of(ReadAhead(), 300 * MIB, at_once)
        steady = [distance for reached, distance in far if reached > 150 * MIB]
        assert min(steady) >= (at_once - 1) * LARGEST - PIECE
        assert max(steady) <= at_once * LARGEST


def test_what_is_ahead_is_never_more_than_what_was_read_or_two_windows() -> None:
    for reached, distance in ahead_of(ReadAhead(), 100 * MIB, 16):
        assert distance <= max(reached + LARGEST, 2 * LARGEST)


def test_what_is_ahead_keeps_within_a_limit_and_comes_in_halves_of_it() -> None:
    for limit in (1 * MIB, 4 * MIB, 20 * MIB):
        ahead, asked = ReadAhead(), 0
        for offset in range(0, 100 * MIB, PIECE):
            span = Span(offset, offset + PIECE)
            advice = ahead.advise(span, SIZE, at_once=16, limit=limit)
            if advice is not None:
                asked += 1
                assert advice.stop - span.stop <= limit
                assert advice.length >= min(MIB, limit // 2)
        assert 100 * MIB // min(LARGEST, limit // 2) <= asked + 8


def strided(stride: int, gap: int) -> int:
    """Bytes advised to a reader that reads a little every so many bytes."""
    ahead = ReadAhead()
    advice = [
        ahead.advise(Span(at * stride, at * stride + 4096), SIZE, gap=gap) for at in range(20)
    ]
    return sum(one.length for one in advice if one is not None)


def test_a_reader_that_leaves_out_little_goes_forward() -> None:
    assert strided(2 * MIB, 0) == 0
    assert strided(2 * MIB, 3 * MIB) > 20 * MIB
    assert strided(4 * MIB, 3 * MIB) == 0


def test_what_the_kernel_sends_out_of_order_is_one_reader_whatever_a_gap_costs() -> None:
    assert strided(NEAR, 0) > 0


def test_a_read_out_of_order_is_of_the_run_and_brings_it_no_further() -> None:
    runs = Runs()
    first = runs.note(Span(5 * MIB + 1000, 6 * MIB))
    assert not first.forward
    before = runs.note(Span(5 * MIB, 5 * MIB + 1000))
    assert (before.start, before.reached, before.forward) == (5 * MIB, 6 * MIB, False)
    assert before is first
    after = runs.note(Span(6 * MIB + 1000, 7 * MIB))
    assert (after.reached, after.read, after.forward) == (7 * MIB, 2 * MIB - 1000, True)
    assert runs.note(Span(9 * MIB, 10 * MIB), gap=2 * MIB) is first
    assert runs.note(Span(12 * MIB, 13 * MIB)) is not first
