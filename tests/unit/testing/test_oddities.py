"""The origin's odd answers are odd in the way that they say, and in no other."""

import base64
import gzip
import hashlib

import pytest

from cafs.model.span import Span
from cafs.testing.answers import Answer, Ask, Resource, answer
from cafs.testing.bodies import Literal
from cafs.testing.faults import Fault
from cafs.testing.oddities import (
    Coded,
    Digested,
    Endless,
    LessThanAsked,
    NewAge,
    NoHead,
    OtherTotal,
    SeveralParts,
    Unsatisfiable,
)

BODY = bytes(range(200))
WHOLE = Resource(Literal(BODY), '"e"')


def asked(fault: Fault, span: str = "", method: str = "GET") -> tuple[Answer, dict[str, str]]:
    """What the origin answers under a fault, and its headers."""
    ask = Ask(method, "/a", headers=(("range", span),) if span else ())
    right = answer(ask, fault.hold(WHOLE))
    sent = fault.spoil(ask, right) if fault.strikes(ask) else right
    return sent, dict(sent.headers)


def sent(one: Answer) -> bytes:
    return one.body.read(one.span.start, one.span.length)


def test_less_than_asked_says_so() -> None:
    found, headers = asked(LessThanAsked(10), "bytes=50-99")
    assert headers["Content-Range"] == "bytes 50-59/200"
    assert sent(found) == BODY[50:60]
    assert sent(asked(LessThanAsked(10), "bytes=50-54")[0]) == BODY[50:55]
    assert sent(asked(LessThanAsked(10))[0]) == BODY


def test_another_total_has_the_right_bytes() -> None:
    found, headers = asked(OtherTotal(5), "bytes=50-99")
    assert headers["Content-Range"] == "bytes 50-99/205"
    assert sent(found) == BODY[50:100]


def test_several_parts_are_framed() -> None:
    found, headers = asked(SeveralParts(), "bytes=50-99")
    assert headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert b"Content-Range: bytes 50-99/200\r\n\r\n" + BODY[50:100] in sent(found)


@pytest.mark.parametrize(("total", "place"), [(7, "bytes */7"), (None, None)])
def test_unsatisfiable_is_all_but_the_beginning(total: int | None, place: str | None) -> None:
    found, headers = asked(Unsatisfiable(total), "bytes=50-99")
    assert (found.status, headers.get("Content-Range")) == (416, place)
    assert asked(Unsatisfiable(total), "bytes=0-99")[0].status == 206


def test_an_endless_body_begins_with_the_right_bytes() -> None:
    found, _ = asked(Endless(), "bytes=50-99")
    assert found.chunked
    assert found.body.read(0, 50) == BODY[50:100]
    assert found.span.length > 1 << 30


def test_a_coded_body_can_be_decoded() -> None:
    found, headers = asked(Coded())
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(sent(found)) == BODY


@pytest.mark.parametrize(
    ("field", "span", "content"),
    [
        ("Content-Digest", "bytes=50-99", BODY[50:100]),
        ("Repr-Digest", "bytes=50-99", BODY),
        ("Digest", "", BODY),
    ],
)
def test_a_digest_is_of_what_its_header_is_about(field: str, span: str, content: bytes) -> None:
    text = base64.b64encode(hashlib.sha256(content).digest()).decode()
    told = f"sha-256={text}" if field == "Digest" else f"sha-256=:{text}:"
    assert asked(Digested(field), span)[1][field] == told
    assert asked(Digested(field, wrong=True), span)[1][field] != told


def test_a_new_age_and_no_head() -> None:
    assert asked(NewAge("max-age=5"))[1]["Cache-Control"] == "max-age=5"
    assert asked(NoHead(), method="HEAD")[0].status == 405
    assert sent(asked(NoHead())[0]) == BODY
    assert asked(NoHead())[0].span == Span(0, 200)
