"""Redirects: followed where they may lead, and nothing is sent to where they may not."""

from collections.abc import Callable

import pytest

from cafs.errors import (
    CafsError,
    CredentialsError,
    NotFoundError,
    PolicyError,
    RefusedError,
    UnreachableError,
)
from cafs.model.span import Span
from cafs.testing.faults import Redirect, Status
from cafs.testing.origin import Origin
from cafs.transport.answers import ChallengeError, RedirectError
from cafs.transport.http import HttpTransport
from cafs.transport.interfaces import Request
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from tests.unit.transport.scripted import Scripted, answered

HOSTS = {
    "public.example": ("93.184.216.34",),
    "other.example": ("2001:4860:4860::8888",),
    "private.example": ("10.1.2.3",),
    "mixed.example": ("93.184.216.34", "127.0.0.1"),
    "localhost": ("127.0.0.1", "::1"),
}


async def known(host: str, port: int) -> tuple[str, ...]:
    if host not in HOSTS:
        raise UnreachableError(f"{host}: no address")
    return HOSTS[host]


def following(script: Scripted, proxied: Callable[[str], bool] = lambda _: False) -> Redirecting:
    return Redirecting(script, RedirectPolicy(resolve=known, proxied=proxied))


def chain(*locations: str, peer: str = "93.184.216.34") -> Scripted:
    """A transport that redirects along the locations, then answers."""
    steps: list[CafsError | None] = [RedirectError("", 302, each, peer) for each in locations]
    return Scripted([*steps, None], peer=peer)


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/",
        "http://192.168.0.1/",
        "http://[::1]/",
        "http://127.0.0.1/",
        "http://localhost/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://private.example/",
        "http://mixed.example/",
        "http://[fd00:ec2::254]/",
    ],
)
async def test_a_public_source_cannot_send_a_reader_inside(target: str) -> None:
    script = chain(target)
    with pytest.raises(PolicyError):
        await following(script).open(Request("http://public.example/a"))
    assert [each.url for each in script.requests] == ["http://public.example/a"]


@pytest.mark.parametrize(
    ("peer", "target"),
    [
        ("127.0.0.1", "http://[::1]/b"),
        ("127.0.0.1", "http://127.0.0.2:5000/b"),
        ("127.0.0.1", "http://localhost/b"),
        ("10.0.0.1", "http://192.168.0.1/b"),
        ("10.0.0.1", "http://private.example/b"),
        ("169.254.1.1", "http://169.254.1.2/b"),
    ],
)
async def test_a_source_may_send_a_reader_to_its_own_kind(peer: str, target: str) -> None:
    script = chain(target, peer=peer)
    script.peer = ""
    await following(script).open(Request("http://inside.example/a"))
    assert [each.url for each in script.requests] == ["http://inside.example/a", target]


@pytest.mark.parametrize(
    ("peer", "target"),
    [
        ("127.0.0.1", "http://169.254.169.254/"),
        ("127.0.0.1", "http://10.0.0.1/"),
        ("10.0.0.1", "http://127.0.0.1/"),
        ("10.0.0.1", "http://0.0.0.0/"),
        ("10.0.0.1", "http://169.254.169.254/"),
    ],
)
async def test_a_source_inside_cannot_send_a_reader_to_another_kind(peer: str, target: str) -> None:
    script = chain(target, peer=peer)
    with pytest.raises(PolicyError):
        await following(script).open(Request("http://inside.example/a"))
    assert len(script.requests) == 1


async def test_the_first_url_decides_not_the_one_before() -> None:
    script = chain("http://other.example/", "http://127.0.0.1/")
    with pytest.raises(PolicyError):
        await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 2


async def test_an_unknown_first_peer_is_resolved() -> None:
    script = chain("http://[::1]/", peer="")
    await following(script).open(Request("http://localhost/a"))
    assert len(script.requests) == 2


