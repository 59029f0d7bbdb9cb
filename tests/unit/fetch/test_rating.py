"""Ratings: the order in which hosts are asked, and what is told of them. Pure."""

import pytest

from cafs.fetch.sources.rating import Ratings

MIB = 1 << 20
HOSTS = ("a", "b", "c")


def measured(ratings: Ratings, host: str, latency_s: float, rate: float, now: float = 0.0) -> None:
    """Let a host have these figures."""
    for _ in range(50):
        ratings.answered(host, latency_s, now)
        ratings.received(host, MIB, MIB / rate, now)


def test_unknown_hosts_keep_their_order_and_share_the_work() -> None:
    ratings = Ratings()
    assert ratings.order(HOSTS, MIB, 0.0) == [0, 1, 2]
    with ratings.asking("a"):
        assert ratings.order(HOSTS, MIB, 0.0) == [1, 2, 0]
        with ratings.asking("b"), ratings.asking("c"):
            assert ratings.order(HOSTS, MIB, 0.0) == [0, 1, 2]
    assert ratings.order(HOSTS, MIB, 0.0) == [0, 1, 2]


def test_the_fastest_comes_first_by_latency_and_rate() -> None:
    ratings = Ratings()
    measured(ratings, "a", 0.001, 1 * MIB)
    measured(ratings, "b", 0.1, 100 * MIB)
    assert ratings.order(("a", "b"), 8 * MIB, 0.0) == [1, 0]
    assert ratings.order(("a", "b"), 1000, 0.0) == [0, 1]


def test_a_host_that_is_busy_comes_after_one_that_is_nearly_as_fast() -> None:
    ratings = Ratings()
    measured(ratings, "a", 0.01, 100 * MIB)
    measured(ratings, "b", 0.01, 80 * MIB)
    assert ratings.order(("a", "b"), 8 * MIB, 0.0) == [0, 1]
    with ratings.asking("a"):
        assert ratings.order(("a", "b"), 8 * MIB, 0.0) == [1, 0]


def test_one_that_was_slow_is_tried_again_when_that_is_long_ago() -> None:
    ratings = Ratings()
    measured(ratings, "a", 0.01, 1 * MIB)
    measured(ratings, "b", 0.01, 50 * MIB)
    with ratings.asking("b"):
        assert ratings.order(("a", "b"), 8 * MIB, 0.0) == [1, 0]
        assert ratings.order(("a", "b"), 8 * MIB, 3600.0) == [0, 1]


def test_a_slow_one_is_told_and_not_left_out() -> None:
    ratings = Ratings()
    measured(ratings, "a", 0.01, 1 * MIB)
    measured(ratings, "b", 0.01, 50 * MIB)
    assert ratings.order(("a", "b"), MIB, 0.0) == [1, 0]
    told = {rating.host: rating for rating in ratings.all()}
    assert told["a"].state == "slow"
    assert "b" in told["a"].why
    assert (told["b"].state, told["b"].why) == ("ok", "")
    assert told["b"].received == 50 * MIB


def test_one_that_fails_comes_last_for_a_growing_while() -> None:
    ratings = Ratings()
    spans = []
    now = 0.0
    for _ in range(12):
        ratings.failed("a", "503", now)
        began = now
        while ratings.order(("a", "b"), MIB, now) == [1, 0]:
            now += 0.5
        spans.append(now - began)
    assert spans[:4] == [1.0, 2.0, 4.0, 8.0]
    assert spans[-1] == 300.0
    assert ratings.all()[0].state == "failing"
    ratings.succeeded("a")
    assert ratings.all()[0].state == "ok"
    ratings.failed("a", "503", now)
    assert ratings.order(("a", "b"), MIB, now + 1.0) == [0, 1]


def test_failures_of_one_moment_count_once() -> None:
    ratings = Ratings()
    for _ in range(8):
        ratings.failed("a", "reset", 5.0)
    assert ratings.order(("a", "b"), MIB, 6.0) == [0, 1]


def test_one_that_asked_for_time_gets_it() -> None:
    ratings = Ratings()
    ratings.failed("a", "503", 0.0, asked_s=60.0)
    assert ratings.order(("a", "b"), MIB, 59.0) == [1, 0]
    assert ratings.order(("a", "b"), MIB, 61.0) == [0, 1]


def test_wrong_bytes_are_told_for_good_and_held_against_it_for_a_while() -> None:
    ratings = Ratings()
    ratings.wrong("a", "x: its bytes were wrong", 0.0)
    ratings.succeeded("a")
    assert ratings.order(("a", "b"), MIB, 500.0) == [1, 0]
    assert ratings.order(("a", "b"), MIB, 700.0) == [0, 1]
    assert (ratings.all()[0].state, ratings.all()[0].why) == ("wrong", "x: its bytes were wrong")


