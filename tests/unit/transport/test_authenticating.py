"""Anonymous tokens: got where a registry says, kept, renewed once, never shown."""

import json
import logging

import pytest
import trio

from cafs.errors import CredentialsError, PolicyError, RefusedError
from cafs.model.span import Span
from cafs.testing.answers import Answer, Ask, text_answer
from cafs.testing.faults import Redirect, RequireBearer, Status
from cafs.testing.origin import Origin
from cafs.transport.answers import ChallengeError
from cafs.transport.authenticating import Authenticating
from cafs.transport.http import HttpTransport
from cafs.transport.interfaces import Head, Request
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from tests.unit.transport.scripted import Scripted

BLOB = "/v2/library/app/blobs/sha256:0"
MANIFEST = "/v2/library/app/manifests/latest"
OTHER = "/v2/library/other/manifests/latest"


def bearer() -> Authenticating:
    return Authenticating(Redirecting(HttpTransport(), RedirectPolicy()))


async def fetched(transport: Authenticating, url: str) -> bytes:
    async with await transport.open(Request(url)) as response:
        return await response.receive()


def served(origin: Origin) -> None:
    for path in (BLOB, MANIFEST, OTHER):
        origin.put(path, path.encode())


async def test_a_token_is_got_and_kept(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer(scope="repository:library/app:pull"))
    transport = bearer()
    assert await fetched(transport, origin.url(BLOB)) == BLOB.encode()
    assert await fetched(transport, origin.url(MANIFEST)) == MANIFEST.encode()
    assert await fetched(transport, origin.url(BLOB)) == BLOB.encode()
    await transport.aclose()
    assert [each.path for each in origin.requests] == [BLOB, "/token", BLOB, MANIFEST, BLOB]
    (asked,) = origin.requests_for("/token")
    assert asked.query == "service=cafs-test&scope=repository%3Alibrary%2Fapp%3Apull"
    assert asked.header("authorization") is None


