"""The HTTP transport over TLS: whom it trusts, and for which names."""

from pathlib import Path

import pytest

from cafs.errors import PolicyError, RefusedError, SettingsError, UnreachableError
from cafs.transport.http import tls_context
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from tests.unit.transport.clients import local, opened, read
from tests.unit.transport.raw_server import (
    HELLO,
    Stream,
    greet,
    head_of,
    saying,
    server_side,
    serving,
    tunnelling,
)


async def test_a_ca_bundle_is_trusted(certificate: Path) -> None:
    async with (
        saying(HELLO, tls=server_side(certificate)) as heads,
        opened(tls=tls_context(certificate)) as transport,
        await transport.open(Request(local(heads, "https"))) as response,
    ):
        assert response.head.peer == "127.0.0.1"
        assert await response.receive() == b"hello"


async def test_the_systems_certificates_are_where_the_environment_says(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(greet, server_side(certificate)) as port, opened() as transport:
        assert await read(transport, Request(f"https://127.0.0.1:{port}/")) == b"hello"


async def test_a_ca_bundle_stands_instead_of_the_systems_certificates(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    async with (
        serving(greet, server_side(certificate)) as port,
        opened(tls=tls_context(certificate)) as transport,
    ):
        assert await read(transport, Request(f"https://127.0.0.1:{port}/")) == b"hello"


async def test_a_certificate_for_another_host_is_refused(certificate: Path) -> None:
    async with (
        serving(greet, server_side(certificate)) as port,
        opened(tls=tls_context(certificate)) as transport,
    ):
        with pytest.raises(RefusedError, match="Hostname mismatch"):
            await transport.open(Request(f"https://localhost:{port}/"))


@pytest.mark.parametrize(("host", "right"), [("here.test", True), ("there.test", False)])
async def test_behind_a_proxy_a_certificate_must_be_for_the_host_that_was_asked(
    certificate: Path, host: str, *, right: bool
) -> None:
    async with serving(greet, server_side(certificate)) as far, tunnelling(far) as port:
        proxies = Proxies(https=f"http://127.0.0.1:{port}")
        async with opened(proxies=proxies, tls=tls_context(certificate)) as transport:
            if right:
                assert await read(transport, Request(f"https://{host}/")) == b"hello"
            else:
                with pytest.raises(RefusedError, match="Hostname mismatch"):
                    await transport.open(Request(f"https://{host}/"))


async def test_a_host_with_its_roots_dot_has_the_certificate_of_the_name_without(
    certificate: Path,
) -> None:
    heads: list[bytes] = []

    async def talk(stream: Stream) -> None:
        heads.append(await head_of(stream))
        await stream.send_all(HELLO)

    async with serving(talk, server_side(certificate)) as far, tunnelling(far) as port:
        proxies = Proxies(https=f"http://127.0.0.1:{port}")
        async with opened(proxies=proxies, tls=tls_context(certificate)) as transport:
            assert await read(transport, Request("https://here.test./")) == b"hello"
    assert b"Host: here.test.\r\n" in heads[0]


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


async def test_a_secure_source_cannot_send_a_reader_to_plain_http(certificate: Path) -> None:
    async with saying(HELLO) as plain:
        answer = b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
        redirect = answer % local(plain).encode()
        async with (
            saying(redirect, tls=server_side(certificate)) as heads,
            opened(tls=tls_context(certificate)) as transport,
        ):
            with pytest.raises(PolicyError, match="not secure"):
                await Redirecting(transport, RedirectPolicy()).open(Request(local(heads, "https")))
        assert len(plain) == 1, "it was asked"


async def test_plain_http_on_a_tls_port_is_unreachable() -> None:
    async with saying(HELLO) as heads, opened(patience_s=0.2) as transport:
        with pytest.raises(UnreachableError):
            await transport.open(Request(local(heads, "https")))


def test_a_ca_bundle_that_is_none_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("none", "empty"):
        with pytest.raises(SettingsError, match="CA bundle"):
            tls_context(tmp_path / name)