@pytest.mark.parametrize("failure", [None, "redirect", "challenge"])
async def test_a_name_that_changed_its_address_is_caught_after_connecting(
    failure: str | None,
) -> None:
    errors: dict[str | None, CafsError | None] = {
        None: None,
        "redirect": RedirectError("", 302, "http://public.example/", "127.0.0.1"),
        "challenge": ChallengeError("401", url="", status=401, challenge="", peer="127.0.0.1"),
    }
    first = RedirectError("", 302, "http://other.example/", "93.184.216.34")
    script = Scripted([first, errors[failure]], peer="127.0.0.1")
    with pytest.raises(PolicyError, match="loopback"):
        await following(script).open(Request("http://public.example/a"))
    assert all(each.closed for each in script.responses)


@pytest.mark.parametrize(
    "target",
    ["ftp://public.example/", "file:///etc/passwd", "//user:pw@public.example/", "http://a\\b/"],
)
async def test_a_redirect_to_no_plain_url_is_refused(target: str) -> None:
    script = chain(target)
    with pytest.raises(PolicyError) as caught:
        await following(script).open(Request("http://public.example/a"))
    assert "pw" not in caught.value.line
    assert len(script.requests) == 1


async def test_a_redirect_from_https_to_http_is_refused() -> None:
    script = chain("http://public.example/b")
    with pytest.raises(PolicyError, match="not secure"):
        await following(script).open(Request("https://public.example/a"))
    script = chain("https://other.example/b", "http://other.example/c")
    with pytest.raises(PolicyError, match="not secure"):
        await following(script).open(Request("http://public.example/a"))


async def test_r30_ten_redirects_are_followed_and_not_eleven() -> None:
    hops = [f"/{number}" for number in range(10)]
    script = chain(*hops)
    await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 11
    script = chain(*hops, "/11")
    with pytest.raises(RefusedError, match="10 redirects"):
        await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 11


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("http://public.example/b", True),
        ("http://public.example:80/b", True),
        ("/b", True),
        ("http://other.example/b", False),
        ("http://public.example:8080/b", False),
        ("https://public.example/b", False),
    ],
)
async def test_r30_authorization_stays_with_its_origin(target: str, kept: bool) -> None:
    script = chain(target)
    headers = (("Authorization", "Bearer t"), ("Accept", "x"))
    await following(script).open(Request("http://public.example/a", headers=headers))
    assert script.requests[-1].headers == (headers if kept else (("Accept", "x"),))


async def test_authorization_does_not_come_back_with_the_host() -> None:
    script = chain("http://other.example/", "http://public.example/")
    headers = (("Authorization", "Bearer t"),)
    await following(script).open(Request("http://public.example/a", headers=headers))
    assert script.requests[-1].headers == ()


async def test_a_redirect_to_nowhere_is_refused() -> None:
    with pytest.raises(RefusedError, match="nowhere"):
        await following(chain("")).open(Request("http://public.example/a"))


@pytest.mark.parametrize("location", ["http://[::1/", "/a\x01b", "/a\u2028b"])
async def test_a_redirect_to_an_improper_url_is_refused(location: str) -> None:
    script = chain(location)
    with pytest.raises(RefusedError, match="improper"):
        await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 1


async def test_the_span_goes_along_and_the_fragment_does_not() -> None:
    script = chain("b?c=d#e")
    await following(script).open(Request("http://public.example/x/a", Span(1, 2)))
    assert script.requests[-1].url == "http://public.example/x/b?c=d"
    assert script.requests[-1].span == Span(1, 2)


async def test_other_failures_pass_through() -> None:
    challenge = ChallengeError("401", url="", status=401, challenge="", peer="")
    for error, family in ((NotFoundError("x"), NotFoundError), (challenge, CredentialsError)):
        script = Scripted([RedirectError("", 302, "/b", "93.184.216.34"), error])
        with pytest.raises(family):
            await following(script).open(Request("http://public.example/a"))


