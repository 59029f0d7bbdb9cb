"""Platforms: spellings, and the choice from an index."""

import pytest

from cafs.distribution.platforms import choose, normalised, own_platform
from cafs.errors import NotFoundError
from cafs.model.spec import Platform


@pytest.mark.parametrize(
    ("spelled", "normal"),
    [
        (("linux", "x86_64", ""), ("linux", "amd64", "")),
        (("linux", "amd64", "v1"), ("linux", "amd64", "")),
        (("linux", "amd64", "v3"), ("linux", "amd64", "v3")),
        (("Linux", "AMD64", ""), ("linux", "amd64", "")),
        (("linux", "aarch64", ""), ("linux", "arm64", "")),
        (("linux", "arm64", "v8"), ("linux", "arm64", "")),
        (("linux", "arm64", "8"), ("linux", "arm64", "")),
        (("linux", "arm", ""), ("linux", "arm", "v7")),
        (("linux", "arm", "6"), ("linux", "arm", "v6")),
        (("linux", "armhf", ""), ("linux", "arm", "v7")),
        (("linux", "armel", ""), ("linux", "arm", "v6")),
        (("linux", "armv7l", ""), ("linux", "arm", "v7")),
        (("linux", "i686", ""), ("linux", "386", "")),
        (("macos", "arm64", ""), ("darwin", "arm64", "")),
        (("", "riscv64", ""), ("linux", "riscv64", "")),
    ],
)
def test_every_spelling_has_one_normal_form(
    spelled: tuple[str, str, str], normal: tuple[str, str, str]
) -> None:
    assert normalised(Platform(*spelled)) == Platform(*normal)
    assert normalised(normalised(Platform(*spelled))) == Platform(*normal)


def test_the_machine_itself_is_a_normal_platform() -> None:
    own = own_platform()
    assert own.os == "linux"
    assert normalised(own) == own
    assert own.architecture not in {"x86_64", "aarch64", "i686"}


AMD = Platform("linux", "amd64")
OFFERED = [
    AMD,
    Platform("linux", "arm", "v5"),
    Platform("linux", "arm", "v7"),
    Platform("linux", "arm64", "v8"),
    Platform("linux", "386"),
    Platform("unknown", "unknown"),
    Platform("windows", "amd64"),
]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Platform("linux", "amd64"), 0),
        (Platform("linux", "x86_64"), 0),
        (Platform("linux", "amd64", "v3"), 0),
        (Platform("linux", "arm"), 2),
        (Platform("linux", "arm", "v7"), 2),
        (Platform("linux", "arm", "v6"), 1),
        (Platform("linux", "arm", "v8"), 2),
        (Platform("linux", "arm64"), 3),
        (Platform("linux", "aarch64"), 3),
        (Platform("linux", "i386"), 4),
        (Platform("windows", "amd64"), 6),
    ],
)
def test_the_best_that_runs_is_chosen(wanted: Platform, number: int) -> None:
    assert choose(OFFERED, wanted, name="image") == number


def test_the_exact_variant_beats_a_lower_one_wherever_it_stands() -> None:
    offered = [Platform("linux", "amd64", "v3"), AMD, Platform("linux", "amd64", "v2")]
    assert choose(offered, Platform("linux", "amd64", "v2"), name="image") == 2
    assert choose(offered, AMD, name="image") == 1


def test_the_first_of_equals_is_chosen() -> None:
    assert choose([AMD, AMD], AMD, name="image") == 0


@pytest.mark.parametrize(
    "wanted",
    [Platform("linux", "arm", "v4"), Platform("linux", "s390x"), Platform("freebsd", "amd64")],
)
def test_what_does_not_run_is_refused_with_a_list_of_what_there_is(wanted: Platform) -> None:
    with pytest.raises(NotFoundError) as caught:
        choose(OFFERED, wanted, name="registry/image")
    assert "registry/image" in caught.value.line
    assert str(normalised(wanted)) in caught.value.line
    assert "linux/386, linux/amd64, linux/arm/v5, linux/arm/v7, linux/arm64" in caught.value.line


def test_a_lone_image_that_says_nothing_is_taken() -> None:
    assert choose([None], AMD, name="image") == 0


def test_one_of_several_that_says_nothing_is_not() -> None:
    with pytest.raises(NotFoundError):
        choose([None, Platform("linux", "s390x")], AMD, name="image")


def test_an_empty_index_is_refused() -> None:
    with pytest.raises(NotFoundError, match="no image for linux/amd64"):
        choose([], AMD, name="image")


def test_a_variant_of_any_length_is_no_level_that_this_machine_has() -> None:
    odd = [Platform("linux", "arm64", "v" + "9" * 5000), Platform("linux", "arm64", "v\u0669")]
    with pytest.raises(NotFoundError, match="no image for linux/arm64"):
        choose(odd, Platform("linux", "arm64"), name="x")


def test_an_index_of_many_platforms_with_odd_names_is_told_on_a_short_line() -> None:
    odd = [Platform("linux", f"a\x1b[2J\n{number:04}" + "x" * 5000) for number in range(500)]
    with pytest.raises(NotFoundError) as caught:
        choose(odd, Platform("linux", "amd64"), name="x")
    assert caught.value.line.isprintable()
    assert caught.value.line.endswith("480 more)")
    assert len(caught.value.line) < 6000
