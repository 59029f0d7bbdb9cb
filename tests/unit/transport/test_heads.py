"""What headers say: tables of good and bad input."""

from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given, settings, strategies as st

from cafs.errors import RefusedError
from cafs.model.span import Span
from cafs.model.validator import UNKNOWN_VERSION
from cafs.transport.heads import (
    answered_range,
    content_length,
    content_range,
    max_age_s,
    retry_after_s,
    unsatisfied_total,
    validator_of,
)

LATER = "Tue, 15 Nov 1994 12:46:26 GMT"


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("", 0),
        ("max-age=10", 10),
        ("Max-Age=10", 10),
        (" public ,  max-age = 10 , foo", 10),
        ("max-age=10, max-age=20", 20),
        ("max-age=20, max-age=10", 10),
        ("max-age=10, max-age=x", 10),
        ("max-age=0", 0),
        ("max-age=-5", 0),
        ("max-age=10, max-age=-5", 0),
        ("max-age=010", 0),
        ("max-age=10, max-age=020", 10),
        ("max-age=1.5", 0),
        ("max-age=+5", 0),
        ("max-age=1_0", 0),
        ('max-age="10"', 0),
        ("max-age=\u0661", 0),
        ("max-age", 0),
        ("max-age=99999999999", 2**31 - 1),
        ("s-maxage=10", 0),
        ("xmax-age=10", 0),
    ],
)
def test_r15_age(text: str, age: int) -> None:
    assert max_age_s(text) == age


@pytest.mark.parametrize("never", ["no-store", "no-cache", "No-Cache", 'no-cache="set-cookie"'])
@pytest.mark.parametrize("order", ["{},max-age=10", "max-age=10, {}", "a, {} ,max-age=10"])
def test_r15_no_cache_wins(never: str, order: str) -> None:
    assert max_age_s(order.format(never)) == 0


@given(st.text())
@settings(deadline=None)
def test_r15_any_text_gives_an_age(text: str) -> None:
    assert 0 <= max_age_s(text) < 2**31


@pytest.mark.parametrize(
    ("modified", "date", "strong"),
    [
        ("Tue, 15 Nov 1994 12:45:26 GMT", LATER, True),
        ("Tue, 15 Nov 1994 12:45:27 GMT", LATER, False),
        (LATER, LATER, False),
        ("Tue, 15 Nov 1995 12:45:26 GMT", LATER, False),
        ("Tue, 15 Nov 1994 12:45:26 GMT", "", False),
        ("Tue, 15 Nov 1994 12:45:26 GMT", "soon", False),
    ],
)
def test_last_modified_is_strong_only_well_before_the_date(
    modified: str, date: str, strong: bool
) -> None:
    found = validator_of({"last-modified": modified, "date": date})
    assert found.strong is strong
    assert found.text == modified


def test_last_modified_that_is_no_date_is_no_validator() -> None:
    assert validator_of({"last-modified": "yesterday", "date": LATER}).text == ""
    odd = "Tue, 15 Nov 1994 12:45:26 GMT (\xe4)"
    assert validator_of({"last-modified": odd, "date": LATER}) == UNKNOWN_VERSION


@pytest.mark.parametrize(
    ("etag", "text", "strong"),
    [
        ('"a"', '"a"', True),
        ('W/"a"', 'W/"a"', False),
        ('w/"a"', 'W/"a"', False),
        ('"\xe4"', "", False),  # the bytes that came are not known, so they cannot be sent back
    ],
)
def test_an_etag_is_kept_as_sent(etag: str, text: str, strong: bool) -> None:
    found = validator_of({"etag": etag})
    assert (found.text, found.strong) == (text, strong)


@pytest.mark.parametrize(
    "text",
    ["", "bytes", "bytes 5-4/10", "bytes 0-10/10", "bytes -1-2/3", "items 0-1/2", "bytes 0-1", "x"],
)
def test_a_content_range_that_is_none(text: str) -> None:
    assert content_range(text) is None


@given(st.integers(0, 2**50), st.integers(1, 2**50), st.integers(0, 2**50))
@settings(deadline=None)
def test_a_content_range_says_where(start: int, length: int, more: int) -> None:
    total = start + length + more
    found = content_range(f"bytes {start}-{start + length - 1}/{total}")
    assert found is not None
    assert (found.span, found.total) == (Span(start, start + length), total)


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("bytes 10-19/100", 20),
        ("bytes 10-19/*", 20),
        ("bytes 10-14/15", 15),
        ("bytes 10-14/*", 15),
        ("bytes 10-18/100", 19),
        ("bytes 10-10/*", 11),
        ("Bytes 10-19/100", 20),
    ],
)
def test_a_part_that_begins_where_asked_is_taken(text: str, stop: int) -> None:
    assert answered_range("x", Span(10, 20), {"content-range": text}).span == Span(10, stop)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-range": "bytes 9-19/100"},
        {"content-range": "bytes 11-19/100"},
        {"content-range": "bytes 10-20/100"},
        {"content-range": "bytes 10-20/*"},
        {"content-range": "bytes 10-19/100", "content-length": "9"},
        {"content-range": "bytes 10-19/100", "content-type": "multipart/byteranges; boundary=x"},
    ],
)
def test_rule1_a_part_that_is_not_the_one_asked_for_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedError, match="name"):
        answered_range("name", Span(10, 20), headers)


def test_an_unsatisfied_range_tells_the_total() -> None:
    assert unsatisfied_total("bytes */123") == 123
    assert unsatisfied_total("bytes 0-1/123") is None


def test_a_length_is_not_in_force_under_a_transfer_coding() -> None:
    assert content_length({"content-length": "5"}) == 5
    assert content_length({"content-length": "5", "transfer-encoding": "chunked"}) is None
    assert content_length({"content-length": "-5"}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Tue, 15 Nov 1994 12:46:36 GMT", 10.0),
        ("Tue, 15 Nov 1994 12:46:16 GMT", 0.0),
        ("-7", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": text, "date": LATER}) == seconds


@pytest.mark.parametrize("date", [{}, {"date": "soon"}])
@pytest.mark.parametrize(("later_s", "seconds"), [(20, 20.0), (-20, 0.0), (7200, 300.0)])
def test_a_date_without_another_is_compared_with_our_clock_and_believed_for_minutes(
    date: dict[str, str], later_s: int, seconds: float
) -> None:
    text = "Tue, 15 Nov 1994 12:46:26 GMT"
    now = parsedate_to_datetime(text).timestamp() - later_s
    assert retry_after_s({"retry-after": text, **date}, lambda: now) == seconds
