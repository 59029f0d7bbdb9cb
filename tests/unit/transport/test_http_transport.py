"""The HTTP transport against a real origin: heads, bodies, and how they may fail."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from cafs.errors import (
    CredentialsError,
    DeadlineError,
    InvalidReferenceError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.testing.faults import (
    Drop,
    HangBeforeHead,
    IgnoreRange,
    NoLength,
    NoValidators,
    Rate,
    SlowHeaders,
    Stall,
    Status,
    Truncate,
    WrongContentRange,
)
from cafs.testing.oddities import LessThanAsked
from cafs.testing.origin import Origin
from cafs.transport.answers import RedirectError
from cafs.transport.http import HttpLimits, HttpTransport
from cafs.transport.interfaces import Request, Response

BODY = bytes(range(256)) * 2000
QUICK = HttpLimits(connect_s=20.0, head_s=0.3, stall_s=0.3)
STALLS = HttpLimits(connect_s=20.0, head_s=20.0, stall_s=0.3)
DRIPS = HttpLimits(connect_s=20.0, head_s=20.0, stall_s=2.0)


@asynccontextmanager
async def opened(limits: HttpLimits | None = None) -> AsyncIterator[HttpTransport]:
    transport = HttpTransport(limits=limits)
    try:
        yield transport
    finally:
        await transport.aclose()


async def body_of(response: Response) -> bytes:
    pieces = []
    while piece := await response.receive():
        pieces.append(piece)
    return b"".join(pieces)


async def test_a_whole_read_gives_all_bytes_and_its_extent(origin: Origin) -> None:
    url = origin.put("/a", BODY, cache_control="max-age=60", content_type="Text/Plain; x=y")
    async with opened() as transport, await transport.open(Request(url)) as response:
        head = response.head
        assert (head.status, head.span, head.total) == (200, Span(0, len(BODY)), len(BODY))
        assert head.ranges
        assert head.max_age_s == 60
        assert head.content_type == "text/plain"
        assert head.validator.strong
        assert head.peer == "127.0.0.1"
        assert await body_of(response) == BODY
        assert await response.receive() == b""


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (0, len(BODY)), (1000, 300_000), (len(BODY) - 1, len(BODY))]
)
async def test_a_range_gives_exactly_its_bytes(origin: Origin, start: int, stop: int) -> None:
    url = origin.put("/a", BODY)
    async with (
        opened() as transport,
        await transport.open(Request(url, Span(start, stop))) as response,
    ):
        assert response.head.status == 206
        assert response.head.span == Span(start, stop)
        assert response.head.total == len(BODY)
        assert await body_of(response) == BODY[start:stop]


async def test_a_range_past_the_end_ends_with_the_whole(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    span = Span(len(BODY) - 10, len(BODY) + 10)
    async with opened() as transport, await transport.open(Request(url, span)) as response:
        assert response.head.span == Span(len(BODY) - 10, len(BODY))
        assert await body_of(response) == BODY[-10:]


async def test_y10_every_request_names_its_sender_and_itself(origin: Origin) -> None:
    url = origin.put("/a", b"x")
    async with opened() as transport:
        for _ in range(2):
            async with await transport.open(Request(url)):
                pass
    first, second = origin.requests
    assert (first.header("user-agent") or "").startswith("cafs/")
    assert len(first.header("x-request-id") or "") == 36
    assert first.header("x-request-id") != second.header("x-request-id")
    assert first.header("accept-encoding") == "identity"
    assert first.header("cookie") is None


async def test_connections_are_used_again(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    gone = origin.url("/none")
    async with opened() as transport:
        for _ in range(3):
            async with await transport.open(Request(url, Span(0, 1))) as response:
                assert await response.receive() == BODY[:1]
            with pytest.raises(NotFoundError):
                await transport.open(Request(gone))
            async with await transport.open(Request(url)) as response:
                await body_of(response)
            async with await transport.open(Request(url, method="HEAD")) as response:
                assert response.head.total == len(BODY)
                assert await response.receive() == b""
    assert origin.connections == 1


async def test_closing_early_does_not_drain(origin: Origin) -> None:
    big = bytes(16 << 20)
    url = origin.put("/big", big)
    async with opened() as transport:
        response = await transport.open(Request(url))
        await response.receive()
        await response.aclose()
        await response.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await response.receive()
    origin.wait_until(lambda all_: all(one.ended for one in all_))
    assert origin.bytes_sent("/big") < len(big) // 2


async def test_a_response_can_be_closed_by_another_task_while_it_receives(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Stall(after_bytes=1000))
    ended: list[type[BaseException]] = []

    async def read(response: Response) -> None:
        try:
            await body_of(response)
        except trio.ClosedResourceError as error:
            ended.append(type(error))

    async with opened() as transport:
        response = await transport.open(Request(url))
        assert await response.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, response)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await response.aclose()
    assert ended == [trio.ClosedResourceError]


async def test_a_cancelled_receive_leaves_the_transport_usable(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Stall(after_bytes=1000, times=1))
    async with opened() as transport:
        async with await transport.open(Request(url)) as response:
            with trio.move_on_after(0.1) as scope:
                await body_of(response)
            assert scope.cancelled_caught
            with pytest.raises(trio.ClosedResourceError):
                await response.receive()
        async with await transport.open(Request(url)) as response:
            assert await body_of(response) == BODY


async def test_a_cancelled_open_leaves_the_transport_usable(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", HangBeforeHead(times=1))
    async with opened() as transport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.open, Request(url))
            await trio.to_thread.run_sync(origin.wait_until, bool)
            nursery.cancel_scope.cancel()
        async with await transport.open(Request(url)) as response:
            assert await body_of(response) == BODY


async def test_a_dropped_connection_is_not_a_short_body(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Drop(after_bytes=100_000))
    async with opened() as transport, await transport.open(Request(url)) as response:
        with pytest.raises(UnreachableError, match="/a"):
            await body_of(response)
        with pytest.raises(trio.ClosedResourceError):
            await response.receive()


async def test_a_reset_connection_is_unreachable_before_or_in_the_body(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Drop(after_bytes=100_000, reset=True))
    async with opened() as transport:
        with pytest.raises(UnreachableError, match="/a"):
            async with await transport.open(Request(url)) as response:
                await body_of(response)


async def test_a_dropped_chunked_body_is_not_a_short_body(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", NoLength(), Drop(after_bytes=100_000))
    async with opened() as transport, await transport.open(Request(url)) as response:
        assert response.head.total is None
        assert response.head.span is None
        with pytest.raises(UnreachableError):
            await body_of(response)


async def test_a_chunked_body_is_whole(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", NoLength())
    async with opened() as transport:
        async with await transport.open(Request(url)) as response:
            assert await body_of(response) == BODY
        async with await transport.open(Request(url, Span(5, 500))) as response:
            assert response.head.span == Span(5, 500)
            assert await body_of(response) == BODY[5:500]


async def test_a_range_whose_length_disagrees_is_refused(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Truncate(to=10))
    async with opened() as transport:
        with pytest.raises(RefusedError, match="Content-Range"):
            await transport.open(Request(url, Span(0, 100)))


async def test_a_chunked_range_that_ends_early_is_no_short_body(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Truncate(to=10), NoLength())
    async with opened() as transport, await transport.open(Request(url, Span(0, 100))) as response:
        with pytest.raises(UnreachableError, match="10 of 100"):
            await body_of(response)


async def test_rule1_a_range_from_another_place_is_refused(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", WrongContentRange())
    async with opened() as transport:
        with pytest.raises(RefusedError, match="Content-Range"):
            await transport.open(Request(url, Span(100, 200)))


async def test_rule1_a_whole_answer_to_a_range_is_passed_on_as_whole(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", IgnoreRange())
    async with opened() as transport, await transport.open(Request(url, Span(9, 99))) as response:
        assert (response.head.status, response.head.span) == (200, Span(0, len(BODY)))
        assert not response.head.ranges
        assert await body_of(response) == BODY


async def test_rule1_a_range_at_the_end_tells_the_total(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    async with opened() as transport:
        for start in (len(BODY), len(BODY) + 5):
            with pytest.raises(RefusedError) as caught:
                await transport.open(Request(url, Span(start, start + 10)))
            assert caught.value.total == len(BODY)


async def test_an_empty_resource_is_an_empty_whole(origin: Origin) -> None:
    url = origin.put("/empty", b"")
    async with opened() as transport, await transport.open(Request(url, Span(0, 1))) as response:
        assert (response.head.status, response.head.total) == (200, 0)
        assert response.head.span == Span(0, 0)
        assert response.head.validator.etag
        assert await response.receive() == b""


async def test_rule1_if_range_gets_the_whole_of_another_version(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    async with opened() as transport:
        async with await transport.open(Request(url, Span(0, 1))) as response:
            version = response.head.validator
        async with await transport.open(Request(url, Span(5, 9), version)) as response:
            assert response.head.status == 206
        origin.put("/a", BODY[::-1])
        async with await transport.open(Request(url, Span(5, 9), version)) as response:
            assert response.head.status == 200
            assert response.head.validator.etag != version.etag


async def test_a_weak_version_is_never_asked_for_by_range(origin: Origin) -> None:
    url = origin.put("/a", BODY, etag='W/"1"')
    async with opened() as transport:
        request = Request(url, Span(5, 9), Validator(etag='W/"1"'))
        async with await transport.open(request) as response:
            assert response.head.span == Span(0, len(BODY))
    assert origin.requests[0].header("range") is None


async def test_a_range_of_no_known_version_is_asked_for_without_condition(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", NoValidators())
    request = Request(url, Span(5, 9), Validator())
    async with opened() as transport, await transport.open(request) as response:
        assert response.head.status == 206
        assert response.head.validator == Validator()
    assert origin.requests[0].header("if-range") is None


async def test_rule1_less_than_was_asked_for_is_taken_for_what_it_is(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", LessThanAsked(50))
    async with opened() as transport, await transport.open(Request(url, Span(9, 99))) as response:
        assert response.head.span == Span(9, 59)
        assert await body_of(response) == BODY[9:59]


@pytest.mark.parametrize("etag", [None, '"v1"'])
async def test_r13_an_unchanged_version_has_no_body(origin: Origin, etag: str | None) -> None:
    url = origin.put("/a", BODY, etag=etag)
    async with opened() as transport:
        async with await transport.open(Request(url, Span(0, 1))) as response:
            version = response.head.validator
        request = Request(url, Span(0, 1), if_changed=version)
        async with await transport.open(request) as response:
            assert response.head.unchanged
            assert response.head.status == 304
            assert await response.receive() == b""


async def test_304_that_nobody_asked_for_is_refused(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Status(code=304))
    async with opened() as transport:
        with pytest.raises(RefusedError, match="304"):
            await transport.open(Request(url))


async def test_a_part_that_nobody_asked_for_is_refused(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Status(code=206))
    async with opened() as transport:
        with pytest.raises(RefusedError, match="206"):
            await transport.open(Request(url))


async def test_a_stalled_body_is_a_deadline(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Stall(after_bytes=1000))
    async with opened(STALLS) as transport, await transport.open(Request(url)) as response:
        with pytest.raises(DeadlineError, match=r"no bytes for 0\.3 s"):
            await body_of(response)
        with pytest.raises(trio.ClosedResourceError):
            await response.receive()


async def test_a_missing_head_is_a_deadline(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", HangBeforeHead())
    async with opened(QUICK) as transport:
        with pytest.raises(DeadlineError, match="no answer"):
            await transport.open(Request(url))


async def test_a_head_is_waited_for_from_when_it_was_asked_for(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    limits = HttpLimits(connect_s=60.0, head_s=1.0)
    async with opened(limits) as transport:
        for _ in range(2):  # over a new connection, and over one that is there
            async with await transport.open(Request(url, method="HEAD")):
                pass
            origin.fault("/a", HangBeforeHead())
            with trio.fail_after(30), pytest.raises(DeadlineError, match="within 1 s"):
                await transport.open(Request(url))
            origin.heal()


async def test_a_body_that_drips_is_a_deadline(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Rate(200))
    async with opened(DRIPS) as transport, await transport.open(Request(url)) as response:
        with pytest.raises(DeadlineError, match="drip"):
            await body_of(response)


async def test_a_short_body_may_come_slowly(origin: Origin) -> None:
    url = origin.put("/a", BODY[:60])
    origin.fault("/a", Rate(200))
    async with opened(DRIPS) as transport, await transport.open(Request(url)) as response:
        assert await body_of(response) == BODY[:60]


async def test_a_host_that_never_made_anybody_wait_is_given_up_sooner(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    limits = HttpLimits(stall_s=30.0, stall_floor_s=0.2)
    async with opened(limits) as transport:
        for _ in range(8):
            async with await transport.open(Request(url, Span(0, 10))) as response:
                await body_of(response)
        origin.fault("/a", Stall(after_bytes=5))
        async with await transport.open(Request(url, Span(0, 10))) as response:
            with trio.fail_after(60), pytest.raises(DeadlineError, match="no bytes"):
                await body_of(response)


async def test_a_head_that_dribbles_is_a_deadline(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", SlowHeaders(0.05))
    async with opened(QUICK) as transport:
        with pytest.raises(DeadlineError):
            await transport.open(Request(url))


async def test_nobody_listening_is_unreachable(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.stop()
    async with opened(QUICK) as transport:
        with pytest.raises(UnreachableError, match="no connection") as caught:
            await transport.open(Request(url))
        assert caught.value.transient


async def test_a_restarted_origin_is_found_again(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    async with opened() as transport:
        async with await transport.open(Request(url)) as response:
            await body_of(response)
        origin.stop()
        origin.start()
        async with await transport.open(Request(url)) as response:
            assert await body_of(response) == BODY


async def test_an_unknown_host_is_unreachable() -> None:
    async with opened(HttpLimits(connect_s=0.3)) as transport:
        with pytest.raises(UnreachableError):
            await transport.open(Request("http://name.invalid/"))


@pytest.mark.parametrize(
    ("code", "family", "transient"),
    [
        (401, CredentialsError, False),
        (403, CredentialsError, False),
        (404, NotFoundError, False),
        (410, NotFoundError, False),
        (400, RefusedError, False),
        (405, RefusedError, False),
        (418, RefusedError, False),
        (202, RefusedError, False),
        (204, RefusedError, False),
        (429, UnreachableError, True),
        (500, UnreachableError, True),
        (502, UnreachableError, True),
        (503, UnreachableError, True),
        (504, UnreachableError, True),
        (599, UnreachableError, True),
        (302, RedirectError, False),
    ],
)
async def test_y8_only_429_and_5xx_are_worth_another_try(
    origin: Origin, code: int, family: type[Exception], transient: bool
) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Status(code=code))
    async with opened() as transport:
        with pytest.raises(family, match=f"{code}") as caught:
            await transport.open(Request(url))
    assert getattr(caught.value, "transient") is transient  # noqa: B009 - the family varies


async def test_retry_after_is_passed_on(origin: Origin) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", Status(code=503, headers=(("Retry-After", "7"),)))
    async with opened() as transport:
        with pytest.raises(UnreachableError) as caught:
            await transport.open(Request(url))
    assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@127.0.0.1/",
        "ftp://127.0.0.1/",
        "http:///x",
        "http://a\\@b/",
        "http://h:99999/",
        "https://.h/",
        "http://[::1/",
    ],
)
async def test_what_is_no_plain_http_url_is_refused_unsent(url: str) -> None:
    async with opened() as transport:
        with pytest.raises(InvalidReferenceError) as caught:
            await transport.open(Request(url))
    assert "secret" not in caught.value.line


async def test_secrets_of_a_query_are_not_shown(origin: Origin) -> None:
    origin.put("/a", BODY)
    origin.fault("/a", Status(code=500))
    async with opened() as transport:
        with pytest.raises(UnreachableError) as caught:
            await transport.open(Request(origin.url("/a?signature=hidden")))
    assert "hidden" not in caught.value.line
    assert "/a?…" in caught.value.line
