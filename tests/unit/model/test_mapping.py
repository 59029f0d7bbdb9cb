"""Where content is fetched from instead: the longest prefix decides, and the rest is kept."""

import pytest

from cafs.model.mapping import MapRule, mapped

RULES = (
    MapRule("https://a.example/", ("https://m.example/a/",)),
    MapRule("https://a.example/gcc/", ("file:///m/gcc/", "https://a.example/gcc/")),
    MapRule("https://b.example/x", ("s3://bucket/y", "torrent:x")),
)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://a.example/x?q=1", ("https://m.example/a/x?q=1",)),
        ("https://a.example/", ("https://m.example/a/",)),
        ("https://a.example/gcc/13", ("file:///m/gcc/13", "https://a.example/gcc/13")),
        ("https://a.example/gcc/1?2", ("file:///m/gcc/1%3F2", "https://a.example/gcc/1?2")),
        ("https://a.example/gcc", ("https://m.example/a/gcc",)),
        ("https://b.example/xyz", ("s3://bucket/yyz", "torrent:xyz")),
        ("https://b.example/y", ("https://b.example/y",)),
        ("https://a.example.evil/", ("https://a.example.evil/",)),
        ("http://a.example/x", ("http://a.example/x",)),
        ("https://m.example/a/x", ("https://m.example/a/x",)),
    ],
)
def test_y23_the_longest_prefix_decides_and_what_is_not_mapped_is_asked_itself(
    url: str, asked: tuple[str, ...]
) -> None:
    assert mapped(url, RULES) == mapped(url, reversed(RULES)) == asked


def test_a_target_is_not_mapped_again() -> None:
    rules = (MapRule("https://a/", ("https://b/",)), MapRule("https://b/", ("https://a/",)))
    assert mapped("https://a/x", rules) == ("https://b/x",)
