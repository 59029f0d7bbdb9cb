"""What a URL asks for, and of whom."""

import pytest

from cafs.errors import InvalidReferenceError
from cafs.transport.urls import Origin, target_of


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h", "/"),
        ("http://h/", "/"),
        ("http://h?q", "/?q"),
        ("http://h/a?", "/a?"),
        ("http://h/a#f?x", "/a"),
        ("http://h/a/b.tar?x=1&y=/z?", "/a/b.tar?x=1&y=/z?"),
        ("http://h/a b/ü", "/a%20b/%C3%BC"),
        ("http://h/a%2Fb%zz", "/a%2Fb%zz"),
        ('http://h/{a}`"<>?{a}`"<>', "/%7Ba%7D%60%22%3C%3E?{a}`%22%3C%3E"),
        ("http://h/a/./b/../c", "/a/c"),
        ("http://h/../../a", "/a"),
        ("http://h/a/..", "/"),
        ("http://h/a/b/..", "/a/"),
        ("http://h/a/.", "/a/"),
        ("http://h/a/./", "/a/"),
        ("http://h/..", "/"),
        ("http://h/a//../b", "/a/b"),
        ("http://h/%2e%2e/a", "/%2e%2e/a"),
        ("http://h/a..b/.c", "/a..b/.c"),
        ("http://h/v2/r/manifests/sha256:00", "/v2/r/manifests/sha256:00"),
    ],
)
def test_a_request_asks_for_path_and_query_as_they_may_be_sent(url: str, target: str) -> None:
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url", ["http://h/a\r\nX: y", "http://h/\t", "http://h/\x7f", "http://h/\udc80", "h/a"]
)
def test_what_could_begin_another_line_of_a_request_or_has_no_bytes_is_no_url(url: str) -> None:
    with pytest.raises(InvalidReferenceError):
        target_of(url)


@pytest.mark.parametrize(
    ("url", "authority", "usual"),
    [
        ("http://h/", "h", True),
        ("http://h:80/", "h", True),
        ("https://H:443/", "h", True),
        ("https://h:80/", "h:80", False),
        ("http://[::1]:8080/", "[::1]:8080", False),
    ],
)
def test_a_port_is_named_where_it_is_not_the_usual_one(
    url: str, authority: str, *, usual: bool
) -> None:
    origin = Origin.of(url)
    assert (origin.authority, origin.usual) == (authority, usual)
    assert str(origin) == f"{origin.scheme}://{authority}"
