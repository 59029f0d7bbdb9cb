"""Certificates of our own: shown to the host that they are for, and to nobody else."""

import os
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from cafs.errors import CafsError, CredentialsError
from cafs.model.login import HostLogin
from cafs.transport.http import HttpTransport, tls_context
from cafs.transport.interfaces import Request
from cafs.transport.proxies import Proxies
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from cafs.transport.trusting import Trust
from tests.conftest import program
from tests.unit.transport.raw_server import _pump, head_of, server_side, serving

Stream = trio.abc.Stream


def signed(path: Path, name: str) -> Path:
    """A certificate of this name that signs itself, and its key, in one file."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    out = ["-subj", f"/CN={name}", "-keyout", str(path / "key"), "-out", str(path / "cert")]
    command = [program("openssl"), *words.split(), *out]
    subprocess.run(command, check=True, capture_output=True)
    file = path / f"{name}.pem"
    file.write_bytes((path / "key").read_bytes() + (path / "cert").read_bytes())
    return file


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two certificates: who we are, and who we are later."""
    path = tmp_path_factory.mktemp("ours")
    return signed(path, "me"), signed(path, "me-later")


async def tell(stream: Stream) -> None:
    """Answer every request with the name in the client's certificate."""
    while await head_of(stream):
        assert isinstance(stream, trio.SSLStream)
        shown = stream.getpeercert()
        name = "nobody" if not shown else str(shown["subject"][0][0][1])
        body = name.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        await stream.send_all(head + body)


@asynccontextmanager
async def asking(certificate: Path, *known: Path, must: bool = False) -> AsyncIterator[int]:
    """A server that asks for a certificate, and knows these; its port."""
    context = server_side(certificate)
    context.verify_mode = ssl.CERT_REQUIRED if must else ssl.CERT_OPTIONAL
    for each in known:
        context.load_verify_locations(each)
    async with serving(tell, context) as port:
        yield port


@asynccontextmanager
async def client(
    certificate: Path, *logins: HostLogin, proxies: Proxies | None = None
) -> AsyncIterator[Redirecting]:
    make = partial(tls_context, certificate)
    http = HttpTransport(tls=make, logins=logins, proxies=proxies)
    transport = Redirecting(http, RedirectPolicy())
    try:
        yield transport
    finally:
        await transport.aclose()


def http_of(transport: Redirecting) -> HttpTransport:
    assert isinstance(transport._transport, HttpTransport)
    return transport._transport


async def told(transport: Redirecting, url: str) -> str:
    async with await transport.open(Request(url)) as response:
        return (await response.receive()).decode()


async def test_our_certificate_is_shown_to_its_host_alone(
    certificate: Path, ours: tuple[Path, Path]
) -> None:
    async with asking(certificate, *ours) as one, asking(certificate, *ours) as two:
        login = HostLogin(host=f"127.0.0.1:{one}", client_cert=ours[0])
        async with client(certificate, login) as transport:
            for _ in range(2):
                assert await told(transport, f"https://127.0.0.1:{one}/") == "me"
                assert await told(transport, f"https://127.0.0.1:{two}/") == "nobody"


async def test_the_key_may_lie_in_a_file_of_its_own(certificate: Path, tmp_path: Path) -> None:
    file = signed(tmp_path, "me")
    async with asking(certificate, file, must=True) as port:
        login = HostLogin(
            host=f"127.0.0.1:{port}", client_cert=tmp_path / "cert", client_key=tmp_path / "key"
        )
        async with client(certificate, login) as transport:
            assert await told(transport, f"https://127.0.0.1:{port}/") == "me"
        async with client(certificate, replace(login, client_key=None)) as transport:
            with pytest.raises(CredentialsError, match="no client certificate with its key"):
                await told(transport, f"https://127.0.0.1:{port}/")


async def test_a_host_that_must_know_us_refuses_who_shows_nothing(
    certificate: Path, ours: tuple[Path, Path]
) -> None:
    async with asking(certificate, *ours, must=True) as port, client(certificate) as transport:
        with pytest.raises(CafsError):
            await told(transport, f"https://127.0.0.1:{port}/")


