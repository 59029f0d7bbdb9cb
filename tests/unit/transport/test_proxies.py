import pytest

from cafs.errors import SettingsError
from cafs.transport.proxies import Proxies


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://a/", ""),
        ({"HTTP_PROXY": "http://p:1"}, "http://a/", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://a/", ""),
        ({"HTTPS_PROXY": "http://p:1"}, "https://a/", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://a/", "http://p:1"),
        ({"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:1"}, "https://a/", "http://q:1"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:1"}, "http://a/", "http://q:1"),
        ({"HTTP_PROXY": "http://p:1", "http_proxy": ""}, "http://a/", ""),
        ({"http_proxy": "p:1"}, "http://a/", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a/", ""),
        ({"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://a/", "http://p:1"),
    ],
)
def test_the_environment_names_the_proxy(environment: dict[str, str], url: str, proxy: str) -> None:
    assert Proxies.from_environment(environment).proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("pattern", "url", "direct"),
    [
        ("*", "http://a/", True),
        ("example.com", "http://example.com/", True),
        ("example.com", "http://EXAMPLE.com:8080/", True),
        ("example.com", "http://sub.example.com/", True),
        (".example.com", "http://sub.example.com/", True),
        ("*.example.com", "http://sub.example.com/", True),
        ("example.com", "http://notexample.com/", False),
        ("example.com:80", "http://example.com/", True),
        ("example.com:80", "http://example.com:81/", False),
        ("a, example.com ,b", "http://example.com/", True),
        ("127.0.0.1", "http://127.0.0.1:5000/", True),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/", True),
        ("127.0.0.1:5001", "http://127.0.0.1:5000/", False),
        ("10.0.0.0/8", "http://10.1.2.3/", True),
        ("10.0.0.0/8", "http://11.1.2.3/", False),
        ("::1", "http://[::1]/", True),
        ("[::1]:80", "http://[::1]/", True),
        ("[::1]:81", "http://[::1]/", False),
        ("fd00::/8", "http://[fd00::5]/", True),
        (".", "http://a/", False),
        ("", "http://a/", False),
        ("0.0.1", "http://127.0.0.1/", False),
    ],
)
def test_no_proxy_names_what_is_direct(pattern: str, url: str, direct: bool) -> None:
    proxies = Proxies.from_environment({"HTTP_PROXY": "http://p:1", "NO_PROXY": pattern})
    assert (proxies.proxy_for(url) == "") is direct


@pytest.mark.parametrize("url", ["socks5://p:1", "ftp://p:1"])
def test_another_kind_of_proxy_is_a_settings_error(url: str) -> None:
    with pytest.raises(SettingsError, match="HTTPS_PROXY"):
        Proxies.from_environment({"HTTPS_PROXY": url})


@pytest.mark.parametrize(
    "url",
    ["http://", "http://u:secret@", "http://p:secret", "http://p:99999", "p a:1", "ü:1", "[p]:1"],
)
def test_a_proxy_that_can_be_none_is_a_settings_error_that_shows_no_secrets(url: str) -> None:
    with pytest.raises(SettingsError, match="HTTP_PROXY: not a proxy's URL") as caught:
        Proxies.from_environment({"HTTP_PROXY": url})
    assert "secret" not in caught.value.line


@pytest.mark.parametrize("url", ["http://[::1]:1", "HTTP://u:p%2F@p", "https://p/"])
def test_any_other_proxy_is_one(url: str) -> None:
    assert Proxies.from_environment({"HTTP_PROXY": url}).proxy_for("http://a/") == url


def test_the_credentials_of_a_proxy_are_not_shown() -> None:
    proxies = Proxies.from_environment({"HTTPS_PROXY": "http://user:secret@p:1"})
    assert "secret" not in repr(proxies)
