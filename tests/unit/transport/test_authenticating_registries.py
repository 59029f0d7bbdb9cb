"""Registries that want to know who asks: tokens for somebody, and what of it goes where."""

import json
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from cafs.errors import CredentialsError
from cafs.model.login import HelperRule, HostLogin
from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.faults import Redirect, RequireBearer
from cafs.testing.guarding import RequireProof, basic
from cafs.testing.origin import Origin, running_origin
from cafs.transport.answers import ChallengeError
from cafs.transport.authenticating import Authenticating, Tried
from cafs.transport.interfaces import Head, Request
from cafs.transport.redirecting import RedirectPolicy
from tests.unit.transport.identities import Home, authenticating, read
from tests.unit.transport.scripted import Scripted

BLOB = "/v2/app/blobs/sha256:0"
MANIFEST = "/v2/app/manifests/latest"


class TokenServer:
    """Gives a token to who proves to be somebody; what it was asked is in ``asks``."""

    def __init__(self, origin: Origin, *proofs: str) -> None:
        self.proofs = set(proofs)
        self.tokens: list[str] = []
        self.asks: list[Ask] = []
        realm = origin.url("/token")
        challenge = f'Bearer realm="{realm}",service="s",scope="repository:app:pull"'
        self.guard = RequireProof(challenge=challenge)
        for path in (BLOB, MANIFEST):
            origin.put(path, path.encode())
        origin.fault("/v2/*", self.guard)
        origin.serve("/token", self._answer)

    def _answer(self, ask: Ask) -> Answer:
        self.asks.append(ask)
        form = parse_qs(ask.body.decode())
        (refresh,) = form.get("refresh_token", [""])
        if not {ask.header("authorization"), refresh} & self.proofs:
            return text_answer(400 if refresh else 401, '{"error": "invalid_grant"}')
        self.tokens.append(f"token-{len(self.tokens)}")
        self.guard.opens_to(f"Bearer {self.tokens[-1]}")
        return text_answer(200, json.dumps({"access_token": self.tokens[-1]}))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def login(home: Home, origin: Origin, secret: str) -> HostLogin:
    file = home.secret(secret, "password")
    return HostLogin(host=f"127.0.0.1:{origin.port}", username="me", password_file=file)


async def test_a_token_is_got_by_name_and_password(home: Home, origin: Origin) -> None:
    server = TokenServer(origin, basic("me", "right"))
    credentials = home.credentials([login(home, origin, "right")])
    async with authenticating(credentials) as transport:
        for path in (BLOB, MANIFEST, BLOB):
            assert await read(transport, origin.url(path)) == path.encode()
    assert [each.path for each in origin.requests] == [BLOB, "/token", BLOB, MANIFEST, BLOB]
    assert all(
        "Basic" not in (each.header("authorization") or "")
        for each in origin.requests
        if each.path != "/token"
    ), "a password is for the token server alone"
    assert server.asks[0].query == "service=s&scope=repository%3Aapp%3Apull"


async def test_an_identity_token_is_exchanged(home: Home, origin: Origin) -> None:
    server = TokenServer(origin, "identity")
    home.docker({"auths": {f"127.0.0.1:{origin.port}": {"identitytoken": "identity"}}})
    async with authenticating(home.credentials()) as transport:
        assert await read(transport, origin.url(BLOB)) == BLOB.encode()
    (ask,) = server.asks
    assert ask.method == "POST"
    assert ask.query == ""
    assert ask.header("authorization") is None
    assert parse_qs(ask.body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["s"],
        "scope": ["repository:app:pull"],
        "client_id": ["cafs"],
        "refresh_token": ["identity"],
    }


async def test_an_identity_token_does_not_follow_a_redirect(home: Home, origin: Origin) -> None:
    TokenServer(origin, "identity")
    origin.put("/elsewhere", b"")
    origin.fault("/token", Redirect("/elsewhere", code=307))
    home.docker({"auths": {f"127.0.0.1:{origin.port}": {"identitytoken": "identity"}}})
    async with authenticating(home.credentials()) as transport:
        with pytest.raises(CredentialsError, match="307"):
            await read(transport, origin.url(BLOB))
    assert not origin.requests_for("/elsewhere")


@pytest.mark.parametrize("kind", ["password", "identity"])
async def test_what_the_token_server_refuses_is_renewed_once(
    home: Home, origin: Origin, kind: str
) -> None:
    def store(secret: str) -> None:
        home.secret(secret, "password")
        if kind == "identity":
            home.docker({"auths": {f"127.0.0.1:{origin.port}": {"identitytoken": secret}}})

    store("old")
    server = TokenServer(origin, basic("me", "old"), "old")
    credentials = home.credentials([login(home, origin, "old")] if kind == "password" else [])
    async with authenticating(credentials) as transport:
        await read(transport, origin.url(BLOB))
        store("new")
        server.proofs = {basic("me", "new"), "new"}
        server.guard.opens_to()
        assert await read(transport, origin.url(BLOB)) == BLOB.encode()
        assert len(server.asks) == 3
        server.proofs.clear()
        server.guard.opens_to()
        with pytest.raises(CredentialsError, match="no token for repository:app:pull") as caught:
            await read(transport, origin.url(BLOB))
        assert len(server.asks) == 4
        assert "it refuses" in caught.value.hint
        for secret in ("old", "new"):
            assert secret not in caught.value.line