def test_what_comes_right_after_wrong_bytes_ends_failures_and_not_the_ten_minutes() -> None:
    """ADR 0013: once the ten minutes are over, it fails and recovers as any other does."""
    ratings = Ratings()
    ratings.wrong("a", "x: its bytes were wrong", 0.0)
    ratings.failed("a", "503", 590.0, asked_s=60.0)
    ratings.succeeded("a")
    assert ratings.order(("a", "b"), MIB, 599.0) == [1, 0]
    assert ratings.order(("a", "b"), MIB, 601.0) == [0, 1], "no failure counts any more"
    ratings.failed("a", "503", 700.0)
    assert ratings.order(("a", "b"), MIB, 700.5) == [1, 0]
    ratings.succeeded("a")
    assert ratings.order(("a", "b"), MIB, 700.5) == [0, 1]
    ratings.wrong("a", "y: its bytes were wrong", 800.0)
    assert ratings.order(("a", "b"), MIB, 1399.0) == [1, 0], "it begins anew"
    assert ratings.order(("a", "b"), MIB, 1401.0) == [0, 1]


def test_failures_while_it_is_last_for_wrong_bytes_count_as_such() -> None:
    ratings = Ratings()
    ratings.wrong("a", "x: its bytes were wrong", 0.0)
    for now in (595.0, 596.0, 598.0):
        ratings.failed("a", "503", now)
    assert ratings.order(("a", "b"), MIB, 601.9) == [1, 0]
    assert ratings.order(("a", "b"), MIB, 602.0) == [0, 1]


def test_nobody_is_left_alone_for_a_year() -> None:
    ratings = Ratings()
    ratings.failed("a", "503", 0.0, asked_s=1e9)
    assert ratings.order(("a", "b"), MIB, 3599.0) == [1, 0]
    assert ratings.order(("a", "b"), MIB, 3601.0) == [0, 1]


def test_a_body_is_left_only_for_one_that_is_much_faster() -> None:
    ratings = Ratings()
    measured(ratings, "a", 0.01, 1 * MIB)
    measured(ratings, "b", 0.01, 2 * MIB)
    measured(ratings, "c", 0.01, 50 * MIB)
    assert not ratings.worth_leaving("a", ("b",), 8 * MIB, 1 * MIB, 0.0)
    assert ratings.worth_leaving("a", ("b", "c"), 8 * MIB, 1 * MIB, 0.0)
    assert not ratings.worth_leaving("a", (), 8 * MIB, 1.0, 0.0)
    ratings.failed("c", "down", 0.0)
    assert not ratings.worth_leaving("a", ("b", "c"), 8 * MIB, 1 * MIB, 0.0)


def test_a_body_that_crawls_is_left_for_one_of_which_nothing_is_known() -> None:
    ratings = Ratings()
    assert ratings.worth_leaving("a", ("b",), 8 * MIB, 100 << 10, 0.0)
    assert not ratings.worth_leaving("a", ("b",), 8 * MIB, 5 * MIB, 0.0)


def test_of_very_many_hosts_those_heard_of_longest_ago_are_forgotten() -> None:
    ratings = Ratings()
    with ratings.asking("in use"):
        for number in range(3000):
            ratings.answered(f"h{number}", 0.1, float(number))
        names = {rating.host for rating in ratings.all()}
    assert len(names) == 1024
    assert {"in use", "h2999", "h2500"} <= names


def test_figures_follow_what_happens() -> None:
    ratings = Ratings()
    assert ratings.figures("a") is None
    measured(ratings, "a", 0.01, 1 * MIB)
    measured(ratings, "a", 0.1, 10 * MIB, 1.0)
    figures = ratings.figures("a")
    assert figures is not None
    assert abs(figures.latency_s - 0.1) < 0.001
    assert abs(figures.rate / MIB - 10) < 0.1


def test_who_waits_for_a_turn_does_not_make_a_host_look_faster() -> None:
    ratings = Ratings()
    with ratings.asking("a"), ratings.asking("a"), ratings.asking("a"):
        with ratings.sending("a"):
            measured(ratings, "a", 0.1, 1 * MIB)
        figures = ratings.figures("a")
        assert figures is not None
        assert figures.rate == pytest.approx(1 * MIB)
        with ratings.sending("a"), ratings.sending("a"):
            measured(ratings, "a", 0.1, 1 * MIB)
        figures = ratings.figures("a")
        assert figures is not None
        assert figures.rate == pytest.approx(2 * MIB)


def test_a_rate_of_long_ago_counts_for_nothing_though_the_host_has_just_answered() -> None:
    ratings = Ratings()
    measured(ratings, "a", 0.1, 1 * MIB)
    ratings.answered("a", 0.1, 3600.0)
    ratings.received("a", MIB, 0.02, 3600.0)
    figures = ratings.figures("a")
    assert figures is not None
    assert figures.rate == pytest.approx(50 * MIB)
