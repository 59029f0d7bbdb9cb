"""S3, against a server process that speaks it: moto, on loopback."""

import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import obstore
import pytest
import trio
from obstore.store import S3Store

from cafs.errors import (
    CredentialsError,
    DeadlineError,
    InvalidReferenceError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from cafs.model.pacing import Pacing
from cafs.model.span import Span
from cafs.model.validator import Validator
from cafs.testing.objects import ObjectStore, running_object_store
from cafs.transport.interfaces import Request
from cafs.transport.s3 import S3Transport
from cafs.transport.s3_profile import profile
from tests.unit.transport.plugins.plugin_world import read
from tests.unit.transport.raw_server import HELLO, head_of, serving

BODY = Random(3).randbytes(3_000_001)
KEY = "dir/a%20b%2541.bin"
"""The key ``dir/a b%41.bin``, as a URL spells it."""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    """An S3 server with some objects in ``s3://bucket``."""
    with running_object_store() as store:
        store.put(f"bucket/{KEY}", BODY)
        store.put("bucket/empty")
        yield store


@pytest.fixture
def s3(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> S3Transport:
    return transport(server.environment, monkeypatch)


def transport(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, pacing: Pacing | None = None
) -> S3Transport:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return S3Transport(environ, pacing or Pacing())


async def test_an_object_comes_whole(s3: S3Transport) -> None:
    async with await s3.open(Request(f"s3://bucket/{KEY}")) as response:
        head = response.head
        assert (head.status, head.total, head.span) == (200, len(BODY), Span(0, len(BODY)))
        assert (head.content_type, head.ranges, head.validator.strong) == ("x/y", True, True)
        data = b""
        while piece := await response.receive():
            assert len(piece) <= 1 << 20
            data += piece
    assert data == BODY
    await s3.aclose()


@pytest.mark.parametrize(
    "span", [Span(0, 1), Span(999, 1 << 20), Span(3_000_000, 3_000_001), Span(2_999_990, 10**9)]
)
async def test_a_span_comes_as_a_range(s3: S3Transport, span: Span) -> None:
    async with await s3.open(Request(f"s3://bucket/{KEY}", span)) as response:
        part = span.clamp(len(BODY))
        head = response.head
        assert (head.status, head.total, head.span) == (206, len(BODY), part)
        data = b""
        while piece := await response.receive():
            data += piece
        assert data == BODY[part.start : part.stop]


async def test_an_empty_object_is_read_though_no_range_of_it_can_be_had(s3: S3Transport) -> None:
    async with await s3.open(Request("s3://bucket/empty", Span(0, 1))) as response:
        assert (response.head.status, response.head.total) == (200, 0)
        assert await response.receive() == b""
    assert await read(s3, "s3://bucket/empty") == b""


async def test_a_span_behind_the_end_tells_the_size(s3: S3Transport) -> None:
    with pytest.raises(RefusedError) as caught:
        await read(s3, Request(f"s3://bucket/{KEY}", Span(3_000_001, 3_000_002)))
    assert caught.value.total == len(BODY)


async def test_what_has_not_changed_is_not_sent(s3: S3Transport, server: ObjectStore) -> None:
    server.put("bucket/changing", b"one")
    async with await s3.open(Request("s3://bucket/changing")) as response:
        version = response.head.validator
    again = Request("s3://bucket/changing", Span(0, 1), if_changed=version)
    async with await s3.open(again) as response:
        assert (response.head.unchanged, response.head.validator) == (True, version)
        assert await response.receive() == b""
    store = S3Store("bucket", client_options={"allow_http": True})
    obstore.put(store, "changing", b"two")
    async with await s3.open(again) as response:
        assert (response.head.status, response.head.unchanged) == (206, False)
        assert response.head.validator != version
    later = Request("s3://bucket/changing", Span(0, 1), if_range=version)
    async with await s3.open(later) as response:
        assert response.head.validator.text != Validator().text


async def test_what_is_not_there_is_not_found(s3: S3Transport) -> None:
    for url in ("s3://bucket/nope", "s3://nobucket/x"):
        with pytest.raises(NotFoundError, match="GET s3://") as caught:
            await read(s3, url)
        assert "\n" not in caught.value.line
        assert "hunter2" not in caught.value.line
    with pytest.raises(InvalidReferenceError):
        await read(s3, "s3://bucket/a//b")


async def test_many_parts_come_at_once(s3: S3Transport) -> None:
    parts: dict[int, bytes] = {}

    async def one(start: int) -> None:
        parts[start] = await read(s3, Request(f"s3://bucket/{KEY}", Span(start, start + 100_000)))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for start in range(0, len(BODY), 100_000):
                nursery.start_soon(one, start)
    assert b"".join(parts[start] for start in sorted(parts)) == BODY


async def test_nobody_at_the_endpoint_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
    }
    with pytest.raises(UnreachableError) as caught:
        await read(transport(environ, monkeypatch), "s3://bucket/x")
    assert "hunter2" not in caught.value.line


async def test_a_server_that_says_nothing_costs_the_first_byte_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
        }
        pacing = Pacing(connect_s=0.1, first_byte_s=0.2, stall_s=5.0)
        with pytest.raises(DeadlineError, match="no answer within"):
            await read(transport(environ, monkeypatch, pacing), "s3://bucket/x")


