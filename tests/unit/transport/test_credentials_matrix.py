"""Every kind of credential, allowed, denied and expired, at its host and behind a redirect."""

import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cafs.errors import CredentialsError
from cafs.model.login import HelperRule, HostLogin
from cafs.testing.faults import Redirect
from cafs.testing.guarding import RequireProof, basic
from cafs.testing.origin import Origin
from cafs.transport.credentials.keeping import Credentials
from tests.unit.transport.identities import Home, authenticating, read

SECRETS = ("first-secret-0001", "second-secret-0002")
KINDS = ("none", "basic", "bearer", "helper")
FILE = "/tree/file"


@dataclass(frozen=True, slots=True)
class Who:
    """Credentials of one kind: what they show, and how they are replaced by the second secret."""

    kind: str
    home: Home
    place: str

    def credentials(self) -> Credentials:
        self.store(SECRETS[0])
        login = HostLogin(host=self.place, username="me", password_file=self.home.path / "secret")
        match self.kind:
            case "basic":
                return self.home.credentials([login])
            case "bearer":
                bearer = HostLogin(host=self.place, token_file=self.home.path / "secret")
                return self.home.credentials([bearer])
            case "helper":
                program = str(self.home.programs / "helper")
                return self.home.credentials(helpers=[HelperRule(self.place, (program,))])
            case _:
                return self.home.credentials()

    def store(self, secret: str) -> None:
        self.home.secret(f"{secret}\n")
        self.home.helper("helper", {"headers": {"X-Key": [secret]}})

    def proof(self, secret: str) -> str:
        return {"basic": basic("me", secret), "bearer": f"Bearer {secret}"}.get(self.kind, secret)

    @property
    def header(self) -> str:
        return "x-key" if self.kind == "helper" else "authorization"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def who_at(kind: str, home: Home, origin: Origin) -> Who:
    return Who(kind, home, urlsplit(origin.url("/")).netloc)