async def test_a_certificate_that_was_replaced_is_shown_from_the_next_connection(
    certificate: Path, ours: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cafs.transport.trusting._FRESH_S", 0.0)
    file = tmp_path / "me.pem"
    file.write_bytes(ours[0].read_bytes())
    async with asking(certificate, *ours) as port:
        login = HostLogin(host=f"127.0.0.1:{port}", client_cert=file)
        async with client(certificate, login) as transport:
            url = f"https://127.0.0.1:{port}/"
            assert await told(transport, url) == "me"
            (tmp_path / "next").write_bytes(ours[1].read_bytes())
            (tmp_path / "next").replace(file)
            assert await told(transport, url) == "me-later"
            assert len(http_of(transport)._pools) == 1, "that of the former one is not kept"
            file.unlink()
            with pytest.raises(CredentialsError, match="No such file"):
                await told(transport, url)


async def test_files_that_are_the_same_are_not_read_again(
    certificate: Path, ours: tuple[Path, Path], mock_clock: trio.testing.MockClock
) -> None:
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(tls_context(certificate))
        return made[-1]

    trust = Trust(make, [HostLogin(host="a.example", client_cert=ours[0])])
    first = await trust.context("https://a.example/")
    other = await trust.context("https://b.example/")
    for _ in range(3):
        mock_clock.jump(3600)
        assert await trust.context("https://a.example/") is first
        assert await trust.context("https://c.example/") is other
    assert made == [first, other]
    assert trust.uses(first)
    assert not trust.uses(tls_context(certificate))


async def test_a_certificate_that_cannot_be_read_holds_up_nobody_else(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cafs.transport.trusting._PATIENCE_S", 1.0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    logins = [HostLogin(host="a.example", client_cert=pipe)]
    trust = Trust(partial(tls_context, certificate), logins)
    errors: list[CafsError] = []

    async def ask() -> None:
        with pytest.raises(CredentialsError, match="not read within 1 s") as caught:
            await trust.context("https://a.example/")
        errors.append(caught.value)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            await trust.context("https://b.example/")
            assert not errors
    assert len(errors) == 50
    with pipe.open("wb"):  # let the thread go
        pass


async def test_what_nobody_answers_for_is_waited_for_once(
    certificate: Path, tmp_path: Path, mock_clock: trio.testing.MockClock
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    login = HostLogin(host="a.example", client_cert=pipe)
    trust = Trust(partial(tls_context, certificate), [login])
    failed: list[float] = []

    async def ask() -> None:
        with pytest.raises(CredentialsError, match=f"{pipe}: not read within 10 s"):
            await trust.context("https://a.example/")
        failed.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(9)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1)
    assert failed == [10.0, 10.0], "who came late shares the failure of who came first"
    mock_clock.jump(59)
    await ask()
    assert failed[-1] == 69.0, "and for a while everybody is told at once"
    mock_clock.jump(2)
    # The thread that opens it goes on when this one does too.
    with await trio.to_thread.run_sync(pipe.open, "wb"):
        pipe.unlink()
    signed(tmp_path, "me").rename(pipe)
    await trust.context("https://a.example/")


async def test_a_certificate_that_is_missing_is_looked_for_by_each(
    certificate: Path, ours: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "me.pem"
    trust = Trust(partial(tls_context, certificate), [HostLogin(host="h.test", client_cert=file)])
    with pytest.raises(CredentialsError, match="No such file") as caught:
        await trust.context("https://h.test/")
    assert f'settings [credentials."h.test"]: {file}: ' in caught.value.what
    await trust.context("https://other.test/")
    file.write_bytes(ours[0].read_bytes())
    await trust.context("https://h.test/")


async def test_what_is_no_certificate_names_the_file_and_the_host(
    certificate: Path, tmp_path: Path
) -> None:
    file, folder = tmp_path / "me.pem", tmp_path / "folder"
    file.write_text("not a certificate")
    folder.mkdir()
    logins = [
        HostLogin(host="h.test", client_cert=file),
        HostLogin(host="i.test", client_cert=folder),
    ]
    trust = Trust(partial(tls_context, certificate), logins)
    for host, path, says in (("h", file, "no client certificate"), ("i", folder, "director")):
        with pytest.raises(CredentialsError, match=says) as caught:
            await trust.context(f"https://{host}.test/")
        assert f'[credentials."{host}.test"]: {path}: ' in caught.value.what


async def test_a_proxy_is_not_shown_the_certificate_of_the_host_behind_it(
    certificate: Path, ours: tuple[Path, Path]
) -> None:
    seen: list[object] = []

    async def tunnel(stream: Stream) -> None:
        assert isinstance(stream, trio.SSLStream)
        await head_of(stream)
        seen.append(stream.getpeercert())
        async with await trio.open_tcp_stream("127.0.0.1", far) as there:
            await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, stream, there)
                nursery.start_soon(_pump, there, stream)

    context = server_side(certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(ours[0])
    async with asking(certificate, *ours) as far, serving(tunnel, context) as port:
        proxies = Proxies(https=f"https://127.0.0.1:{port}")
        login = HostLogin(host="here.test", client_cert=ours[0])
        async with client(certificate, login, proxies=proxies) as transport:
            assert await told(transport, "https://here.test/") == "me"
    assert seen == [None], "the proxy asked for one too"


async def test_a_key_with_a_password_asks_nobody_for_it(
    certificate: Path, ours: tuple[Path, Path], tmp_path: Path
) -> None:
    locked = tmp_path / "locked.pem"
    words = f"ec -in {ours[0]} -aes128 -passout pass:hush-hush -out {locked}"
    await trio.run_process([program("openssl"), *words.split()], capture_stderr=True)
    login = HostLogin(host="a.example", client_cert=ours[0], client_key=locked)
    trust = Trust(partial(tls_context, certificate), [login])
    with trio.fail_after(60), pytest.raises(CredentialsError, match="without a password"):
        await trust.context("https://a.example/")
