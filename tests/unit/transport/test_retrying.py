"""Retrying on a clock of its own: how often, how long, and for what."""

import math

import pytest
import trio
from hypothesis import given, settings, strategies as st

from cafs.errors import (
    CafsError,
    DeadlineError,
    NotFoundError,
    PolicyError,
    RefusedError,
    UnreachableError,
)
from cafs.metrics import Metrics
from cafs.transport.interfaces import Request
from cafs.transport.retrying import Retrying, RetryPolicy
from tests.unit.transport.scripted import Scripted, Step

YA = RetryPolicy(retries=9, initial_s=1.0, multiplier=2.3, cap_s=360.0, jitter=False)
PYTHON = RetryPolicy(
    retries=0, initial_s=0.01, multiplier=1.25, cap_s=1.0, jitter=False, fixed=True
)
CPLUSPLUS = RetryPolicy(retries=0, initial_s=0.1, multiplier=1.5, cap_s=1.0)
URL = "http://source.example/"


def failing(count: int, error: CafsError | None = None) -> Scripted:
    steps: list[Step] = [error or UnreachableError("down")] * count
    return Scripted([*steps, None])


def test_y7_the_delays_of_ya() -> None:
    delays = [YA.delay_s(attempt) for attempt in range(9)]
    expected = [1, 2.3, 5.3, 12.2, 28, 64.4, 148, 340.5, 360]
    assert all(math.isclose(*pair, rel_tol=0.01) for pair in zip(delays, expected, strict=True))


def test_y7_fixed_delays_do_not_grow() -> None:
    assert [PYTHON.delay_s(attempt) for attempt in (0, 1, 5, 1000)] == [0.01] * 4


def test_the_cap_holds_for_any_number_of_attempts() -> None:
    assert YA.delay_s(100_000) == 360.0


@given(st.integers(0, 50), st.floats(0, 1, exclude_max=True))
@settings(deadline=None)
def test_y6_jitter_adds_at_most_half(attempt: int, chance: float) -> None:
    plain = RetryPolicy(jitter=False).delay_s(attempt)
    assert plain <= RetryPolicy().delay_s(attempt, chance=chance) <= plain * 1.5 + 1e-9


def test_y6_jitter_is_a_whole_number_of_milliseconds() -> None:
    assert CPLUSPLUS.delay_s(0, chance=0.0) == 0.1
    assert CPLUSPLUS.delay_s(0, chance=0.999999) == pytest.approx(0.15)
    assert CPLUSPLUS.delay_s(0, chance=0.5) == pytest.approx(0.125)


def test_retry_after_is_obeyed_up_to_its_cap() -> None:
    assert YA.delay_s(0, asked_s=30) == 30
    assert YA.delay_s(0, asked_s=0.1) == 1
    assert YA.delay_s(0, asked_s=1e9) == YA.retry_after_cap_s


async def test_y6_attempts_are_retries_plus_one_without_a_delay_at_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script, metrics = failing(10), Metrics()
    start = trio.current_time()
    with pytest.raises(UnreachableError):
        await Retrying(script, YA, metrics).open(Request(URL))
    assert len(script.requests) == 10
    assert metrics["fetch.retries"] == 9
    assert trio.current_time() - start == pytest.approx(sum(YA.delay_s(n) for n in range(9)))


async def test_no_retries_is_one_attempt(autojump_clock: trio.testing.MockClock) -> None:
    script = failing(1)
    with pytest.raises(UnreachableError):
        await Retrying(script, CPLUSPLUS, Metrics()).open(Request(URL))
    assert len(script.requests) == 1
    assert trio.current_time() == pytest.approx(0)


@pytest.mark.parametrize("error", [UnreachableError("x"), DeadlineError("x")])
async def test_what_may_pass_is_asked_again(
    autojump_clock: trio.testing.MockClock, error: CafsError
) -> None:
    script = failing(3, error)
    async with await Retrying(script, YA, Metrics()).open(Request(URL)) as response:
        assert response.head.status == 200
    assert len(script.requests) == 4


@pytest.mark.parametrize("error", [NotFoundError("x"), RefusedError("x"), PolicyError("x")])
async def test_y8_what_will_not_pass_is_not_asked_again(
    autojump_clock: trio.testing.MockClock, error: CafsError
) -> None:
    script = failing(3, error)
    with pytest.raises(type(error)):
        await Retrying(script, YA, Metrics()).open(Request(URL))
    assert len(script.requests) == 1


async def test_retry_after_sets_the_pace(autojump_clock: trio.testing.MockClock) -> None:
    script = failing(1, UnreachableError("busy", retry_after_s=17))
    async with await Retrying(script, YA, Metrics()).open(Request(URL)):
        pass
    assert trio.current_time() == pytest.approx(17)


@pytest.mark.parametrize(("attempts", "asked"), [(1, 1), (2, 2), (0, 1), (99, 10), (None, 10)])
async def test_a_request_can_ask_for_fewer_attempts(
    autojump_clock: trio.testing.MockClock, attempts: int | None, asked: int
) -> None:
    script = failing(20)
    with pytest.raises(UnreachableError):
        await Retrying(script, YA, Metrics()).open(Request(URL, attempts=attempts))
    assert len(script.requests) == asked


async def test_failures_that_are_not_raised_are_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[CafsError] = []
    script = failing(2)
    async with await Retrying(script, YA, Metrics()).open(Request(URL, failed=told.append)):
        pass
    assert [each.what for each in told] == ["down", "down"]
