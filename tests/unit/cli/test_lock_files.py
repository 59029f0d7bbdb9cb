"""The files of a lock: what is written beside it, what goes, and who else writes there."""

import errno
import os
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from cafs.cli.locks.lock_files import Changes, at_hand, replace_entries, wrong_index
from cafs.errors import SettingsError, StorageError
from cafs.model.digest import digest_of
from cafs.settings.lockfile import (
    LARGE,
    LockedPart,
    LockEntry,
    index_directory,
    index_file,
    read_lock,
)

SMALL, BIG = b"small", b"b" * (LARGE + 1)


def entry(name: str, index: bytes | None = None, platform: str = "") -> LockEntry:
    part = LockedPart(
        digest=digest_of(name.encode()),
        size=1,
        media_type="x/y",
        index=None if index is None else digest_of(index),
        index_size=None if index is None else len(index),
    )
    return LockEntry(
        name=name,
        platform=platform,
        ref="cimd:x",
        digest=part.digest,
        size=1,
        media_type="x/y",
        parts=(part,),
    )


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "cafs.lock"


def written(folder: Path, content: bytes) -> Path:
    path = folder / "made"
    path.write_bytes(content)
    return path


def names(lock: Path) -> list[tuple[str, str]]:
    found = read_lock(lock)
    return [] if found is None else [(each.name, each.platform) for each in found.entries]


def keep(lock: Path, name: str, content: bytes, large: Path | None = None) -> None:
    """Lock a ref with an index."""
    indexes = {digest_of(content): written(lock.parent, content)}
    made = [entry(name, content)]
    replace_entries(
        lock, Changes(made=made, names=lambda: {"a", "b"}, indexes=indexes, large=large)
    )


def test_a_small_index_lies_beside_the_lock_and_a_large_one_where_it_is_wanted(
    lock: Path, tmp_path: Path
) -> None:
    big = digest_of(BIG)
    one, other = entry("a", SMALL), entry("b", BIG)
    assert not at_hand(lock, one, None)
    keep(lock, "a", SMALL)
    assert index_file(lock, digest_of(SMALL)).read_bytes() == SMALL
    assert at_hand(lock, one, None)
    keep(lock, "b", BIG)
    assert not index_file(lock, big).exists()
    assert at_hand(lock, other, None)  # nobody asked for it
    assert not at_hand(lock, other, tmp_path / "large")
    large = tmp_path / "large" / f"{big.hex}.idx"
    keep(lock, "b", BIG, tmp_path / "large")
    assert large.read_bytes() == BIG
    assert at_hand(lock, other, tmp_path / "large")
    assert {each.name for each in (tmp_path / "large").iterdir()} == {large.name}


def test_indexes_that_nothing_names_go_and_what_is_not_ours_stays(lock: Path) -> None:
    keep(lock, "b", b"other")
    folder = index_directory(lock)
    (folder / "README").write_text("ours")
    keep(lock, "a", SMALL)
    assert len(list(folder.glob("*.idx"))) == 2
    replace_entries(lock, Changes(names=lambda: {"a"}))
    found = {each.name for each in folder.iterdir()}
    assert found == {f"{digest_of(SMALL).hex}.idx", ".gitattributes", "README"}
    replace_entries(lock, Changes(made=[entry("a")], names=lambda: {"a"}, whole={"a"}))
    assert {each.name for each in folder.iterdir()} == {".gitattributes", "README"}


def test_two_who_lock_at_once_lose_no_index_of_each_other(lock: Path) -> None:
    """One has found out everything and writes, after the other has found the lock without that."""
    keep(lock, "a", SMALL)
    keep(lock, "b", b"other")
    one = Changes(
        made=[entry("a", b"newer")],
        kept={("b", "")},
        names=lambda: {"a", "b"},
        whole={"a", "b"},
        indexes={digest_of(b"newer"): written(lock.parent, b"newer")},
    )
    other = Changes(kept={("a", ""), ("b", "")}, names=lambda: {"a", "b"}, whole={"a", "b"})
    replace_entries(lock, one)
    replace_entries(lock, other)
    found = read_lock(lock)
    assert found is not None
    assert set(found.indexes()) == {digest_of(b"newer"), digest_of(b"other")}
    for digest, size in found.indexes().items():
        assert wrong_index(lock, digest, size) == ""


