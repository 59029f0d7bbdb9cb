"""Which refs may be named by path."""

import pytest

from cafs.distribution.policy import HostPolicy
from cafs.errors import PolicyError
from cafs.model.ref import parse_ref

NAMED = HostPolicy(frozenset({"example.com", "127.0.0.1:5000", "registry-1.docker.io"}))


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a.tar.gz",
        "https://EXAMPLE.com:443/a",
        "docker://127.0.0.1:5000/app",
        "docker://debian:bookworm",
        f"sha256:{'0' * 64}",
    ],
)
def test_named_hosts_and_digests_are_allowed(text: str) -> None:
    NAMED.check(parse_ref(text))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://example.com:8443/a", "example.com:8443"),
        ("https://sub.example.com/a", "sub.example.com"),
        ("https://example.com.evil.org/a", "example.com.evil.org"),
        ("http://127.0.0.1/a", "127.0.0.1"),
        ("docker://127.0.0.1:5001/app", "127.0.0.1:5001"),
        ("docker://ghcr.io/app", "ghcr.io"),
    ],
)
def test_other_hosts_are_refused_and_told_how_to_be_named(text: str, host: str) -> None:
    with pytest.raises(PolicyError) as caught:
        NAMED.check(parse_ref(text))
    assert f"host {host} is not named" in caught.value.line
    assert "--dynamic" in caught.value.line


def test_dynamic_allows_every_host_but_never_a_file() -> None:
    policy = HostPolicy(frozenset(), dynamic=True)
    policy.check(parse_ref("https://anywhere.example.org/a"))
    with pytest.raises(PolicyError, match="local files"):
        policy.check(parse_ref("file:///etc/passwd"))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://example.com/layer", True),
        ("http://127.0.0.1:5000/layer", True),
        ("https://other.example.com/layer", False),
        ("https://user:secret@example.com/layer", False),
        ("file:///etc/passwd", False),
        ("ftp://example.com/layer", False),
        ("https://[::1", False),
        ("layer", False),
    ],
)
def test_urls_that_come_with_content_obey_the_same_rule(url: str, *, allowed: bool) -> None:
    assert NAMED.allows_url(url) is allowed