def silent(caplog: pytest.LogCaptureFixture, *texts: str) -> None:
    for secret in SECRETS:
        for text in (caplog.text, *texts):
            assert secret not in text
            assert basic("me", secret).removeprefix("Basic ") not in text


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_allowed_reads(
    kind: str, home: Home, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    who = who_at(kind, home, origin)
    url = origin.put(FILE, b"content")
    if kind != "none":
        guard = RequireProof(header=who.header)
        origin.fault(FILE, guard.opens_to(who.proof(SECRETS[0])))
    async with authenticating(who.credentials()) as transport:
        for _ in range(3):
            assert await read(transport, url) == b"content"
    assert len(origin.requests) == 3, "who is known says so from the first request on"
    assert len(home.asked("helper")) == (1 if kind == "helper" else 0)
    silent(caplog)


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_denied_is_told_what_was_tried(
    kind: str, code: int, home: Home, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    who = who_at(kind, home, origin)
    url = origin.put(FILE, b"content")
    origin.fault(FILE, RequireProof(header=who.header, code=code))
    async with authenticating(who.credentials()) as transport:
        with pytest.raises(CredentialsError) as caught:
            await read(transport, url)
        assert len(origin.requests) == 1, "the same secret is not shown again"
        with pytest.raises(CredentialsError):
            await read(transport, url)
    assert len(home.asked("helper")) == (2 if kind == "helper" else 0), "renewed once, not at once"
    assert "127.0.0.1" in caught.value.hint
    named = {"none": ".netrc", "helper": "bin/helper"}.get(kind, str(home.path / "secret"))
    assert named in caught.value.hint
    silent(caplog, caught.value.line, repr(caught.value))


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_has_expired_is_renewed_once(
    kind: str, code: int, home: Home, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    who = who_at(kind, home, origin)
    url = origin.put(FILE, b"content")
    guard = RequireProof(header=who.header, code=code)
    if kind != "none":
        origin.fault(FILE, guard.opens_to(who.proof(SECRETS[0])))
    async with authenticating(who.credentials()) as transport:
        assert await read(transport, url) == b"content"
        if kind == "none":
            origin.fault(FILE, guard)
        guard.opens_to(who.proof(SECRETS[1]))
        who.store(SECRETS[1])
        origin.forget()
        if kind == "none":
            with pytest.raises(CredentialsError):
                await read(transport, url)
        else:
            assert await read(transport, url) == b"content"
            assert await read(transport, url) == b"content"
    assert len(origin.requests) == (1 if kind == "none" else 3)
    assert len(home.asked("helper")) == (2 if kind == "helper" else 0)
    silent(caplog)


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_what_was_renewed_and_is_refused_again_is_the_end(
    kind: str, home: Home, origin: Origin
) -> None:
    who = who_at(kind, home, origin)
    url = origin.put(FILE, b"content")
    guard = RequireProof(header=who.header)
    origin.fault(FILE, guard.opens_to(who.proof(SECRETS[0])))
    async with authenticating(who.credentials()) as transport:
        await read(transport, url)
        guard.opens_to()
        who.store(SECRETS[1])
        origin.forget()
        with pytest.raises(CredentialsError):
            await read(transport, url)
        assert len(origin.requests) == 2
        for _ in range(3):
            with pytest.raises(CredentialsError):
                await read(transport, url)
    assert len(origin.requests) == 5, "for some seconds nobody looks for yet another"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["allowed", "denied", "expired"])
async def test_no_credential_crosses_to_another_host(
    kind: str, state: str, home: Home, origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    who = who_at(kind, home, origin)
    there = origin.put("/there", b"content").replace("127.0.0.1", "localhost")
    url = origin.put(FILE, b"")
    guard = RequireProof(header=who.header).opens_to(who.proof(SECRETS[0]))
    origin.fault(FILE, Redirect(there))
    if kind != "none":
        origin.fault(FILE, guard)
    if state == "denied":
        origin.fault("/there", RequireProof(header=who.header))
    async with authenticating(who.credentials()) as transport:
        if state == "expired":
            await read(transport, url)
            guard.opens_to(who.proof(SECRETS[1]))
            who.store(SECRETS[1])
        if state == "denied":
            with pytest.raises(CredentialsError, match="localhost") as caught:
                await read(transport, url)
            assert "no credentials are shown to localhost" in caught.value.hint
        else:
            assert await read(transport, url) == b"content"
    arrived = origin.requests_for("/there")
    assert arrived
    for request in arrived:
        assert request.header("host") == f"localhost:{origin.port}"
        assert all(secret not in repr(request.headers) for secret in SECRETS)
        assert request.header("authorization") is None
        assert request.header("x-key") is None
    if kind != "none":
        assert origin.requests_for(FILE)[-1].header(who.header) is not None
    silent(caplog)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_redirect_within_the_origin_keeps_what_proves_who_asks(
    kind: str, home: Home, origin: Origin
) -> None:
    who = who_at(kind, home, origin)
    origin.put("/there", b"content")
    url = origin.put(FILE, b"")
    origin.fault(FILE, Redirect("/there"))
    if kind != "none":
        guard = RequireProof(header=who.header).opens_to(who.proof(SECRETS[0]))
        origin.fault("/there", guard)
    async with authenticating(who.credentials()) as transport:
        assert await read(transport, url) == b"content"


@pytest.mark.parametrize("kind", KINDS)
async def test_another_port_of_the_host_is_another_origin(
    kind: str, home: Home, origin: Origin
) -> None:
    host, _, port = urlsplit(origin.url("/")).netloc.partition(":")
    who = Who(kind, home, f"{host}:{int(port) % 65535 + 1}")
    async with authenticating(who.credentials()) as transport:
        assert await read(transport, origin.put(FILE, b"content")) == b"content"
    (request,) = origin.requests
    assert request.header("authorization") is None
    assert request.header("x-key") is None