@pytest.mark.parametrize("kind", ["pipe", "device", "long", "outside", "gone"])
def test_what_is_no_index_file_is_neither_waited_for_nor_read(
    lock: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    place = index_file(lock, digest_of(SMALL))
    place.parent.mkdir()
    outside = tmp_path_factory.mktemp("outside") / "index"
    outside.write_bytes(SMALL)
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "long":
        with place.open("wb") as file:
            file.truncate(1 << 40)
    elif kind != "gone":
        place.symlink_to("/dev/zero" if kind == "device" else outside)
    assert str(place) in wrong_index(lock, digest_of(SMALL), len(SMALL))
    assert not at_hand(lock, entry("a", SMALL), None)


def test_what_another_has_locked_meanwhile_stays(lock: Path) -> None:
    replace_entries(
        lock, Changes(made=[entry("a"), entry("b")], names=lambda: {"a", "b"}, whole={"a", "b"})
    )
    replace_entries(lock, Changes(made=[entry("c")], names=lambda: {"a", "b", "c"}, whole={"c"}))
    assert names(lock) == [("a", ""), ("b", ""), ("c", "")]
    gone = replace_entries(lock, Changes(made=[entry("b")], names=lambda: {"b", "c"}, whole={"b"}))
    assert [each.name for each in gone] == ["a"]
    assert names(lock) == [("b", ""), ("c", "")]


def test_what_is_added_while_others_find_out_is_no_ref_that_has_gone(lock: Path) -> None:
    """The refs of the project are those that it has when the lock is written."""
    refs = {"a"}
    changes = Changes(made=[entry("a")], names=lambda: refs, whole={"a"})
    refs.add("b")
    replace_entries(lock, Changes(made=[entry("b")], names=lambda: refs, whole={"b"}))
    assert replace_entries(lock, changes) == []
    assert names(lock) == [("a", ""), ("b", "")]


def test_what_is_removed_while_others_find_out_does_not_come_back(lock: Path) -> None:
    """The refs of the project are those that it has when the lock is written."""
    keep(lock, "a", SMALL)
    refs = {"a", "b", "c"}
    newer = entry("a", b"newer")
    changes = Changes(
        made=[newer, entry("b"), entry("c")],
        names=lambda: refs,
        whole={"a", "b", "c"},
        indexes={digest_of(b"newer"): written(lock.parent, b"newer")},
    )
    refs -= {"a", "b"}
    assert replace_entries(lock, changes) == [newer, entry("b")]
    assert names(lock) == [("c", "")]
    assert not index_directory(lock).exists()


def test_platforms_that_are_no_longer_wished_for_go_unless_one_failed(lock: Path) -> None:
    both = [entry("a", platform=each) for each in ("linux/amd64", "linux/arm64")]
    replace_entries(lock, Changes(made=both, names=lambda: {"a"}, whole={"a"}))
    replace_entries(lock, Changes(made=both[:1], names=lambda: {"a"}, whole=()))
    assert len(names(lock)) == 2
    gone = replace_entries(lock, Changes(made=[entry("a")], names=lambda: {"a"}, whole={"a"}))
    assert [each.platform for each in gone] == ["linux/amd64", "linux/arm64"]
    assert names(lock) == [("a", "")]


def test_a_lock_that_says_the_same_is_not_written_again(lock: Path) -> None:
    replace_entries(lock, Changes(made=[entry("a")], names=lambda: {"a"}, whole={"a"}))
    before = lock.stat()
    replace_entries(lock, Changes(made=[entry("a")], names=lambda: {"a"}, whole={"a"}))
    after = lock.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_where_nothing_is_locked_no_file_is_made(lock: Path) -> None:
    assert replace_entries(lock, Changes(names=lambda: ())) == []
    assert not lock.exists()


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_what_was(
    lock: Path, tmp_path: Path
) -> None:
    replace_entries(lock, Changes(made=[entry("a")], names=lambda: {"a"}, whole={"a"}))
    before = lock.read_bytes()
    index_directory(lock).write_text("a file, where a directory should be")
    with pytest.raises(StorageError):
        keep(lock, "a", SMALL)
    assert lock.read_bytes() == before
    changed = replace(entry("a"), size=2)
    with pytest.raises(StorageError):
        replace_entries(
            tmp_path / "gone" / "cafs.lock", Changes(made=[changed], names=lambda: {"a"}, whole=())
        )


@pytest.mark.parametrize("name", ["cafs.lock", "cafs.lock.d"])
def test_a_symlink_out_of_the_project_is_not_followed(tmp_path: Path, name: str) -> None:
    """A clone may have one; who locks in it writes nowhere else, and removes nothing there."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    outside.mkdir()
    (outside / "other.idx").write_bytes(b"somebody's")
    (project / name).symlink_to(outside / "new" if name == "cafs.lock" else outside)
    with pytest.raises(SettingsError, match="leads out of the project"):
        replace_entries(
            project / "cafs.lock", Changes(made=[entry("a")], names=lambda: {"a"}, whole={"a"})
        )
    if name == "cafs.lock.d":
        with pytest.raises(SettingsError, match="leads out of the project"):
            keep(project / "cafs.lock", "a", SMALL)
    assert [each.name for each in outside.iterdir()] == ["other.idx"]


def test_what_one_who_was_killed_while_writing_has_left_is_removed(lock: Path) -> None:
    """And nothing of anybody else's, however much it looks like that."""
    keep(lock, "a", SMALL)
    folder = index_directory(lock)
    drafts = [
        lock.with_name(".cafs.lock.cafs-ab12cd_9"),
        folder / f".{'ab' * 32}.idx.cafs-x1x1x1x1",
    ]
    others = [lock.with_name(".cafs.lock.original"), lock.with_name("cafs.lock.cafs-ab12cd_9")]
    others += [lock.with_name(".other.cafs-ab12cd_9"), folder / "cafs-x.idx.mine"]
    others += [lock.with_name(".cafs.lock.cafs-notes"), lock.with_name(".cafs.lock.cafs-My-Notes")]
    others.append(folder / ".gitattributes.cafs-notes")
    for each in (*drafts, *others):
        each.write_bytes(b"")
    folders = [lock.with_name(".cafs.lock.cafs-x"), lock.with_name(".cafs.lock.cafs-ab12cd_0")]
    folders.append(folder / ".a.idx.cafs-ab12cd_9")
    for each in folders:
        each.mkdir()
    link = lock.with_name(".cafs.lock.cafs-ab12cd_1")
    link.symlink_to("nowhere")
    keep(lock, "b", SMALL)
    assert [each.exists() for each in drafts] == [False, False]
    assert all(each.exists() for each in (*others, *folders))
    assert link.is_symlink()


@pytest.mark.parametrize("name", [".cafs.lock.cafs-ab12cd_9", "cafs.lock.d/x.idx"])
def test_what_cannot_be_removed_is_named(
    lock: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    keep(lock, "a", SMALL)
    path = lock.parent / name
    path.write_bytes(b"")
    unlink = Path.unlink

    def refused(self: Path, missing_ok: bool = False) -> None:
        if self == path:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(StorageError, match=re.escape(f"{path}: Operation not permitted")):
        keep(lock, "b", SMALL)