async def test_a_token_serves_other_repositories_that_ask_for_the_same(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    transport = bearer()
    await fetched(transport, origin.url(BLOB))
    await fetched(transport, origin.url(OTHER))
    await transport.aclose()
    assert len(origin.requests_for("/token")) == 1


async def test_many_readers_get_one_token(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    transport = bearer()
    got: list[bytes] = []

    async def read() -> None:
        got.append(await fetched(transport, origin.url(BLOB)))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(read)
    await transport.aclose()
    assert got == [BLOB.encode()] * 20
    assert len(origin.requests_for("/token")) == 1


async def test_a_refused_token_is_renewed_once(origin: Origin) -> None:
    served(origin)
    guard = RequireBearer()
    origin.fault("/v2/*", guard)
    transport = bearer()
    await fetched(transport, origin.url(BLOB))
    guard.expire()
    assert await fetched(transport, origin.url(BLOB)) == BLOB.encode()
    assert len(origin.requests_for("/token")) == 2
    await transport.aclose()


async def test_a_token_refused_by_403_is_renewed_once(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    transport = bearer()
    await fetched(transport, origin.url(BLOB))
    origin.fault(BLOB, Status(code=403, times=1))
    assert await fetched(transport, origin.url(BLOB)) == BLOB.encode()
    assert len(origin.requests_for("/token")) == 2
    await transport.aclose()


async def test_a_fresh_token_that_is_refused_is_the_end(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer(lives=0))
    transport = bearer()
    with pytest.raises(CredentialsError) as caught:
        await fetched(transport, origin.url(BLOB))
    assert "127.0.0.1" in caught.value.hint
    assert len(origin.requests_for("/token")) == 1
    assert len(origin.requests_for(BLOB)) == 2
    await transport.aclose()


async def test_an_expired_token_is_not_shown_again(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer(expires_in=0))
    transport = bearer()
    await fetched(transport, origin.url(BLOB))
    await fetched(transport, origin.url(BLOB))
    assert [each.path for each in origin.requests] == [BLOB, "/token", BLOB, "/token", BLOB]
    await transport.aclose()


async def test_tokens_are_in_no_log_repr_or_error(
    origin: Origin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    origin.serve("/token", lambda ask: text_answer(200, json.dumps({"token": "hush-hush"})))
    transport = bearer()
    with pytest.raises(CredentialsError) as caught:
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()
    assert any("hush-hush" in (each.header("authorization") or "") for each in origin.requests)
    shown = [caplog.text, caught.value.line, repr(caught.value), repr(vars(transport))]
    assert not any("hush-hush" in each for each in shown)
    request = Request("http://a/", headers=(("Authorization", "Bearer hush-hush"),))
    assert "hush-hush" not in repr(request)


async def test_a_basic_challenge_names_the_host_that_wants_credentials(origin: Origin) -> None:
    served(origin)
    origin.fault(BLOB, Status(code=401, headers=(("WWW-Authenticate", 'Basic realm="x"'),)))
    transport = bearer()
    with pytest.raises(CredentialsError) as caught:
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()
    assert caught.value.hint == "127.0.0.1 wants credentials (basic)"
    assert len(origin.requests) == 1


@pytest.mark.parametrize("code", [401, 403])
async def test_a_refusal_without_a_challenge_is_the_end(origin: Origin, code: int) -> None:
    served(origin)
    origin.fault(BLOB, Status(code=code))
    transport = bearer()
    with pytest.raises(CredentialsError, match=str(code)) as caught:
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()
    assert caught.value.hint == "127.0.0.1 wants credentials"
    assert len(origin.requests) == 1


async def test_own_credentials_are_not_touched(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    transport = bearer()
    request = Request(origin.url(BLOB), headers=(("authorization", "Basic eA=="),))
    with pytest.raises(ChallengeError):
        await transport.open(request)
    await transport.aclose()
    assert len(origin.requests_for("/token")) == 0


async def test_a_token_stays_behind_at_a_redirect(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    elsewhere = origin.put("/elsewhere", b"content").replace("127.0.0.1", "localhost")
    origin.fault(BLOB, Redirect(elsewhere, skip=1))
    transport = bearer()
    assert await fetched(transport, origin.url(BLOB)) == b"content"
    await transport.aclose()
    (request,) = origin.requests_for("/elsewhere")
    assert request.header("authorization") is None


async def test_a_refusal_after_a_redirect_asks_for_no_token(origin: Origin) -> None:
    served(origin)
    origin.put("/elsewhere", b"content")
    origin.fault("/elsewhere", RequireBearer())
    there = origin.url("/elsewhere").replace("127.0.0.1", "localhost")
    origin.fault(BLOB, Redirect(there))
    transport = bearer()
    with pytest.raises(CredentialsError):
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()
    assert len(origin.requests_for("/token")) == 0


@pytest.mark.parametrize(
    "realm",
    [
        "http://169.254.169.254/token",
        "http://10.0.0.1/token",
        "file:///etc/passwd",
        "http://user:secret@127.0.0.1/token",
    ],
)
async def test_a_token_server_is_where_a_redirect_may_lead(origin: Origin, realm: str) -> None:
    served(origin)
    challenge = ("WWW-Authenticate", f'Bearer realm="{realm}"')
    origin.fault(BLOB, Status(code=401, headers=(challenge,)))
    transport = bearer()
    with pytest.raises(PolicyError) as caught:
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()
    assert "secret" not in caught.value.line
    assert len(origin.requests) == 1


def refusing(realm: str, peer: str = "93.184.216.34") -> ChallengeError:
    challenge = f'Bearer realm="{realm}"'
    return ChallengeError("401", url="", status=401, challenge=challenge, peer=peer)


async def test_the_token_server_of_a_secure_registry_is_secure() -> None:
    script = Scripted([refusing("http://93.184.216.35/token")])
    with pytest.raises(PolicyError, match="not secure"):
        await Authenticating(script).open(Request("https://registry.example/v2/a/blobs/b"))
    assert len(script.requests) == 1


async def test_a_token_server_that_moved_inside_is_not_believed() -> None:
    head = Head(url="", status=200, span=Span(0, 0), peer="127.0.0.1")
    script = Scripted([refusing("https://93.184.216.35/token"), head], body=b'{"token":"t"}')
    with pytest.raises(PolicyError, match="loopback"):
        await Authenticating(script).open(Request("https://registry.example/v2/a/blobs/b"))
    assert len(script.requests) == 2
    assert all(each.closed for each in script.responses)


async def test_a_token_server_that_wants_credentials_names_the_registry(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer(scope="repository:library/app:pull"))
    origin.fault("/token", Status(code=401))
    transport = bearer()
    with pytest.raises(CredentialsError, match="repository:library/app:pull"):
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        '{"token": 5}',
        '{"token": ""}',
        '{"token": "a b"}',
        '{"token": "a\\r\\nb"}',
        '{"token": "a", "more": ' + "[" * 20_000,
    ],
)
async def test_a_token_server_that_gives_no_token_is_refused(origin: Origin, body: str) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    origin.serve("/token", lambda ask: text_answer(200, body))
    transport = bearer()
    with pytest.raises(RefusedError, match="no token"):
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()


async def test_a_missing_token_server_is_not_a_missing_image(origin: Origin) -> None:
    served(origin)
    origin.fault("/v2/*", RequireBearer())
    origin.fault("/token", Status(code=404))
    transport = bearer()
    with pytest.raises(RefusedError, match="no token server"):
        await fetched(transport, origin.url(BLOB))
    await transport.aclose()


async def test_access_token_is_as_good_as_token(origin: Origin) -> None:
    served(origin)
    guard = RequireBearer()
    origin.fault("/v2/*", guard)

    def renamed(ask: Ask) -> Answer:
        right = guard.issue(ask).body
        document = right.read(0, right.size).decode()
        return text_answer(200, document.replace('"token"', '"access_token"'))

    origin.serve("/token", renamed)
    transport = bearer()
    assert await fetched(transport, origin.url(BLOB)) == BLOB.encode()
    await transport.aclose()
