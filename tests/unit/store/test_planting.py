"""Planting members that a person would write, and those that only an attacker would."""

from pathlib import Path

import pytest

from cafs.errors import MalformedError
from cafs.model.limits import Limits
from cafs.model.member import Kind, Member
from tests.planted import Planted, tree_writer


def directory(path: bytes) -> Member:
    return Member(path=path, kind=Kind.DIRECTORY, mode=0o755)


def file(path: bytes) -> Member:
    return Member(path=path, kind=Kind.FILE, mode=0o644)


def symlink(path: bytes, target: bytes | None) -> Member:
    return Member(path=path, kind=Kind.SYMLINK, mode=0o777, target=target)


def zipped_symlink(path: bytes) -> Member:
    """One whose text is its content."""
    return Member(path=path, kind=Kind.SYMLINK, mode=0o777, size=9)


def hard_link(path: bytes, target: bytes) -> Member:
    return Member(path=path, kind=Kind.HARD_LINK, mode=0o644, target=target)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([file(b"../etc/passwd")], "leaves the archive"),
        ([file(b"a/../../b")], "leaves the archive"),
        ([file(b"a/..")], "leaves the archive"),
        ([file(b"")], "root"),
        ([file(b"/")], "root"),
        ([symlink(b"./", b"/")], "root"),
        ([file(b"a\0b")], "NUL"),
        ([file(b"d/" + b"n" * 256)], "name of 256 bytes"),
        ([file(b"d/" * 300 + b"f")], "301 components"),
        ([file(b"d/" * 3000)], "bytes"),
        ([file(b"f"), file(b"f/g")], "below 'f', which is no directory"),
        ([symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/f")], "loop of symlinks"),
        ([symlink(b"a", b"a/a"), file(b"a/f")], "loop of symlinks"),
        ([zipped_symlink(b"a"), file(b"a/f")], "below 'a'"),
        ([symlink(b"a", b"")], "symlink without a text"),
        ([symlink(b"a", None)], "symlink without a text"),
        ([symlink(b"a", b"n" * 300), file(b"a/f")], "impossible text"),
        ([hard_link(b"l", b"missing")], "'missing', which is not there"),
        ([hard_link(b"l", b"l")], "'l', which is not there"),
        ([hard_link(b"l", b"a/b")], "not there"),
        ([hard_link(b"l", b"")], "hard link to nothing"),
        ([hard_link(b"l", b"../../etc/passwd")], "leaves the archive"),
        ([directory(b"d"), hard_link(b"l", b"d")], "hard link to a directory"),
    ],
)
def test_members_that_would_do_harm_are_refused_by_name(
    members: list[Member], message: str, tmp_path: Path
) -> None:
    with (
        tree_writer(tmp_path) as writer,
        pytest.raises(MalformedError, match=message) as caught,
    ):
        Planted(writer).plant(*members)
    assert caught.value.what.startswith("test: member ")


@pytest.mark.parametrize("limits", [Limits(depth=3), Limits(path_bytes=6)])
def test_a_path_stays_within_its_limits_though_each_directory_on_it_is_known(
    limits: Limits, tmp_path: Path
) -> None:
    with tree_writer(tmp_path) as writer:
        planter = Planted(writer, limits=limits).planter
        for path in (b"d", b"d/d", b"d/d/d", b"d/d/e"):
            planter.plant(directory(path))
        with pytest.raises(MalformedError, match="a path of 7 bytes, 4 components"):
            planter.plant(directory(b"d/d/d/d"))


def test_nothing_leaves_the_root(tmp_path: Path) -> None:
    with tree_writer(tmp_path) as writer:
        nodes = Planted(writer).plant(
            file(b"/etc/passwd"),
            symlink(b"out", b"../../.."),
            symlink(b"abs", b"/etc"),
            file(b"out/here"),
            file(b"abs/there"),
            hard_link(b"hard", b"/abs/passwd"),
        )
    assert set(nodes) == {
        b"",
        b"etc",
        b"etc/passwd",
        b"etc/there",
        b"out",
        b"abs",
        b"here",
        b"hard",
    }
    assert nodes[b"hard"].also == b"etc/passwd"


def test_a_path_that_was_learned_is_forgotten_when_it_leads_elsewhere(tmp_path: Path) -> None:
    with tree_writer(tmp_path) as writer:
        nodes = Planted(writer).plant(
            directory(b"a"),
            directory(b"b"),
            symlink(b"s", b"a"),
            file(b"s/1"),
            symlink(b"s", b"b"),
            file(b"s/2"),
            directory(b"s"),
            file(b"s/3"),
            directory(b"a/./."),
            file(b"a/./4"),
        )
    assert {b"a/1", b"b/2", b"s/3", b"a/4"} < set(nodes)
    assert nodes[b"s"].kind is Kind.DIRECTORY


def test_a_symlink_over_a_directory_takes_what_is_below_away_and_leads_elsewhere(
    tmp_path: Path,
) -> None:
    with tree_writer(tmp_path) as writer:
        nodes = Planted(writer).plant(
            directory(b"d"),
            file(b"e/x"),
            symlink(b"e", b"d"),
            file(b"e/y"),
            symlink(b"l", b"new/m"),
            file(b"l/z"),
        )
    assert set(nodes) == {b"", b"d", b"d/y", b"e", b"l", b"new", b"new/m", b"new/m/z"}
    assert nodes[b"e"].kind is Kind.SYMLINK


def test_a_file_over_a_directory_takes_what_is_below_away(tmp_path: Path) -> None:
    with tree_writer(tmp_path) as writer:
        below = [file(b"d/e/%d" % number) for number in range(2500)]
        nodes = Planted(writer).plant(
            file(b"kept"), hard_link(b"d/e/hard", b"kept"), *below, file(b"d"), directory(b"x/d")
        )
    assert set(nodes) == {b"", b"kept", b"d", b"x", b"x/d"}
    assert nodes[b"d"].kind is Kind.FILE
    assert nodes[b"kept"].links == 1


def test_a_replaced_file_lives_on_under_its_other_names(tmp_path: Path) -> None:
    with tree_writer(tmp_path) as writer:
        nodes = Planted(writer).plant(
            file(b"a"), hard_link(b"b", b"a"), hard_link(b"b", b"b"), file(b"a"), file(b"c")
        )
    assert (nodes[b"a"].links, nodes[b"b"].links) == (1, 1)
    assert nodes[b"b"].also == b"b"


def test_entries_are_limited_even_when_members_imply_them(tmp_path: Path) -> None:
    with tree_writer(tmp_path) as writer, pytest.raises(MalformedError, match="10 entries"):
        Planted(writer, limits=Limits(members=10)).plant(
            *[file(b"%d/x/y/z" % number) for number in range(9)]
        )
