"""How long a body may be silent: learned, bounded, and forgotten again. On a clock that jumps."""

import pytest
import trio
from trio.testing import MockClock

from cafs.transport.stalling import DRIP, Stalls


def stalls() -> Stalls:
    return Stalls(floor_s=2.0, cap_s=20.0)


def known(one: Stalls, host: str, *waits_s: float) -> None:
    for wait_s in (*waits_s, *[0.001] * 8):
        one.note(host, wait_s)


async def test_a_host_that_nobody_knows_gets_all_the_time() -> None:
    one = stalls()
    assert one.limit_s("new") == 20.0
    for _ in range(7):
        one.note("new", 0.01)
    assert one.limit_s("new") == 20.0


@pytest.mark.parametrize(
    ("longest_s", "limit_s"), [(0.001, 2.0), (0.5, 2.0), (1.0, 4.0), (3.0, 12.0), (9.0, 20.0)]
)
async def test_the_limit_is_four_times_the_longest_wait_between_floor_and_cap(
    autojump_clock: MockClock, longest_s: float, limit_s: float
) -> None:
    one = stalls()
    known(one, "host", longest_s)
    assert one.limit_s("host") == pytest.approx(limit_s)
    assert one.limit_s("another") == 20.0


async def test_a_long_wait_counts_half_after_five_minutes(autojump_clock: MockClock) -> None:
    one = stalls()
    known(one, "host", 4.0)
    await trio.sleep(300)
    assert one.limit_s("host") == pytest.approx(8.0)
    known(one, "host")
    await trio.sleep(300)
    assert one.limit_s("host") == pytest.approx(4.0)
    await trio.sleep(3000)
    assert one.limit_s("host") == 2.0


async def test_who_gave_up_too_early_waits_longer_next_time(autojump_clock: MockClock) -> None:
    one = stalls()
    known(one, "host")
    found = []
    for _ in range(4):
        watch = one.watch("host", resumable=True)
        found.append(watch.limit_s)
        watch.gave_up()
    assert found == pytest.approx([2.0, 8.0, 20.0, 20.0])


async def test_a_body_that_would_begin_again_is_given_all_the_time() -> None:
    one = stalls()
    known(one, "host")
    assert one.watch("host", resumable=True).limit_s == 2.0
    assert one.watch("host", resumable=False).limit_s == 20.0


async def test_a_drip_is_a_stall_and_a_trickle_is_not(autojump_clock: MockClock) -> None:
    for count, fine in ((DRIP // 2 - 1, False), (DRIP // 2, True)):
        one = stalls()
        known(one, "host")
        watch = one.watch("host", resumable=True)
        assert all(watch.came(count, 0.5) for _ in range(3))
        assert watch.came(count, 0.5) is fine


async def test_a_burst_long_ago_does_not_excuse_a_drip(autojump_clock: MockClock) -> None:
    one = stalls()
    known(one, "host")
    watch = one.watch("host", resumable=True)
    assert all(watch.came(1 << 20, 0.5) for _ in range(4))
    found = [watch.came(1, 0.4) for _ in range(5)]
    assert found == [True] * 4 + [False]


async def test_time_in_which_nobody_reads_does_not_count(autojump_clock: MockClock) -> None:
    one = stalls()
    known(one, "host")
    watch = one.watch("host", resumable=True)
    for _ in range(20):
        await trio.sleep(60)  # the reader is busy elsewhere
        assert watch.came(1, 0.01)


async def test_a_floor_above_the_cap_is_the_cap(autojump_clock: MockClock) -> None:
    one = Stalls(floor_s=2.0, cap_s=0.3)
    known(one, "host", 5.0)
    assert one.limit_s("host") == 0.3
