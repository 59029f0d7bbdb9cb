"""The origin is trusted by every other test; here it earns that."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from cafs.model.span import Span
from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.bodies import Corrupted, Generated, Literal
from cafs.testing.faults import (
    ChangedEtag,
    Corrupt,
    Drop,
    Fault,
    HangBeforeHead,
    IgnoreRange,
    Latency,
    NoLength,
    NoValidators,
    Rate,
    Redirect,
    RequireBearer,
    SlowHeaders,
    Stall,
    Status,
    Truncate,
    WrongContentRange,
)
from cafs.testing.origin import Origin

BODY = bytes(range(256)) * 4


@contextmanager
def connected(origin: Origin) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", origin.port, timeout=20)
    try:
        yield connection
    finally:
        connection.close()


def fetch(
    origin: Origin, path: str, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with connected(origin) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def test_a_whole_body_has_its_length_and_validators(origin: Origin) -> None:
    origin.put("/x", BODY, cache_control="max-age=60", content_type="text/x")
    status, headers, body = fetch(origin, "/x")
    assert (status, body) == (200, BODY)
    assert headers["Content-Length"] == "1024"
    assert headers["ETag"].startswith('"')
    assert headers["Last-Modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert headers["Cache-Control"] == "max-age=60"
    assert headers["Content-Type"] == "text/x"
    assert headers["Accept-Ranges"] == "bytes"
    assert "Date" in headers


@pytest.mark.parametrize(
    ("asked", "place", "body"),
    [
        ("bytes=0-0", "bytes 0-0/1024", BODY[:1]),
        ("bytes=10-19", "bytes 10-19/1024", BODY[10:20]),
        ("bytes=1020-", "bytes 1020-1023/1024", BODY[1020:]),
        ("bytes=1020-9999", "bytes 1020-1023/1024", BODY[1020:]),
        ("bytes=-4", "bytes 1020-1023/1024", BODY[-4:]),
        ("bytes=-9999", "bytes 0-1023/1024", BODY),
    ],
)
def test_a_range_is_partial_content(origin: Origin, asked: str, place: str, body: bytes) -> None:
    origin.put("/x", BODY)
    status, headers, got = fetch(origin, "/x", Range=asked)
    assert (status, headers["Content-Range"], got) == (206, place, body)
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize("asked", ["bytes=1024-", "bytes=5000-6000", "bytes=-0"])
def test_a_range_behind_the_end_is_416(origin: Origin, asked: str) -> None:
    origin.put("/x", BODY)
    status, headers, _ = fetch(origin, "/x", Range=asked)
    assert (status, headers["Content-Range"]) == (416, "bytes */1024")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "lines=0-1", "bytes=0-1,4-5", "bytes"])
def test_a_range_that_is_none_is_ignored(origin: Origin, asked: str) -> None:
    origin.put("/x", BODY)
    assert fetch(origin, "/x", Range=asked)[0] == 200


def test_head_tells_and_sends_nothing(origin: Origin) -> None:
    origin.put("/x", BODY)
    status, headers, body = fetch(origin, "/x", "HEAD", Range="bytes=0-1")
    assert (status, headers["Content-Length"], body) == (200, "1024", b"")
    assert origin.bytes_sent("/x") == 0


def test_conditions_are_kept(origin: Origin) -> None:
    origin.put("/x", BODY, etag='"one"')
    modified = "Tue, 14 Nov 2023 22:13:20 GMT"
    assert fetch(origin, "/x", If_None_Match='"zero", W/"one"')[0] == 304
    assert fetch(origin, "/x", If_None_Match="*")[0] == 304
    assert fetch(origin, "/x", If_None_Match='"two"', If_Modified_Since=modified)[0] == 200
    assert fetch(origin, "/x", If_Modified_Since=modified)[0] == 304
    assert fetch(origin, "/x", Range="bytes=0-1", If_Range='"one"')[0] == 206
    assert fetch(origin, "/x", Range="bytes=0-1", If_Range='"two"')[0] == 200
    assert fetch(origin, "/x", Range="bytes=0-1", If_Range='W/"one"')[0] == 200
    assert fetch(origin, "/x", Range="bytes=0-1", If_Range=modified)[0] == 206


def test_what_is_not_there_is_404_and_a_post_is_405(origin: Origin) -> None:
    origin.put("/x", BODY)
    assert fetch(origin, "/y")[0] == 404
    assert fetch(origin, "/x", "POST")[0] == 405
    origin.remove("/x")
    assert fetch(origin, "/x")[0] == 404


def test_a_connection_is_kept_alive_and_a_second_is_counted(origin: Origin) -> None:
    origin.put("/x", BODY)
    with connected(origin) as connection:
        for _ in range(3):
            connection.request("GET", "/x")
            assert connection.getresponse().read() == BODY
    assert origin.connections == 1
    fetch(origin, "/x")
    assert origin.connections == 2


def test_generated_content_is_the_same_from_everywhere(origin: Origin) -> None:
    body = Generated(5_000_001, seed=7)
    origin.put("/g", body)
    _, _, got = fetch(origin, "/g")
    assert got == body.read(0, body.size) == origin.expected("/g")
    assert got[3_000_000:3_000_100] == origin.expected("/g", Span(3_000_000, 3_000_100))
    assert got[: 1 << 20] != got[1 << 20 : 2 << 20]
    assert Generated(5_000_001, seed=8).read(0, 100) != got[:100]


def test_a_file_is_served(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    origin.put("/f", tmp_path / "f")
    assert fetch(origin, "/f", Range="bytes=3-5")[2] == BODY[3:6]


def test_a_directory_is_served_and_nothing_above_it(origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "a b").write_bytes(BODY)
    origin.serve_directory(tmp_path / "public")
    assert fetch(origin, "/a%20b")[2] == BODY
    assert fetch(origin, "/../secret")[0] == 404
    assert fetch(origin, "/%2e%2e/secret")[0] == 404
    assert fetch(origin, "/")[0] == 404


def test_the_log_says_what_was_asked_and_sent(origin: Origin) -> None:
    origin.put("/x", BODY)
    fetch(origin, "/x?q=1", Range="bytes=0-9")
    origin.settle()
    (one,) = origin.requests_for("/x")
    assert (one.method, one.path, one.query, one.status) == ("GET", "/x", "q=1", 206)
    assert one.header("range") == "bytes=0-9"
    assert (one.bytes_sent, one.ended, one.aborted) == (10, True, False)
    assert origin.bytes_sent("/x") == origin.bytes_sent() == 10
    origin.forget()
    assert origin.requests == ()


def test_a_client_that_leaves_is_seen_and_took_little(origin: Origin) -> None:
    origin.put("/g", Generated(64 << 20))
    with connected(origin) as connection:
        connection.request("GET", "/g")
        connection.getresponse().read(1000)
    origin.settle()
    (one,) = origin.requests
    assert one.aborted
    assert 1000 <= one.bytes_sent < 16 << 20


def test_a_dropped_body_ends_early_and_only_as_often_as_told(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Drop(100, times=2))
    for _ in range(2):
        with pytest.raises(http.client.IncompleteRead) as caught:
            fetch(origin, "/x")
        assert caught.value.partial == BODY[:100]
    assert fetch(origin, "/x")[2] == BODY
    origin.settle()
    assert [one.aborted for one in origin.requests] == [True, True, False]


def test_a_reset_is_an_error(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Drop(0, reset=True))
    with pytest.raises(ConnectionResetError):
        fetch(origin, "/x")


def test_a_fault_may_skip_and_spares_head(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Drop(0, skip=1))
    assert fetch(origin, "/x", "HEAD")[0] == 200
    assert fetch(origin, "/x")[2] == BODY
    with pytest.raises(http.client.IncompleteRead):
        fetch(origin, "/x")
    origin.heal("/x")
    assert fetch(origin, "/x")[2] == BODY


@pytest.mark.parametrize("fault", [Stall(100), HangBeforeHead()])
async def test_a_stalled_answer_waits_for_its_release(origin: Origin, fault: Fault) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", fault)
    got: list[bytes] = []

    async def read() -> None:
        got.append((await trio.to_thread.run_sync(fetch, origin, "/x"))[2])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.to_thread.run_sync(origin.wait_until, lambda log: len(log) == 1)
        await trio.to_thread.run_sync(origin.settle)
        assert not got
        assert not origin.requests[0].ended
        origin.heal()
    assert got == [BODY]


def test_a_client_that_leaves_a_stalled_answer_is_seen(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Stall(100))
    with connected(origin) as connection:
        connection.request("GET", "/x")
        assert connection.getresponse().read(100) == BODY[:100]
    origin.wait_until(lambda log: log[0].ended)
    assert origin.requests[0].aborted


def test_a_status_with_headers(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Status(503, (("Retry-After", "7"),), times=1))
    status, headers, _ = fetch(origin, "/x")
    assert (status, headers["Retry-After"]) == (503, "7")
    assert fetch(origin, "/x")[0] == 200


def test_a_corrupted_byte_is_where_it_was_asked_for(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Corrupt(500))
    wrong = fetch(origin, "/x")[2]
    assert [i for i in range(1024) if wrong[i] != BODY[i]] == [500]
    assert fetch(origin, "/x", Range="bytes=500-500")[2] == bytes([BODY[500] ^ 0xFF])
    assert Corrupted(Literal(BODY), 2000).read(0, 2000) == BODY


def test_a_truncated_body_agrees_with_its_length_only(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Truncate(5))
    status, headers, body = fetch(origin, "/x", Range="bytes=0-99")
    assert (status, headers["Content-Length"], body) == (206, "5", BODY[:5])
    assert headers["Content-Range"] == "bytes 0-99/1024"


def test_ranges_can_be_ignored_and_lied_about(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", IgnoreRange(times=1), WrongContentRange(skip=1))
    status, headers, body = fetch(origin, "/x", Range="bytes=0-9")
    assert (status, body) == (200, BODY)
    assert "Accept-Ranges" not in headers
    status, headers, body = fetch(origin, "/x", Range="bytes=0-9")
    assert (status, headers["Content-Range"], body) == (206, "bytes 1-10/1025", BODY[:10])


def test_validators_change_and_vanish(origin: Origin) -> None:
    origin.put("/x", BODY, etag='"one"')
    origin.fault("/x", ChangedEtag('"two"', skip=1))
    assert fetch(origin, "/x")[1]["ETag"] == '"one"'
    assert fetch(origin, "/x", Range="bytes=0-0", If_Range='"one"')[0] == 200
    origin.heal()
    origin.fault("/x", NoValidators())
    headers = fetch(origin, "/x")[1]
    assert "ETag" not in headers
    assert "Last-Modified" not in headers


def test_a_redirect_needs_nothing_behind_it(origin: Origin) -> None:
    origin.fault("/r", Redirect("/x", code=307))
    status, headers, _ = fetch(origin, "/r")
    assert (status, headers["Location"]) == (307, "/x")


def test_a_body_without_a_length_comes_in_chunks(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", NoLength())
    _, headers, body = fetch(origin, "/x")
    assert body == BODY
    assert "Content-Length" not in headers
    origin.settle()
    assert origin.bytes_sent("/x") == 1024


def test_slowness_changes_nothing_else(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Latency(0.001), SlowHeaders(0.0001), Rate(1_000_000))
    status, _, body = fetch(origin, "/x", Range="bytes=1-1000")
    assert (status, body) == (206, BODY[1:1001])


def test_a_bearer_token_is_wanted_given_spent_and_expired(origin: Origin) -> None:
    origin.put("/v2/x", BODY)
    gate = RequireBearer(scope="repository:x:pull", lives=2)
    origin.fault("/v2/*", gate)
    status, headers, _ = fetch(origin, "/v2/x")
    assert status == 401
    assert headers["WWW-Authenticate"] == (
        f'Bearer realm="{origin.url("/token")}",service="cafs-test",scope="repository:x:pull"'
    )

    def token() -> str:
        answer = fetch(origin, "/token?service=cafs-test&scope=repository:x:pull")[2]
        return answer.decode().split('"')[3]

    first = f"Bearer {token()}"
    statuses = [fetch(origin, "/v2/x", Authorization=first)[0] for _ in range(3)]
    assert statuses == [200, 200, 401]
    second = f"Bearer {token()}"
    assert fetch(origin, "/v2/x", Authorization=second)[0] == 200
    gate.expire()
    assert fetch(origin, "/v2/x", Authorization=second)[0] == 401
    assert fetch(origin, "/token?service=other")[0] == 400


def test_a_function_may_answer(origin: Origin) -> None:
    def answers(ask: Ask) -> Answer:
        return text_answer(200, f"{ask.method} {ask.query}")

    origin.serve("/f", answers)
    assert fetch(origin, "/f?a=b")[2] == b"GET a=b"


def test_down_is_refused_and_up_again_is_the_same_port(origin: Origin) -> None:
    origin.put("/x", BODY)
    port = origin.port
    with connected(origin) as connection:
        connection.request("GET", "/x")
        assert connection.getresponse().read() == BODY
        origin.stop()
        with pytest.raises(ConnectionRefusedError):
            fetch(origin, "/x")
        origin.stop()
    origin.start()
    assert origin.port == port
    assert fetch(origin, "/x")[2] == BODY


def test_going_down_breaks_what_stalls(origin: Origin) -> None:
    origin.put("/x", BODY)
    origin.fault("/x", Stall(10))
    with connected(origin) as connection:
        connection.request("GET", "/x")
        response = connection.getresponse()
        assert response.read(10) == BODY[:10]
        origin.stop()
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
    assert origin.requests[0].aborted
    origin.release()


def test_garbage_ends_the_connection_and_nothing_else(origin: Origin) -> None:
    with socket.create_connection(("127.0.0.1", origin.port), timeout=20) as client:
        client.sendall(b"\x00\x01 garbage\r\n\r\n")
        assert client.recv(100) == b""
    origin.put("/x", BODY)
    assert fetch(origin, "/x")[0] == 200
