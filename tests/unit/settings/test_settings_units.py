"""Sizes, durations and words as people write them."""

import pytest

from cafs.model.spec import Platform
from cafs.settings import units
from cafs.settings.units import Budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000", 1000),
        ("7B", 7),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("1kb", 1000),
        ("500MB", 500_000_000),
        ("20GiB", 20 * 1024**3),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("2tib", 2 * 1024**4),
        ("0.1GB", 100_000_000),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert units.size(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "GiB", "-1", "20G", "20 parsecs", "1e9", "1_000", "1,5GiB", "0.5B", "0.3KiB", "\u0661"],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"no size|no whole number"):
        units.size(text)


def test_a_budget_may_be_unlimited_on_purpose() -> None:
    assert units.budget("unlimited") == Budget(None)
    assert units.budget("1KiB") == Budget(1024)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60.0),
        ("5m", 300.0),
        ("250ms", 0.25),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("30d", 2592000.0),
        ("1w1d", 691200.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "60", "60 s", "s", "-1s", "0s", "0m0s", "1y", "1s!", "inf"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"no duration|nothing succeeds in no time"):
        units.duration_s(text)


def test_switches() -> None:
    assert all(map(units.switch, ["1", "true", "YES", "on"]))
    assert not any(map(units.switch, ["0", "False", "no", "off"]))
    with pytest.raises(ValueError, match="neither true nor false"):
        units.switch("maybe")


def test_platforms() -> None:
    assert units.platform("linux/amd64") == Platform("linux", "amd64")
    assert units.platform("linux/arm/v7") == Platform("linux", "arm", "v7")
    for text in ("linux", "linux/", "/amd64", "linux/arm/v7/x", "Linux/amd64", "linux/amd 64", ""):
        with pytest.raises(ValueError, match="no platform"):
            units.platform(text)


def test_inner_paths() -> None:
    assert units.inner_path("/usr//./lib/") == "usr/lib"
    assert units.inner_path("/") == units.inner_path("") == units.inner_path(".") == ""
    assert units.inner_path("..a/b..") == "..a/b.."
    with pytest.raises(ValueError, match=r"'\.\.'"):
        units.inner_path("a/../b")
