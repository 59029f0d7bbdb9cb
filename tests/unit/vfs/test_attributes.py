"""How entries of archives appear."""

import pytest

from cafs.model.member import Entry, Kind
from cafs.vfs.attributes import FOREVER_S, UNDATED_NS, Appearance

MINE = Appearance(uid=1000, gid=1001)


def entry(
    kind: Kind = Kind.FILE, *, mode: int = 0o644, mtime_ns: int = 5, target: bytes | None = None
) -> Entry:
    return Entry(
        name=b"n",
        parent=0,
        kind=kind,
        mode=mode,
        uid=7,
        gid=8,
        mtime_ns=mtime_ns,
        size=10,
        target=target,
        links=3,
        device=0x801,
    )


@pytest.mark.parametrize(
    ("suid", "mode", "shown"),
    [
        (False, 0o4755, 0o755),
        (False, 0o2755, 0o755),
        (False, 0o1777, 0o1777),
        (True, 0o6755, 0o6755),
        (False, 0o100644, 0o644),
    ],
)
def test_set_id_bits_are_dropped_unless_asked_for(suid: bool, mode: int, shown: int) -> None:
    appearance = Appearance(uid=0, gid=0, suid=suid)
    assert appearance.of_entry(9, entry(mode=mode)).mode == shown


def test_the_owner_is_the_mounting_user_unless_owners_are_preserved() -> None:
    mine = MINE.of_entry(9, entry())
    theirs = Appearance(uid=1000, gid=1001, preserve_owner=True).of_entry(9, entry())
    assert (mine.uid, mine.gid) == (1000, 1001)
    assert (theirs.uid, theirs.gid) == (7, 8)


def test_what_has_no_time_is_one_second_old_on_every_machine() -> None:
    assert MINE.of_entry(9, entry(mtime_ns=0)).mtime_ns == UNDATED_NS
    assert MINE.of_entry(9, entry(mtime_ns=-3)).mtime_ns == -3
    assert MINE.directory(9).mtime_ns == UNDATED_NS
    assert MINE.file(9, 0).mtime_ns == UNDATED_NS


def test_a_symlink_is_as_long_as_its_text() -> None:
    assert MINE.of_entry(9, entry(Kind.SYMLINK, target=b"abc")).size == 3
    assert MINE.of_entry(9, entry(Kind.SYMLINK)).size == 10
    assert MINE.of_entry(9, entry(Kind.SYMLINK, mode=0)).mode == 0o777


def test_what_lies_inside_trees_is_believed_for_a_year_and_names_for_a_second() -> None:
    inside = MINE.of_entry(9, entry())
    assert (inside.entry_ttl_s, inside.attributes_ttl_s) == (FOREVER_S, FOREVER_S)
    assert MINE.directory(9).entry_ttl_s <= 1
    assert MINE.file(9, 5).attributes_ttl_s <= 1


@pytest.mark.parametrize("kind", list(Kind))
def test_device_nodes_alone_are_hidden_unless_asked_for(kind: Kind) -> None:
    device = kind in {Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE}
    assert MINE.shows(kind) is not device
    assert Appearance(uid=0, gid=0, dev=True).shows(kind)
