"""Whose rule a URL falls under: exactly its host, or the nearest star above it."""

import pytest

from cafs.model.login import HelperRule, rule_for

RULES = [
    HelperRule(host, (host,))
    for host in (
        "example.com",
        "example.com:8443",
        "*.example.com",
        "*.a.example.com",
        "*.example.com:99",
        "443.example:443",
        "80.example:80",
        "[::1]",
        "127.0.0.1:8000",
        "*.0.1",
        "*.1",
    )
]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.com/x", "example.com"),
        ("https://EXAMPLE.com:443/x?y", "example.com"),
        ("http://example.com/x", "example.com"),
        ("https://example.com:8443/", "example.com:8443"),
        ("https://example.com:8444/", None),
        ("http://example.com:443/", None),
        ("https://b.example.com/", "*.example.com"),
        ("https://c.b.example.com/", "*.example.com"),
        ("https://b.a.example.com/", "*.a.example.com"),
        ("https://a.example.com/", "*.example.com"),
        ("https://b.a.example.com:99/", "*.example.com:99"),
        ("https://b.example.com:98/", None),
        ("https://badexample.com/", None),
        ("https://example.com.evil/", None),
        ("https://443.example/", "443.example:443"),
        ("http://443.example/", None),
        ("http://80.example/", "80.example:80"),
        ("http://[::1]/", "[::1]"),
        ("http://[::1]:8000/", None),
        ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
        ("http://127.0.0.1/", None),
        ("file:///example.com", None),
        ("torrent:example.com", None),
    ],
)
def test_a_rule_is_for_one_host_and_port_or_for_all_below(url: str, host: str | None) -> None:
    for rules in (RULES, RULES[::-1]):
        found = rule_for(url, rules)
        assert (found and found.host) == host
