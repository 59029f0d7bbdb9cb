"""The HTTP transport against servers that do what no proper one does, TLS, and proxies."""

import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cafs.errors import (
    CredentialsError,
    DeadlineError,
    InvalidReferenceError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from cafs.model.span import Span
from cafs.testing.origin import Origin
from cafs.transport.http import HttpLimits, HttpTransport, tls_context
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies
from tests.unit.transport.raw_server import Stream, head_of, saying, serving


@asynccontextmanager
async def opened(
    *, proxies: Proxies | None = None, tls: ssl.SSLContext | None = None, connections: int = 64
) -> AsyncIterator[HttpTransport]:
    limits = HttpLimits(connect_s=0.7, head_s=0.5, stall_s=2, connections=connections)
    transport = HttpTransport(limits=limits, proxies=proxies, tls=tls)
    try:
        yield transport
    finally:
        await transport.aclose()


async def read(transport: HttpTransport, request: Request) -> bytes:
    pieces = []
    async with await transport.open(request) as response:
        while piece := await response.receive():
            pieces.append(piece)
    return b"".join(pieces)


def local(heads: list[bytes], scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{heads[0].decode()}/a"


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


async def test_bytes_are_taken_as_they_are_sent() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\n\x1f\x8b\x08\0junk"
    )
    async with saying(answer) as heads, opened() as transport:
        assert await read(transport, Request(local(heads))) == b"\x1f\x8b\x08\0junk"


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
        with trio.fail_after(5), pytest.raises(Exception, match="404"):
            await transport.open(Request(f"http://127.0.0.1:{port}/"))


async def test_a_head_is_not_waited_for_when_all_connections_are_busy(origin: Origin) -> None:
    url = origin.put("/a", bytes(1 << 20))
    async with opened(connections=1) as transport, await transport.open(Request(url)):
        with pytest.raises(DeadlineError):
            await transport.open(Request(url))


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for this machine, in one file."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI"):
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    out = ["-keyout", str(path / "key"), "-out", str(path / "cert")]
    subprocess.run(["openssl", *words.split(), *name, *out], check=True, capture_output=True)
    (path / "both").write_bytes((path / "key").read_bytes() + (path / "cert").read_bytes())
    return path / "both"


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def test_a_ca_bundle_is_trusted(certificate: Path) -> None:
    async with (
        saying(HELLO, tls=server_side(certificate)) as heads,
        opened(tls=tls_context(certificate)) as transport,
        await transport.open(Request(local(heads, "https"))) as response,
    ):
        assert response.head.peer == "127.0.0.1"
        assert await response.receive() == b"hello"


async def test_closing_early_over_tls_leaves_nothing_behind(certificate: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + bytes(400_000)
    async with (
        saying(answer, tls=server_side(certificate)) as heads,
        opened(tls=tls_context(certificate)) as transport,
        await transport.open(Request(local(heads, "https"))) as response,
    ):
        assert await response.receive()


async def test_an_unknown_certificate_is_refused_and_no_retry_will_help(certificate: Path) -> None:
    async with saying(HELLO, tls=server_side(certificate)) as heads, opened() as transport:
        with pytest.raises(RefusedError, match="certificate") as caught:
            await transport.open(Request(local(heads, "https")))
    assert "CA bundle" in caught.value.hint


async def test_plain_http_on_a_tls_port_is_unreachable() -> None:
    async with saying(HELLO) as heads, opened() as transport:
        with pytest.raises(UnreachableError):
            await transport.open(Request(local(heads, "https")))


def test_a_ca_bundle_that_is_none_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("none", "empty"):
        with pytest.raises(SettingsError, match="CA bundle"):
            tls_context(tmp_path / name)


# -- proxies


async def test_plain_http_goes_through_the_proxy_by_its_full_url() -> None:
    async with saying(HELLO) as heads:
        proxies = Proxies(http=f"http://user:pass@127.0.0.1:{heads[0].decode()}")
        async with opened(proxies=proxies) as transport:
            assert transport.proxied("http://source.invalid/a")
            async with await transport.open(Request("http://source.invalid/a?b=c")) as response:
                assert response.head.peer == ""
                assert await response.receive() == b"hello"
    assert heads[1].startswith(b"GET http://source.invalid/a?b=c HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic" in heads[1]


async def test_https_goes_through_the_proxy_by_a_tunnel(certificate: Path) -> None:
    asked: list[bytes] = []

    async def tunnel(stream: Stream) -> None:
        asked.append(await head_of(stream))
        far = await trio.open_tcp_stream("127.0.0.1", int(heads[0]))
        await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")

        async def pump(source: Stream, target: Stream) -> None:
            try:
                async for data in source:
                    await target.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, far)
            nursery.start_soon(pump, far, stream)

    async with saying(HELLO, tls=server_side(certificate)) as heads, serving(tunnel) as port:
        proxies = Proxies(https=f"http://127.0.0.1:{port}")
        async with opened(proxies=proxies, tls=tls_context(certificate)) as transport:
            assert await read(transport, Request(local(heads, "https"))) == b"hello"
    assert asked[0].startswith(b"CONNECT 127.0.0.1:")


async def test_a_proxy_that_wants_credentials_is_named() -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with saying(answer) as heads:
        proxies = Proxies(http=f"http://127.0.0.1:{heads[0].decode()}")
        async with opened(proxies=proxies) as transport:
            with pytest.raises(CredentialsError) as caught:
                await transport.open(Request("http://source.invalid/a"))
    assert "proxy" in caught.value.hint


async def test_a_refused_tunnel_says_that_a_proxy_is_in_use() -> None:
    async with saying(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as heads:
        proxies = Proxies(https=f"http://127.0.0.1:{heads[0].decode()}")
        async with opened(proxies=proxies) as transport:
            with pytest.raises(UnreachableError, match="proxy refused") as caught:
                await transport.open(Request("https://source.invalid/a"))
    assert caught.value.hint


async def test_what_no_proxy_names_is_direct(origin: Origin) -> None:
    url = origin.put("/a", b"direct")
    async with opened(proxies=Proxies(http="http://127.0.0.1:1", direct=("127.0.0.1",))) as made:
        assert await read(made, Request(url)) == b"direct"