def test_a_profile_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = D\n[work]\naws_access_key_id = W\n"
        "aws_secret_access_key = hunter2\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile work]\nregion = eu-1\noutput = json\n")
    home = {"HOME": str(tmp_path)}
    assert profile(home) == {"access_key_id": "D"}
    work = {"access_key_id": "W", "secret_access_key": "hunter2", "region": "eu-1"}
    assert profile({**home, "AWS_PROFILE": "work"}) == work
    told = {**home, "AWS_PROFILE": "work", "AWS_REGION": "us-1"}
    assert "region" not in profile(told)
    assert profile({**home, "AWS_ACCESS_KEY_ID": "E"}) == {}
    assert profile({}) == {}
    with pytest.raises(CredentialsError, match="no such profile"):
        profile({**home, "AWS_PROFILE": "play"})
    (tmp_path / ".aws" / "credentials").write_text("aws_secret_access_key = hunter2\n")
    with pytest.raises(CredentialsError) as caught:
        profile(home)
    assert "hunter2" not in caught.value.line


async def test_the_profile_is_what_is_asked_with(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = hunter2\nregion = eu-west-1\n"
    )
    environ = {"HOME": str(tmp_path), "AWS_ENDPOINT_URL": server.url}
    s3 = transport(environ, monkeypatch)
    assert await read(s3, Request(f"s3://bucket/{KEY}", Span(0, 9))) == BODY[:9]


async def test_keys_that_are_over_are_looked_for_in_the_profile_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code></Error>"
    tail = b"Content-Length: %d\r\n\r\n%s" % (len(over), over)
    last = b"Last-Modified: Sun, 01 Mar 2026 00:00:00 GMT\r\n"

    async def talk(stream: trio.abc.Stream) -> None:
        while head := await head_of(stream):
            renewed = b"Credential=NEW/" in head
            answer = HELLO.replace(b"OK\r\n", b"OK\r\n" + last)
            await stream.send_all(answer if renewed else b"HTTP/1.1 400 Bad Request\r\n" + tail)

    def keys(name: str) -> None:
        lines = f"[default]\naws_access_key_id = {name}\naws_secret_access_key = hunter2\n"
        (tmp_path / ".aws" / "credentials").write_text(lines)

    (tmp_path / ".aws").mkdir()
    keys("OLD")
    async with serving(talk) as port:
        environ = {"HOME": str(tmp_path), "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        s3 = transport(environ, monkeypatch)
        with pytest.raises(CredentialsError):
            await read(s3, "s3://bucket/x")
        keys("NEW")
        assert await read(s3, "s3://bucket/x") == b"hello"


async def test_a_profile_that_is_not_there_is_told_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = transport({"HOME": str(tmp_path), "AWS_PROFILE": "play"}, monkeypatch)
    with pytest.raises(CredentialsError, match="no such profile"):
        await read(s3, "s3://bucket/x")
