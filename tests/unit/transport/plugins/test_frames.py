"""Frames: wherever the bytes are cut, the same is read; what is no frame is said to be none."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from cafs.transport.plugins import frames
from cafs.transport.plugins.frames import (
    DATA_LIMIT,
    LINE_LIMIT,
    BabbleError,
    Data,
    Ended,
    Failed,
    Frame,
    Headed,
    Parser,
)

GREETING = b'{"plugin":{"name":"x","version":[1,0],"schemes":["x"],"requests":3}}\n'
TALK = (
    b'{"id":1,"head":{"total":9,"span":[2,5],"validator":"v","max_age_s":5}}\n'
    b'{"id":1,"data":3}\na\nb'
    b'{"id":2,"error":{"kind":"not-found","what":"no"}}\n'
    b'{"id":1,"data":0}\n'
    b'{"id":1,"done":{"document":{"n": [1, 2]}}}\n'
    b'{"id":3,"use-cached":{"max_age_s":7}}\n'
)


def joined(found: list[Frame]) -> list[Frame]:
    """Pieces of data that follow each other, as one."""
    whole: list[Frame] = []
    for frame in found:
        last = whole[-1] if whole else None
        if isinstance(frame, Data) and isinstance(last, Data) and frame.number == last.number:
            whole[-1] = Data(frame.number, last.piece + frame.piece)
        else:
            whole.append(frame)
    return whole


@given(st.lists(st.integers(0, len(TALK)), max_size=12))
def test_frames_are_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = Parser()
    found: list[Frame] = []
    for start, stop in pairwise([0, *sorted(cuts), len(TALK)]):
        found += parser.feed(TALK[start:stop])
    head, data, failed, done, cached = joined(found)
    assert isinstance(head, Headed)
    assert (head.number, head.says.total, head.says.span) == (1, 9, (2, 5))
    assert data == Data(1, b"a\nb")
    assert isinstance(failed, Failed)
    assert failed.says.kind == "not-found"
    assert done == Ended(1, cached=False, document='{"n": [1, 2]}', max_age_s=None)
    assert cached == Ended(3, cached=True, document="", max_age_s=7)


@given(st.integers(0, len(GREETING)))
def test_a_greeting_may_come_in_two_parts(cut: int) -> None:
    parser = Parser()
    said = parser.greeting(GREETING[:cut]) or parser.greeting(GREETING[cut:])
    assert said is not None
    assert (said.name, said.schemes, said.requests) == ("x", ("x",), 3)


def test_a_greeting_that_is_nested_without_end_is_babble() -> None:
    with pytest.raises(BabbleError, match="instead of a greeting"):
        Parser().greeting(b'{"plugin":' + b"[" * 20_000 + b"\n")


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"",
        b"[]",
        b"{}",
        b'{"id":1}',
        b'{"id":"1","done":{}}',
        b'{"id":1,"done":{},"head":{}}',
        b'{"id":1,"data":-1}',
        b'{"id":1,"data":%d}' % (DATA_LIMIT + 1),
        b'{"id":1,"head":{"total":"9"}}',
        b'{"id":1,"head":{"span":[1]}}',
        b'{"id":1,"done":{"document":"text"}}',
        b'{"id":1,"done":{"document":[1]}}',
        b'{"id":1,"error":{}}',
        b'{"id":1,"done":{}}}',
        b'\xff{"id":1,"done":{}}',
        b'{"id":1,"done":{"document":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}}}",
    ],
)
def test_what_is_no_frame_is_babble(line: bytes) -> None:
    with pytest.raises(BabbleError):
        list(Parser().feed(line + b"\n"))


def test_a_line_has_an_end_soon() -> None:
    parser = Parser()
    assert not list(parser.feed(b"x" * (LINE_LIMIT - 1)))
    with pytest.raises(BabbleError, match="without a line break"):
        list(parser.feed(b"x"))


def test_what_a_later_version_adds_does_no_harm() -> None:
    (head,) = Parser().feed(b'{"id":1,"head":{"new":1},"newer":2}\n')
    assert isinstance(head, Headed)


def test_what_cafs_says_is_a_line_of_json() -> None:
    ask = frames.Get(
        url="x:\n", span=(1, 2), validator=None, document=None, cached=False, headers={"A": "b"}
    )
    for line in (frames.get(7, ask), frames.more(7, 5), frames.cancel(7)):
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
    assert json.loads(frames.get(7, ask)) == {
        "id": 7,
        "get": {
            "url": "x:\n",
            "span": [1, 2],
            "validator": None,
            "document": None,
            "cached": False,
            "headers": {"A": "b"},
            "window": frames.WINDOW,
        },
    }


def test_babble_is_shown_without_the_query_of_a_url() -> None:
    line = b"fetching x:dir/file?token=hunter2\n"
    with pytest.raises(BabbleError, match="x:dir/file") as greeting:
        Parser().greeting(line)
    with pytest.raises(BabbleError, match="x:dir/file") as answer:
        list(Parser().feed(line))
    for caught in (greeting, answer):
        assert "hunter2" not in str(caught.value)
