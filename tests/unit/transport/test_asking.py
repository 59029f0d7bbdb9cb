"""What a request says on the wire: ranges, conditions, and nothing that was not wanted."""

import pytest

from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.asking import conditions, message
from cafs.transport.interfaces import Request

URL = "http://h.example/a"
DATE = "Tue, 15 Nov 1994 12:45:26 GMT"
STRONG = Validator(etag='"e"', last_modified=DATE, dated=True)
WEAK = Validator(etag='W/"e"', last_modified=DATE, dated=True)
DATED = Validator(last_modified=DATE, dated=True)
UNDATED = Validator(last_modified=DATE)
RANGE = ("Range", "bytes=5-8")


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (None, [RANGE]),
        (Validator(), [RANGE]),
        (STRONG, [RANGE, ("If-Range", '"e"')]),
        (DATED, [RANGE, ("If-Range", DATE)]),
        (WEAK, []),
        (UNDATED, []),
    ],
)
def test_rule1_a_range_is_of_a_version_that_is_named_strongly(
    version: Validator | None, lines: list[tuple[str, str]]
) -> None:
    assert conditions(Request(URL, Span(5, 9), if_range=version)) == lines


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        (STRONG, [("If-None-Match", '"e"')]),
        (WEAK, [("If-None-Match", 'W/"e"')]),
        (DATED, [("If-Modified-Since", DATE)]),
        (UNDATED, [("If-Modified-Since", DATE)]),
        (Validator(), []),
    ],
)
def test_r13_of_two_conditions_the_better_one_is_sent_alone(
    version: Validator, lines: list[tuple[str, str]]
) -> None:
    assert conditions(Request(URL, if_changed=version)) == lines


def test_bytes_are_wanted_as_they_are_and_what_a_request_says_itself_stands() -> None:
    request = Request(URL, headers=(("accept", "x/y"), ("X", "z")))
    sent = message(request, number="n", user_agent="u")
    lines = [(name.decode(), value.decode()) for name, value in sent.headers]
    assert lines == [
        ("Host", "h.example"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "u"),
        ("X-Request-ID", "n"),
        ("accept", "x/y"),
        ("X", "z"),
    ]
