"""The HTTP transport against servers that do what no proper one does."""

from pathlib import Path

import pytest
import trio

from cafs.errors import DeadlineError, InvalidReferenceError, RefusedError, UnreachableError
from cafs.model.span import Span
from cafs.testing.origin import Origin
from cafs.transport.http import tls_context
from cafs.transport.interfaces import Request
from tests.unit.transport.clients import local, opened, read
from tests.unit.transport.raw_server import (
    HELLO,
    Stream,
    head_of,
    saying,
    server_side,
    serving,
)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_what_is_no_http_is_unreachable(answer: bytes) -> None:
    async with saying(answer) as heads, opened() as transport:
        with pytest.raises(UnreachableError):
            await read(transport, Request(local(heads)))


async def test_a_body_without_length_ends_with_the_connection() -> None:
    async with (
        saying(b"HTTP/1.0 200 OK\r\n\r\nhello") as heads,
        opened() as transport,
        await transport.open(Request(local(heads))) as response,
    ):
        assert response.head.total is None
        assert await response.receive() == b"hello"
        assert await response.receive() == b""


async def test_an_etag_in_other_letters_does_not_hinder_asking_again() -> None:
    answer = b'HTTP/1.1 200 OK\r\nETag: "\xe4"\r\nContent-Length: 2\r\n\r\nok'
    async with saying(answer) as heads, opened() as transport:
        async with await transport.open(Request(local(heads))) as response:
            version = response.head.validator
        assert await read(transport, Request(local(heads), if_changed=version)) == b"ok"


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example"])
async def test_a_host_that_no_name_server_could_hold_is_no_reference(host: str) -> None:
    async with opened() as transport:
        with pytest.raises(InvalidReferenceError, match="no such host"):
            await transport.open(Request(f"http://{host}/a"))


async def test_a_host_may_have_an_underscore_that_no_name_may() -> None:
    async with opened() as transport:
        with pytest.raises(UnreachableError):
            await transport.open(Request("http://a_b.invalid/a"))


async def test_a_url_is_asked_for_as_it_may_be_sent() -> None:
    async with saying(HELLO) as heads, opened() as transport:
        url = f"http://127.0.0.1:{heads[0].decode()}/a b/./c/../\u00fc?x={{y}} z#fragment"
        assert await read(transport, Request(url)) == b"hello"
    assert heads[1].startswith(b"GET /a%20b/%C3%BC?x={y}%20z HTTP/1.1\r\n")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_ipv6_address_is_a_host(certificate: Path, scheme: str) -> None:
    heads: list[bytes] = []

    async def talk(stream: Stream) -> None:
        heads.append(await head_of(stream))
        await stream.send_all(HELLO)

    tls = server_side(certificate) if scheme == "https" else None
    async with (
        serving(talk, tls, host="::1") as port,
        opened(tls=tls_context(certificate)) as transport,
        await transport.open(Request(f"{scheme}://[::1]:{port}/a")) as response,
    ):
        assert response.head.peer == "::1"
        assert await response.receive() == b"hello"
    assert f"Host: [::1]:{port}\r\n".encode() in heads[0]


GZIPPED = b"\x1f\x8b\x08\0junk"


def coded(coding: bytes, status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    lines = b"HTTP/1.1 %b\r\nContent-Encoding: %b\r\nContent-Length: 8\r\n%b\r\n"
    return lines % (status, coding, more) + GZIPPED


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"x-gzip, identity", b"br", b"unheard-of"])
async def test_bytes_in_a_coding_that_nobody_asked_for_are_refused(coding: bytes) -> None:
    async with saying(coded(coding)) as heads, opened() as transport:
        with pytest.raises(RefusedError, match="Content-Encoding") as caught:
            await transport.open(Request(local(heads)))
    assert "mirror" in caught.value.hint
    assert b"Accept-Encoding: identity\r\n" in heads[1]


async def test_a_range_in_a_coding_is_refused() -> None:
    answer = coded(b"gzip", b"206 Partial Content", b"Content-Range: bytes 0-7/9\r\n")
    async with saying(answer) as heads, opened() as transport:
        with pytest.raises(RefusedError, match="Content-Encoding"):
            await transport.open(Request(local(heads), Span(0, 8)))


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("a.tar.gz", b"gzip"),
        ("A.TGZ", b"x-gzip"),
        ("a.tar.xz", b"xz"),
        ("a.tar.Z", b"x-compress"),
        ("a", b"identity"),
        ("a", b""),
    ],
)
async def test_a_file_that_lies_there_compressed_is_taken_as_it_is(
    name: str, coding: bytes
) -> None:
    async with saying(coded(coding)) as heads, opened() as transport:
        url = local(heads).removesuffix("a") + name
        assert await read(transport, Request(url)) == GZIPPED


@pytest.mark.parametrize("name", ["a.tar", "a.tar.xz", "a.gz/b", "a?x=.gz"])
async def test_a_file_of_another_name_is_not(name: str) -> None:
    async with saying(coded(b"gzip")) as heads, opened() as transport:
        with pytest.raises(RefusedError, match="Content-Encoding"):
            await transport.open(Request(local(heads).removesuffix("a") + name))


async def test_interim_answers_are_passed_over() -> None:
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    async with saying(answer) as heads, opened() as transport:
        assert await read(transport, Request(local(heads))) == b"ok"


async def test_rule1_several_ranges_in_one_body_are_refused() -> None:
    answer = (
        b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n"
        b"Content-Length: 5\r\n\r\n--x--"
    )
    async with saying(answer) as heads, opened() as transport:
        with pytest.raises(RefusedError, match="several ranges"):
            await transport.open(Request(local(heads), Span(0, 5)))


async def test_a_range_longer_than_it_says_is_refused() -> None:
    answer = (
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    )
    async with saying(answer) as heads, opened() as transport:
        with pytest.raises(RefusedError, match="more than the announced 2"):
            await read(transport, Request(local(heads), Span(0, 2)))


@pytest.mark.parametrize("place", [b"", b"Content-Range: bytes */0\r\n"])
async def test_an_unsatisfied_first_byte_is_asked_for_as_a_whole(place: bytes) -> None:
    first = b"HTTP/1.1 416 No\r\n" + place + b"Content-Length: 0\r\n\r\n"
    second = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n'
    async with (
        saying(first, second) as heads,
        opened() as transport,
        await transport.open(Request(local(heads), Span(0, 1))) as response,
    ):
        assert response.head.span == Span(0, 0)
        assert response.head.validator.etag == '"e"'
        assert await response.receive() == b""
    assert b"Range:" in heads[1]
    assert b"Range:" not in heads[2]


async def test_an_unwanted_body_that_never_ends_is_not_waited_for() -> None:
    answer = b"HTTP/1.1 404 No\r\nContent-Length: 9999\r\n\r\nbut"

    async def talk(stream: Stream) -> None:
        await head_of(stream)
        await stream.send_all(answer)
        await stream.receive_some(1)

    async with serving(talk) as port, opened() as transport:
        with trio.fail_after(60), pytest.raises(Exception, match="404"):
            await transport.open(Request(f"http://127.0.0.1:{port}/"))


async def test_a_head_is_not_waited_for_when_all_connections_are_busy(origin: Origin) -> None:
    url = origin.put("/a", bytes(1 << 20))
    async with (
        opened(connections=1, patience_s=0.2) as transport,
        await transport.open(Request(url)),
    ):
        with pytest.raises(DeadlineError):
            await transport.open(Request(url))
