"""What a plugin's answers become: heads, bytes, errors, documents."""

import json

import pytest

from cafs.errors import (
    CafsError,
    CredentialsError,
    DeadlineError,
    NotFoundError,
    PolicyError,
    RefusedError,
    SourceChangedError,
    UnreachableError,
    UnsupportedError,
)
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.transport.interfaces import Request
from tests.unit.transport.plugins.plugin_world import content, open_plugin, read, spec

SIZES = [0, 1, 65535, 65536, 65537, 3_000_000]


@pytest.mark.parametrize("flags", [(), ("--requests", "1")])
@pytest.mark.parametrize("size", SIZES)
async def test_the_whole_comes_as_it_is(size: int, flags: tuple[str, ...]) -> None:
    async with open_plugin(spec(*flags)) as plugin:
        assert await read(plugin, f"x:bytes/{size}") == content(0, size)


@pytest.mark.parametrize("span", [Span(0, 1), Span(7, 9), Span(99_990, 100_000), Span(5, 10**9)])
async def test_a_span_comes_as_a_span(span: Span) -> None:
    async with (
        open_plugin(spec()) as plugin,
        await plugin.open(Request("x:bytes/100000", span)) as response,
    ):
        head = response.head
        part = span.clamp(100_000)
        assert (head.status, head.span, head.total, head.ranges) == (206, part, 100_000, True)
        assert (head.validator.text, head.validator.strong) == ('"v1"', True)
        assert (head.content_type, head.max_age_s) == ("x/y", 60)
        data = b""
        while piece := await response.receive():
            data += piece
        assert data == content(part.start, part.stop)
        assert json.loads(response.document) == {"v": 1, "asked": 1}
        assert await response.receive() == b""


async def test_a_span_behind_the_end_tells_the_size() -> None:
    async with open_plugin(spec()) as plugin:
        with pytest.raises(RefusedError) as caught:
            await read(plugin, Request("x:bytes/10", Span(10, 11)))
        assert caught.value.total == 10


async def test_a_plugin_is_told_all_but_credentials() -> None:
    headers = (("Authorization", "hunter2"), ("Accept", "a/b"), ("cookie", "hunter2"))
    request = Request("x:echo", Span(0, 10**6), if_range=Validator(etag='"v1"'), headers=headers)
    async with open_plugin(spec()) as plugin:
        told = json.loads(await read(plugin, request))
        assert told == {
            "url": "x:echo",
            "span": [0, 10**6],
            "validator": '"v1"',
            "document": None,
            "cached": False,
            "headers": {"Accept": "a/b"},
            "window": 1 << 20,
        }
        request = Request("x:echo", if_changed=Validator(etag='"v1"'), document='{"a": 1}')
        told = json.loads(await read(plugin, request))
        assert (told["cached"], told["document"], told["span"]) == (True, {"a": 1}, None)


ERRORS: list[tuple[str, type[CafsError]]] = [
    ("not-found", NotFoundError),
    ("credentials", CredentialsError),
    ("policy", PolicyError),
    ("unreachable", UnreachableError),
    ("deadline", DeadlineError),
    ("refused", RefusedError),
    ("changed", SourceChangedError),
    ("unsupported", UnsupportedError),
    ("something-else", RefusedError),
]


@pytest.mark.parametrize(("kind", "family"), ERRORS)
async def test_an_error_is_of_the_family_that_it_names(kind: str, family: type[CafsError]) -> None:
    async with open_plugin(spec()) as plugin:
        with pytest.raises(family) as caught:
            await read(plugin, f"x:error/{kind}?sig=hunter2")
        assert type(caught.value) is family
        assert f"no: x:error/{kind}?…" in caught.value.what
        assert "hunter2" not in caught.value.line
        assert len(await read(plugin, "x:bytes/5")) == 5


async def test_a_plugin_may_ask_for_time() -> None:
    async with open_plugin(spec()) as plugin:
        with pytest.raises(UnreachableError) as caught:
            await read(plugin, "x:error/unreachable/12.5")
        assert caught.value.retry_after_s == 12.5