async def test_behind_a_proxy_only_spelled_addresses_are_checked() -> None:
    script = chain("http://unknown.example/b", peer="")
    await following(script, lambda _: True).open(Request("http://public.example/a"))
    assert len(script.requests) == 2
    for target in ("http://127.0.0.1/", "http://localhost/", "http://a.localhost./"):
        with pytest.raises(PolicyError):
            await following(chain(target, peer=""), lambda _: True).open(
                Request("http://public.example/a")
            )


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_real_redirect_is_followed(origin: Origin, code: int) -> None:
    origin.put("/b", b"content")
    origin.put("/a", b"")
    origin.fault("/a", Redirect("/b", code=code))
    transport = Redirecting(HttpTransport(), RedirectPolicy())
    async with await transport.open(Request(origin.url("/a"), Span(0, 3))) as response:
        assert response.head.url == origin.url("/b")
        assert await response.receive() == b"con"
    await transport.aclose()
    assert origin.requests[1].header("range") == "bytes=0-2"
    assert origin.connections == 1


async def test_a_real_source_cannot_send_a_reader_to_the_metadata_service(origin: Origin) -> None:
    origin.put("/a", b"")
    origin.fault("/a", Redirect("http://169.254.169.254/latest"))
    transport = Redirecting(HttpTransport(), RedirectPolicy())
    with pytest.raises(PolicyError, match=r"169\.254\.169\.254"):
        await transport.open(Request(origin.url("/a")))
    await transport.aclose()


def test_an_answer_of_the_script_is_an_answer() -> None:
    assert answered(Request("http://x/"), peer="1.2.3.4").head.peer == "1.2.3.4"


def forbidding(status: int = 403, challenge: str = "") -> ChallengeError:
    return ChallengeError("no", url="", status=status, challenge=challenge, peer="93.184.216.34")


def elsewhere(number: int) -> RedirectError:
    return RedirectError("", 302, f"http://other.example/?signed={number}", "93.184.216.34")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_target_that_has_expired_is_asked_for_anew_past_the_caches(status: int) -> None:
    script = Scripted([elsewhere(1), forbidding(status), elsewhere(2), None], peer="93.184.216.34")
    request = Request("http://public.example/a", Span(5, 9), headers=(("X", "y"),))
    async with await following(script).open(request) as response:
        assert response.head.url == "http://other.example/?signed=2"
    first, _, second, _ = script.requests
    assert first == request
    assert (second.url, second.span) == (request.url, request.span)
    assert second.headers == (("X", "y"), ("Cache-Control", "no-cache"))


@pytest.mark.parametrize("code", [400, 401, 403])
async def test_a_signed_url_that_a_cache_kept_too_long_is_asked_for_anew(
    origin: Origin, code: int
) -> None:
    origin.put("/a", b"")
    origin.put("/old", b"")
    origin.put("/new", b"content")
    origin.fault("/a", Redirect("/old", times=1), Redirect("/new", skip=1))
    origin.fault("/old", Status(code=code))
    transport = Redirecting(HttpTransport(), RedirectPolicy())
    async with await transport.open(Request(origin.url("/a"), Span(3, 7))) as response:
        assert await response.receive() == b"tent"
    await transport.aclose()
    assert [each.path for each in origin.requests] == ["/a", "/old", "/a", "/new"]
    told = [each.header("cache-control") for each in origin.requests]
    assert told == [None, None, "no-cache", "no-cache"]


async def test_a_target_is_asked_for_anew_once() -> None:
    script = Scripted([elsewhere(1), forbidding(), elsewhere(2), forbidding()])
    with pytest.raises(CredentialsError):
        await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 4


async def test_a_target_that_says_what_proof_it_wants_is_not_asked_for_anew() -> None:
    script = Scripted([elsewhere(1), forbidding(401, 'Bearer realm="http://other.example/"')])
    with pytest.raises(ChallengeError):
        await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 2


async def test_a_source_that_makes_nothing_of_a_request_is_not_asked_again(origin: Origin) -> None:
    origin.put("/a", b"")
    origin.fault("/a", Status(code=400))
    transport = Redirecting(HttpTransport(), RedirectPolicy())
    with pytest.raises(RefusedError, match="400"):
        await transport.open(Request(origin.url("/a")))
    await transport.aclose()
    assert len(origin.requests) == 1


async def test_a_source_that_forbids_is_not_asked_again() -> None:
    script = Scripted([forbidding()])
    with pytest.raises(ChallengeError):
        await following(script).open(Request("http://public.example/a"))
    assert len(script.requests) == 1
