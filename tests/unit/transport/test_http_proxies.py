"""The HTTP transport by way of proxies, which are spoken to plainly or with TLS."""

import base64
from pathlib import Path

import pytest

from cafs.errors import CredentialsError, UnreachableError
from cafs.testing.origin import Origin
from cafs.transport.http import tls_context
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies
from tests.unit.transport.clients import local, opened, read
from tests.unit.transport.raw_server import (
    HELLO,
    greet,
    saying,
    server_side,
    serving,
    tunnelling,
)

SECRET = b"us:er:p@ss\xc3\xbc"
USERINFO = "us%3Aer:p%40ss%C3%BC"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_plain_http_goes_through_the_proxy_by_its_full_url(
    certificate: Path, scheme: str
) -> None:
    tls = server_side(certificate) if scheme == "https" else None
    async with saying(HELLO, tls=tls) as heads:
        proxies = Proxies(http=f"{scheme}://{USERINFO}@127.0.0.1:{heads[0].decode()}")
        async with opened(proxies=proxies, tls=tls_context(certificate)) as transport:
            assert transport.proxied("http://source.invalid/a")
            async with await transport.open(Request("http://source.invalid/a?b=c")) as response:
                assert response.head.peer == ""
                assert await response.receive() == b"hello"
    assert heads[1].startswith(b"GET http://source.invalid/a?b=c HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(SECRET) + b"\r\n" in heads[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_https_goes_through_the_proxy_by_a_tunnel(certificate: Path, scheme: str) -> None:
    asked: list[bytes] = []
    far_side = server_side(certificate)
    near_side = server_side(certificate) if scheme == "https" else None
    async with (
        saying(HELLO, HELLO, tls=far_side) as heads,
        tunnelling(int(heads[0]), near_side, heads=asked) as port,
    ):
        proxies = Proxies(https=f"{scheme}://{USERINFO}@127.0.0.1:{port}")
        async with opened(proxies=proxies, tls=tls_context(certificate)) as transport:
            for _ in range(2):
                assert await read(transport, Request(local(heads, "https"))) == b"hello"
    (head,) = asked
    assert head.startswith(b"CONNECT 127.0.0.1:" + heads[0] + b" HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + base64.b64encode(SECRET) + b"\r\n" in head
    # The source is told nothing of the proxy, nor who may use it.
    assert len(heads) == 3
    assert not any(b"proxy" in each.lower() for each in heads)


async def test_a_proxy_is_told_an_ipv6_address_as_a_url_has_it(certificate: Path) -> None:
    asked: list[bytes] = []
    async with (
        saying(HELLO) as heads,
        serving(greet, server_side(certificate)) as far,
        tunnelling(far, heads=asked) as port,
    ):
        proxies = Proxies(
            http=f"http://127.0.0.1:{heads[0].decode()}", https=f"http://127.0.0.1:{port}"
        )
        async with opened(proxies=proxies, tls=tls_context(certificate)) as transport:
            assert await read(transport, Request("http://[2001:db8::1]:81/a")) == b"hello"
            assert await read(transport, Request("https://[::1]/a")) == b"hello"
    assert heads[1].startswith(b"GET http://[2001:db8::1]:81/a HTTP/1.1\r\n")
    assert b"Host: [2001:db8::1]:81\r\n" in heads[1]
    assert asked[0].startswith(b"CONNECT [::1]:443 HTTP/1.1\r\n")


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