async def test_a_registry_may_want_a_password_itself(home: Home, origin: Origin) -> None:
    for path in (BLOB, MANIFEST):
        origin.put(path, path.encode())
    guard = RequireProof().opens_to(basic("me", "right"))
    origin.fault("/v2/*", guard)
    credentials = home.credentials([login(home, origin, "right")])
    async with authenticating(credentials) as transport:
        for path in (BLOB, MANIFEST):
            assert await read(transport, origin.url(path)) == path.encode()
        assert len(origin.requests) == 3, "only the first request of a repository is refused"
        guard.opens_to(basic("me", "next"))
        home.secret("next", "password")
        assert await read(transport, origin.url(BLOB)) == BLOB.encode()


async def test_a_registry_that_everybody_may_read_is_told_nothing(
    home: Home, origin: Origin
) -> None:
    origin.put(BLOB, b"content")
    async with authenticating(home.credentials([login(home, origin, "right")])) as transport:
        assert await read(transport, origin.url(BLOB)) == b"content"
    assert origin.requests[0].header("authorization") is None


async def test_a_bearer_token_of_ours_goes_to_the_registry_itself(
    home: Home, origin: Origin
) -> None:
    server = TokenServer(origin)
    server.guard.opens_to("Bearer ours")
    program = str(home.helper("helper", {"headers": {"Authorization": ["Bearer ours"]}}))
    rule = HelperRule(f"127.0.0.1:{origin.port}", (program,))
    async with authenticating(home.credentials(helpers=[rule])) as transport:
        for _ in range(2):
            assert await read(transport, origin.url(BLOB)) == BLOB.encode()
    assert not server.asks
    assert len(origin.requests) == 3


async def test_nobody_in_particular_is_told_where_was_looked(home: Home, origin: Origin) -> None:
    TokenServer(origin)
    async with authenticating(home.credentials()) as transport:
        with pytest.raises(CredentialsError, match="no token for") as caught:
            await read(transport, origin.url(BLOB))
    assert f"CAFS_LOGIN_127_0_0_1_{origin.port}" in caught.value.hint
    assert ".netrc" in caught.value.hint


async def test_a_token_of_one_registry_is_not_shown_to_another(home: Home, origin: Origin) -> None:
    """Though the other names the same token server, service and scope."""
    server = TokenServer(origin, basic("me", "right"))
    with running_origin() as thief:
        thief.put(BLOB, b"bait")
        thief.fault("/v2/*", RequireProof(challenge=server.guard.challenge))
        credentials = home.credentials([login(home, origin, "right")])
        async with authenticating(credentials) as transport:
            await read(transport, origin.url(BLOB))
            with pytest.raises(CredentialsError):
                await read(transport, thief.url(BLOB))
        assert [each.header("authorization") for each in thief.requests] == [None]
    assert server.asks[-1].header("authorization") is None


async def test_no_password_goes_to_a_token_server_by_plain_http(home: Home) -> None:
    challenge = 'Bearer realm="http://93.184.216.35/token"'
    refusal = ChallengeError("401", url="", status=401, challenge=challenge, peer="93.184.216.34")
    script = Scripted([refusal])
    file = home.secret("right")
    own = HostLogin(host="registry.example", username="me", password_file=file, insecure=True)
    transport = Authenticating(script, RedirectPolicy(), home.credentials([own]))
    with pytest.raises(CredentialsError, match="plain http"):
        await transport.open(Request(f"http://registry.example{BLOB}"))
    assert len(script.requests) == 1


async def test_a_proxy_that_wants_credentials_is_not_shown_the_hosts(home: Home) -> None:
    refusal = ChallengeError("407", url="", status=407, challenge="Basic", peer="")
    script = Scripted([refusal])
    program = str(home.helper("helper", {"headers": {"X-Key": ["k"]}}))
    credentials = home.credentials(helpers=[HelperRule("example.com", (program,))])
    with pytest.raises(ChallengeError, match="407"):
        await Authenticating(script, None, credentials).open(Request("https://example.com/a"))
    assert len(script.requests) == 1
    assert len(home.asked("helper")) == 1


async def test_who_wants_to_know_is_told_what_was_tried(home: Home, origin: Origin) -> None:
    TokenServer(origin, basic("me", "right"))
    tried: list[Tried] = []
    credentials = home.credentials([login(home, origin, "right")])
    async with authenticating(credentials, tried) as transport:
        await read(transport, origin.url(BLOB))
    place = f'settings [credentials."127.0.0.1:{origin.port}"], {home.path}/password'
    shown = ["nothing", f"token of {origin.url('/token')} for {place}"]
    assert [each.showed for each in tried] == shown
    assert "401" in tried[0].outcome
    assert tried[1].outcome == "200"
    assert "right" not in repr(tried)


async def test_own_headers_of_a_request_are_kept_beside_those_of_a_helper(home: Home) -> None:
    script = Scripted([Head(url="", status=200)])
    program = str(home.helper("helper", {"headers": {"X-Key": ["k"]}}))
    credentials = home.credentials(helpers=[HelperRule("example.com", (program,))])
    request = Request("https://example.com/a", headers=(("Accept", "x"),))
    await Authenticating(script, None, credentials).open(request)
    assert script.requests[0].headers == (("Accept", "x"), ("X-Key", "k"))


async def test_a_token_that_a_refused_anonymous_reader_got_is_told_as_such(
    home: Home, origin: Origin
) -> None:
    origin.put(BLOB, b"")
    origin.fault("/v2/*", RequireBearer(lives=0))
    async with authenticating(home.credentials()) as transport:
        with pytest.raises(CredentialsError) as caught:
            await read(transport, origin.url(BLOB))
    assert "gives this to nobody unnamed" in caught.value.hint