async def test_r3_what_is_at_hand_may_do() -> None:
    version = Validator(etag='"v1"')
    async with open_plugin(spec()) as plugin:
        asked = Request("x:cached/30", if_changed=version, document='{"seen":4}')
        async with await plugin.open(asked) as response:
            head = response.head
            assert (head.status, head.unchanged, head.max_age_s) == (304, True, 30)
            assert "cache-control" in head.headers
            assert await response.receive() == b""
            assert json.loads(response.document) == {"seen": 5}
        async with await plugin.open(Request("x:cached", document='{"seen":1}')) as response:
            assert (response.head.unchanged, response.head.headers) == (True, {})


NONSENSE = [
    '{"id":ID,"head":{"total":-1}}',
    '{"id":ID,"head":{"total":9223372036854775813,"span":[0,10]}}',
    '{"id":ID,"head":{"total":1000000000000000000000000000000}}',
    '{"id":ID,"head":{"total":9,"span":[0,10]}}',
    '{"id":ID,"head":{"total":99,"span":[1,10]}}',
    '{"id":ID,"head":{"total":99,"span":[0,11]}}',
    '{"id":ID,"head":{"total":99,"span":[0,0]}}',
    '{"id":ID,"head":{"total":99,"span":[-1,5]}}',
    '{"id":ID,"head":{"total":99,"span":[5,1]}}',
    '{"id":ID,"use-cached":{}}',
]


@pytest.mark.parametrize("answer", NONSENSE)
async def test_an_answer_that_is_none_to_the_question_is_refused(answer: str) -> None:
    async with open_plugin(spec()) as plugin:
        with pytest.raises(RefusedError, match="the plugin"):
            await plugin.open(Request(f"x:say/{answer}%0A", Span(0, 10)))
        assert len(await read(plugin, "x:bytes/5")) == 5


async def test_a_part_is_no_answer_to_who_wants_all() -> None:
    async with open_plugin(spec()) as plugin:
        with pytest.raises(RefusedError, match="asked for all"):
            await plugin.open(Request('x:say/{"id":ID,"head":{"total":9,"span":[0,8]}}%0A'))


SHORT = '{"id":ID,"head":{"total":9}}%0A{"id":ID,"data":4}%0Aabcd{"id":ID,"done":{}}%0A'
LONG = '{"id":ID,"head":{"total":3}}%0A{"id":ID,"data":4}%0Aabcd{"id":ID,"done":{}}%0A'
UNSIZED = '{"id":ID,"head":{}}%0A{"id":ID,"data":4}%0Aabcd{"id":ID,"done":{}}%0A'


async def test_a_body_is_neither_shorter_nor_longer_than_announced() -> None:
    async with open_plugin(spec()) as plugin:
        with pytest.raises(UnreachableError, match="ended after 4 of 9 bytes"):
            await read(plugin, f"x:say/{SHORT}")
        with pytest.raises(RefusedError, match="more than the announced 3 bytes"):
            await read(plugin, f"x:say/{LONG}")
        assert await read(plugin, f"x:say/{UNSIZED}") == b"abcd"


async def test_a_part_tells_its_version_when_there_are_others() -> None:
    part = (
        '{"id":ID,"head":{"total":9,"span":[0,3]}}%0A{"id":ID,"data":3}%0Aabc{"id":ID,"done":{}}%0A'
    )
    async with open_plugin(spec()) as plugin:
        assert await read(plugin, Request(f"x:say/{part}", Span(0, 3))) == b"abc"
        with pytest.raises(RefusedError, match="does not tell the version"):
            await read(plugin, Request(f"x:say/{part}", Span(0, 3), if_range=Validator("v1")))


async def test_the_program_has_its_own_environment_without_our_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAFS_TEST_WORD", "sesame")
    monkeypatch.setenv("CAFS_LOGIN_EXAMPLE_COM", "me:hunter2")
    async with open_plugin(spec()) as plugin:
        assert await read(plugin, "x:env/CAFS_TEST_WORD") == b"sesame"
        assert await read(plugin, "x:env/CAFS_LOGIN_EXAMPLE_COM") == b""
