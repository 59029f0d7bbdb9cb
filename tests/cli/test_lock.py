"""lock: what is written down, what is left alone, what --check and --diff say."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from cafs.distribution.manifests import OCI_MANIFEST
from cafs.distribution.platforms import own_platform
from cafs.model.digest import SIZES, digest_of
from cafs.settings.lockfile import Lock, LockEntry, index_directory, read_lock
from cafs.store.store import open_store
from cafs.testing.archives import Compression, file as member, tar_bytes, zip_archive
from cafs.testing.daemons import Registry
from cafs.testing.faults import Fault, HangBeforeHead, IgnoreRange, NoLength, NoValidators, Status
from cafs.testing.images import Image, Layer, write_layout
from cafs.testing.origin import Origin
from cafs.testing.tabled import estargz
from tests.conftest import Cafs
from tests.forked import ForkedCafs, Forks

OLD = {
    "bin/cc": (0o755, b"old compiler" * 1000),
    "lib/same": (0o644, b"same"),
    "lib/gone": (0o644, b"gone"),
    "share/mode": (0o644, b"mode"),
}
NEW = {
    "bin/cc": (0o755, b"new compiler!" * 1000),
    "lib/same": (0o644, b"same"),
    "share/mode": (0o600, b"mode"),
    "share/new": (0o644, b"new"),
}


class Project:
    """A project whose lock is looked at."""

    def __init__(self, cafs: Cafs) -> None:
        self.cafs = cafs
        self.file = cafs.directory / "cafs.lock"

    @property
    def lock(self) -> Lock:
        return read_lock(self.file) or Lock()

    def entry(self, name: str) -> LockEntry:
        (entry,) = self.lock.of(name)
        return entry

    def indexes(self) -> set[str]:
        return {each.stem for each in index_directory(self.file).glob("*.idx")}

    def told(self, *words: str | Path) -> list[dict[str, object]]:
        done = self.cafs.run("lock", *words, "--json", check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def project(cafs: Cafs) -> Project:
    return Project(cafs)


@pytest.fixture
def other(tmp_path: Path, forks: Forks) -> Cafs:
    """Another machine."""
    return ForkedCafs(tmp_path / "other-machine", forks)


@pytest.fixture
def locked(project: Project, origin: Origin) -> Project:
    """A project with an archive and a file, locked."""
    tree = origin.put("/t.tgz", tar_bytes(OLD, compression="gz"))
    tool = origin.put("/tool", b"tool")
    project.cafs.project(f'[ref.tree]\nfrom="{tree}"\n[ref.tool]\nfrom="{tool}"\n')
    project.cafs.run("lock")
    origin.forget()
    return project


def test_an_archive_has_an_index_and_a_file_has_none(locked: Project, origin: Origin) -> None:
    tree, tool = locked.entry("tree"), locked.entry("tool")
    raw = tar_bytes(OLD, compression="gz")
    assert (tree.digest, tree.size) == (digest_of(raw), len(raw))
    assert tree.parts[0].urls == (origin.url("/t.tgz"),)
    assert locked.indexes() == {digest.hex for digest in tree.indexes}
    assert (tool.digest, tool.size, tool.indexes) == (digest_of(b"tool"), 4, {})


def test_what_is_locked_is_not_asked_for_again(locked: Project, origin: Origin) -> None:
    before = locked.file.read_bytes(), locked.file.stat().st_mtime_ns
    origin.put("/tool", b"another tool")
    assert [each["state"] for each in locked.told()] == ["unchanged", "unchanged"]
    assert (locked.file.read_bytes(), locked.file.stat().st_mtime_ns) == before
    assert origin.requests == ()


def test_upgrade_asks_again_and_only_for_what_is_named(locked: Project, origin: Origin) -> None:
    origin.put("/tool", b"another tool")
    origin.put("/t.tgz", tar_bytes(NEW, compression="gz"))
    before = locked.entry("tree")
    (told,) = locked.told("--upgrade", "tool")
    assert (told["state"], told["was"]) == ("changed", str(digest_of(b"tool")))
    assert locked.entry("tool").digest == digest_of(b"another tool")
    assert locked.entry("tree") == before
    old = locked.indexes()
    locked.cafs.run("lock", "--upgrade")
    assert locked.entry("tree").digest == digest_of(tar_bytes(NEW, compression="gz"))
    assert len(locked.indexes()) == 1
    assert locked.indexes() != old


def test_another_origin_in_the_settings_is_locked_anew(locked: Project, origin: Origin) -> None:
    other = origin.put("/other", b"other")
    toml = locked.cafs.directory / "cafs.toml"
    toml.write_text(toml.read_text().replace(origin.url("/tool"), other))
    assert locked.cafs.run("lock", "--check", check=False).returncode == 2
    states = {each["name"]: each["state"] for each in locked.told()}
    assert states == {"tree": "unchanged", "tool": "changed"}
    assert locked.cafs.run("lock", "--check").stdout == "cafs.lock matches cafs.toml: 2 entries\n"


def test_a_ref_that_has_gone_leaves_the_lock_with_its_index(locked: Project) -> None:
    toml = locked.cafs.directory / "cafs.toml"
    toml.write_text("".join(toml.read_text().partition("[ref.tool]")[1:]))
    told = locked.told()
    assert [(each["name"], each["state"]) for each in told] == [
        ("tool", "unchanged"),
        ("tree", "removed"),
    ]
    assert [each.name for each in locked.lock.entries] == ["tool"]
    assert not index_directory(locked.file).exists()


def test_one_that_fails_does_not_keep_the_others_out(project: Project, origin: Origin) -> None:
    tool, bad = origin.put("/tool", b"tool"), origin.url("/gone")
    project.cafs.project(f'[ref.a]\nfrom="{bad}"\n[ref.b]\nfrom="{tool}"\n')
    done = project.cafs.run("lock", check=False)
    assert done.returncode == 3
    assert "/gone" in done.stderr
    assert [each.name for each in project.lock.entries] == ["b"]
    done = project.cafs.run("lock", "--json", check=False)
    told = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert (told["b"]["state"], told["b"]["why"]) == ("unchanged", None)
    assert (told["a"]["state"], told["a"]["digest"], told["a"]["was"]) == ("failed", None, None)
    assert done.stderr == f"error: a: {told['a']['why']}\n"


def test_every_failure_is_told_and_the_first_one_is_the_exit_code(
    project: Project, origin: Origin
) -> None:
    gone, private = origin.url("/gone"), origin.put("/private", b"private")
    origin.fault("/private", Status(403))
    project.cafs.project(f'[ref.a]\nfrom="{gone}"\n[ref.b]\nfrom="{private}"\n')
    done = project.cafs.run("lock", check=False)
    assert done.returncode == 3
    assert "/gone" in done.stderr
    assert "/private" in done.stderr


def test_a_platform_that_is_asked_for_in_vain_is_told(project: Project, origin: Origin) -> None:
    url = origin.put("/tool", b"tool")
    project.cafs.project(f'[ref.tool.by-platform."{own_platform()}"]\nfrom="{url}"\n')
    done = project.cafs.run("lock", "--platform", "linux/s390x", "tool")
    assert "warning: tool: is not locked for linux/s390x: " in done.stderr


def test_a_lock_that_cannot_be_written_is_told_before_anything_is_read(
    project: Project, origin: Origin
) -> None:
    url = origin.put("/tool", b"tool")
    project.cafs.project(f'[ref.tool]\nfrom="{url}"\n')
    project.file.symlink_to(project.file.parent / "gone" / "cafs.lock")
    done = project.cafs.run("lock", check=False)
    assert done.returncode == 7
    assert "cannot be written" in done.stderr
    assert done.stdout == ""
    assert origin.requests == ()


def test_nothing_is_said_to_be_locked_that_could_not_be_written(
    project: Project, origin: Origin
) -> None:
    url = origin.put("/t.tgz", tar_bytes(OLD, compression="gz"))
    project.cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    index_directory(project.file).write_text("a file, where a directory should be")
    done = project.cafs.run("lock", check=False)
    assert done.returncode == 7
    assert done.stdout == ""
    assert not project.file.exists()


def test_a_ref_that_is_removed_beside_a_lock_does_not_come_back(
    locked: Project, origin: Origin
) -> None:
    """One is read by then, and the other one is not."""
    origin.fault("/t.tgz", HangBeforeHead())
    with ThreadPoolExecutor() as threads:
        locking = threads.submit(locked.cafs.run, "lock", "--upgrade")
        origin.wait_until(lambda seen: any(each.path == "/t.tgz" for each in seen))
        assert locked.cafs.run("remove", "tool").stdout == "tool: no longer locked\n"
        origin.release()
        told = locking.result().stdout.splitlines()
    assert [line.partition(":")[0] for line in told] == ["tree", "tool"]
    assert told[1] == "tool: no longer locked"
    assert [each.name for each in locked.lock.entries] == ["tree"]
    locked.cafs.run("lock", "--check")


def test_of_other_content_than_the_settings_say_it_is_said_that_they_must_change(
    project: Project, origin: Origin
) -> None:
    url, pin = origin.put("/tool", b"tool"), digest_of(b"other")
    project.cafs.project(f'[ref.tool]\nfrom="{url}"\nintegrity="{pin}"\n')
    done = project.cafs.run("lock", check=False)
    assert done.returncode == 4
    assert "hint: ref.tool.integrity says so in cafs.toml: change it there" in done.stderr
    assert "--upgrade" not in done.stderr


def test_run_does_not_ask_for_a_mount_point_that_it_does_not_take(cafs: Cafs) -> None:
    cafs.project("")
    done = cafs.run("run", "--", "true", check=False)
    assert done.returncode == 2
    assert "hint: set CAFS_MOUNT_POINT, or set path" in done.stderr


def test_where_room_ends_what_was_read_before_is_locked(project: Project, origin: Origin) -> None:
    small, large = origin.put("/small", b"small"), origin.put("/large", bytes(2 << 20))
    refs = {"a": small, "b": large, "c": small}
    text = "".join(f'[ref.{name}]\nfrom="{url}"\n' for name, url in refs.items())
    project.cafs.project(text)
    done = project.cafs.run("lock", "--quota", "1MiB", check=False)
    assert done.returncode == 7
    assert "not tried: c" in done.stderr
    assert [each.name for each in project.lock.entries] == ["a"]


def test_what_cannot_be_had_now_stays_locked(locked: Project, origin: Origin) -> None:
    before = locked.file.read_bytes()
    origin.fault("/tool", Status(404))
    assert locked.cafs.run("lock", "--upgrade", "tool", check=False).returncode == 3
    assert locked.file.read_bytes() == before


def test_the_same_refs_give_the_same_bytes_on_another_machine(locked: Project, other: Cafs) -> None:
    shutil.copy(locked.cafs.directory / "cafs.toml", other.directory)
    other.run("lock")
    assert (other.directory / "cafs.lock").read_bytes() == locked.file.read_bytes()
    assert Project(other).indexes() == locked.indexes()


@pytest.mark.parametrize("fault", [NoValidators(), NoLength(), IgnoreRange()], ids=repr)
def test_sources_that_tell_little_are_locked_by_their_bytes(
    project: Project, origin: Origin, fault: Fault
) -> None:
    tree = tar_bytes(OLD, compression="gz")
    urls = origin.put("/t.tgz", tree), origin.put("/tool", b"tool")
    origin.fault("/*", fault)
    project.cafs.project(f'[ref.tree]\nfrom="{urls[0]}"\n[ref.tool]\nfrom="{urls[1]}"\n')
    project.cafs.run("lock")
    digests = [each.digest for each in project.lock.entries]
    assert digests == [digest_of(b"tool"), digest_of(tree)]


def test_pins_of_every_kind_are_locked(project: Project, origin: Origin) -> None:
    tree = tar_bytes(OLD, compression="gz")
    url = origin.put("/t.tgz", tree)
    pins = [f'[ref.{each}]\nfrom="{url}"\nintegrity="{digest_of(tree, each)}"\n' for each in SIZES]
    named = (
        f'[ref.named]\nfrom="{digest_of(b"tool")}"\nmirrors=["{origin.put("/tool", b"tool")}"]\n'
    )
    project.cafs.project("".join([*pins, named]))
    project.cafs.run("lock")
    for algorithm in SIZES:
        entry = project.entry(algorithm)
        assert entry.integrity == str(digest_of(tree, algorithm))
        assert entry.digest == digest_of(tree)
    assert len(project.indexes()) == 1
    assert project.entry("named").digest == digest_of(b"tool")
    assert project.cafs.run("lock", "--check", "--full").returncode == 0


def test_an_archive_that_is_not_what_its_name_says_is_not_locked(
    project: Project, origin: Origin
) -> None:
    url = origin.put("/t.zip", tar_bytes(OLD, compression="gz"))
    project.cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    done = project.cafs.run("lock", check=False)
    assert (done.returncode, project.lock) == (4, Lock())
    assert "t.zip" in done.stderr


def test_of_a_zip_every_member_has_a_digest(project: Project, origin: Origin) -> None:
    url = origin.put("/t.zip", zip_archive([member("a/b", "beta" * 1000), member("c", "gamma")]))
    project.cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    assert project.cafs.run("lock").stderr == ""
    assert len(project.entry("tree").indexes) == 1


def test_a_zip_that_was_read_in_part_before_is_read_again(project: Project, origin: Origin) -> None:
    url = origin.put("/t.zip", zip_archive([member("a/b", "beta" * 1000), member("c", "gamma")]))
    project.cafs.project(f'[ref.tree]\nfrom="{url}"\n')
    assert project.cafs.run("cat", "tree/c").stdout == "gamma"
    project.cafs.run("lock")
    assert len(project.entry("tree").indexes) == 1


def test_check_asks_nobody_and_says_what_does_not_match(locked: Project, origin: Origin) -> None:
    right = {"platform": None, "state": "right", "why": None}
    assert locked.told("--check") == [{"name": "tool", **right}, {"name": "tree", **right}]
    toml = locked.cafs.directory / "cafs.toml"
    toml.write_text(toml.read_text() + f'[ref.more]\nfrom="{origin.url("/more")}"\n')
    done = locked.cafs.run("lock", "--check", check=False)
    assert (done.returncode, done.stdout) == (2, "more: is not locked: run cafs lock more\n")
    told = [(each["name"], each["state"]) for each in locked.told("--check")]
    assert sorted(told) == [("more", "stale"), ("tool", "right"), ("tree", "right")]
    assert locked.cafs.run("lock", "--check", "tree", "tool").returncode == 0
    toml.write_text("")
    done = locked.cafs.run("lock", "--check", check=False)
    assert done.returncode == 2
    assert "tree: is locked, and not in the settings" in done.stdout
    assert origin.requests == ()


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), None])
def test_an_index_that_is_wrong_is_named_and_made_anew(
    locked: Project, damage: Callable[[bytes], bytes] | None
) -> None:
    (path,) = index_directory(locked.file).glob("*.idx")
    right = path.read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(right))
    done = locked.cafs.run("lock", "--check", check=False)
    assert done.returncode == 4
    assert str(path) in done.stdout
    assert "cafs lock tree makes it anew" in done.stdout
    if damage is not None:
        assert f"expected {digest_of(right)}, got {digest_of(damage(right))}" in done.stdout
    before = locked.file.read_bytes()
    locked.cafs.run("lock", "tree")
    assert (path.read_bytes(), locked.file.read_bytes()) == (right, before)


def test_check_full_reads_everything_again(locked: Project, other: Cafs, origin: Origin) -> None:
    shutil.copytree(locked.cafs.directory, other.directory, dirs_exist_ok=True)
    assert other.run("lock", "--check", "--full").returncode == 0
    assert origin.bytes_sent("/t.tgz") >= len(tar_bytes(OLD, compression="gz"))
    assert (other.directory / "cafs.lock").read_bytes() == locked.file.read_bytes()


def test_a_run_that_was_killed_leaves_nothing_for_longer_than_the_next(
    project: Project, origin: Origin
) -> None:
    """Killed while it makes the second index of two, with the first one lying there."""
    layer = tar_bytes(OLD, compression="gz")
    for name in ("a", "b"):
        origin.put(f"/{name}.tgz", layer if name == "a" else tar_bytes(NEW, compression="gz"))
    text = "".join(f'[ref.{name}]\nfrom="{origin.url(f"/{name}.tgz")}"\n' for name in "ab")
    project.cafs.project(text)
    origin.fault("/b.tgz", HangBeforeHead(times=1))
    temporary = project.cafs.directory.parent / "tmp"
    temporary.mkdir()
    project.cafs.environment["TMPDIR"] = str(temporary)
    running = project.cafs.popen("lock")
    origin.wait_until(lambda seen: any(each.path == "/b.tgz" for each in seen))
    running.kill()
    running.communicate()
    scratch = project.cafs.store / "scratch"
    assert [each.suffix for each in scratch.rglob("*.idx")] == [".idx"]
    origin.release()
    project.cafs.run("lock")
    assert list(scratch.iterdir()) == []
    assert len(project.indexes()) == 2
    assert list(temporary.iterdir()) == []


def test_check_full_fetches_what_the_store_lacks_and_nothing_else(
    locked: Project, origin: Origin, tmp_path: Path
) -> None:
    locked.cafs.run("prefetch", "--quiet")
    origin.forget()
    locked.cafs.run("lock", "--check", "--full")
    assert origin.bytes_sent() == 0
    locked.cafs.run("lock", "--check", "--full", "--store", tmp_path / "empty")
    assert origin.bytes_sent() > 0


def test_check_full_finds_a_lock_whose_index_is_of_something_else(
    locked: Project, other: Cafs, origin: Origin
) -> None:
    """Somebody has made an index for other bytes, and everything in the project fits it."""
    forger = Project(other)
    evil = origin.put("/evil.tgz", tar_bytes(NEW, compression="gz"))
    forger.cafs.project(f'[ref.tree]\nfrom="{evil}"\n')
    forger.cafs.run("lock")
    (index,) = forger.entry("tree").indexes
    (true,) = locked.entry("tree").indexes
    text = locked.file.read_text().replace(str(true), str(index))
    size = forger.entry("tree").parts[0].index_size
    text = text.replace(
        f"index-size = {locked.entry('tree').parts[0].index_size}", f"index-size = {size}"
    )
    locked.file.write_text(text)
    shutil.copy(index_directory(forger.file) / f"{index.hex}.idx", index_directory(locked.file))
    assert locked.cafs.run("lock", "--check").returncode == 0
    done = locked.cafs.run("lock", "--check", "--full", check=False)
    assert done.returncode == 4
    assert f"tree: content: its index is {true}, and not {index}" in done.stdout


@pytest.mark.parametrize("size", [0, 1 << 63])
def test_a_size_that_cannot_be_is_an_error_of_the_lock_and_never_nothing_read(
    locked: Project, size: int
) -> None:
    """Of what has no bytes none would be asked for, and so none be checked."""
    text = locked.file.read_text()
    assert text.count("\nsize = 4\n") == 1
    locked.file.write_text(text.replace("\nsize = 4\n", f"\nsize = {size}\n"))
    for words in (["cat", "ref/tool"], ["prefetch", "tool"], ["lock", "--check"]):
        done = locked.cafs.run(*words, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "ref.tool.size" in done.stderr


def test_a_wrong_size_in_a_lock_is_found_also_where_somebody_has_read_by_it(
    locked: Project, other: Cafs
) -> None:
    text = locked.file.read_text()
    locked.file.write_text(text.replace("\nsize = 4\n", "\nsize = 5\n"))
    shutil.copytree(locked.cafs.directory, other.directory, dirs_exist_ok=True)
    assert other.run("cat", "ref/tool", check=False).returncode == 4
    done = other.run("lock", "--check", "--full", check=False)
    assert done.returncode == 4
    pin = digest_of(b"tool")
    assert done.stdout == f"tool: content is {pin} (4 bytes), and not {pin} (5)\n"


def test_check_full_finds_that_the_source_has_other_bytes(
    locked: Project, other: Cafs, origin: Origin
) -> None:
    shutil.copytree(locked.cafs.directory, other.directory, dirs_exist_ok=True)
    origin.put("/tool", b"loot")
    origin.remove("/t.tgz")
    done = other.run("lock", "--check", "--full", check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert str(digest_of(b"tool")) in done.stderr
    done = other.run("lock", "--check", "--full", "--json", check=False)
    told = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    assert {name: each["state"] for name, each in told.items()} == {
        "tool": "wrong",
        "tree": "unknown",
    }
    assert "/t.tgz" in told["tree"]["why"]


def test_an_entry_that_contradicts_the_settings_is_an_error_until_it_is_locked_anew(
    project: Project, origin: Origin
) -> None:
    pin = digest_of(b"tool")
    url = origin.put("/tool", b"tool")
    project.cafs.project(f'[ref.tool]\nfrom="{url}"\nintegrity="{pin}"\n')
    project.cafs.run("lock")
    right = project.file.read_text()
    wrong = right.replace(f'digest = "{pin}"', f'digest = "{digest_of(b"loot")}"')
    assert wrong != right
    project.file.write_text(wrong)
    for words in (["resolve"], ["lock", "--check"]):
        done = project.cafs.run(*words, check=False)
        assert done.returncode == 2
        assert f"{project.file}: ref.tool.digest: {digest_of(b'loot')} is not" in (
            done.stdout + done.stderr
        )
    project.cafs.run("lock")
    assert project.file.read_text() == right


def test_diff_tells_which_files_differ(locked: Project, origin: Origin) -> None:
    shutil.copy(locked.file, locked.cafs.directory / "old.lock")
    shutil.copytree(index_directory(locked.file), locked.cafs.directory / "old.lock.d")
    raw = tar_bytes(NEW, compression="gz")
    origin.put("/t.tgz", raw)
    locked.cafs.run("lock", "--upgrade", "tree")
    before = digest_of(tar_bytes(OLD, compression="gz"))
    assert locked.cafs.run("lock", "--diff", "old.lock", "cafs.lock").stdout.splitlines() == [
        f"tree: changed {before} → {digest_of(raw)}",
        "  ~ bin/cc  11.7 KiB → 12.7 KiB",
        "  - lib/gone  4 B",
        "  ~ share/mode  mode 0644 → 0600",
        "  + share/new  3 B",
    ]
    entry, cc, gone, _, _ = locked.told("--diff", "old.lock", "cafs.lock")
    assert (entry["was"], entry["digest"]) == (str(before), str(digest_of(raw)))
    assert cc["path"] == "bin/cc"
    assert cc["was"] == {
        "kind": "file",
        "size": 12000,
        "mode": 0o755,
        "digest": str(digest_of(OLD["bin/cc"][1])),
        "target": None,
    }
    assert gone["now"] is None
    assert locked.cafs.run("lock", "--diff", "cafs.lock", "cafs.lock").stdout == ""


@pytest.mark.parametrize("relative", [False, True], ids=["url", "of-the-project"])
def test_diff_of_a_file_with_an_index_tells_its_digests_and_nothing_more(
    project: Project, origin: Origin, relative: bool
) -> None:
    old, new = bytes(2 << 20), bytes((2 << 20) + 1)

    def put(data: bytes) -> str:
        if relative:
            (project.cafs.directory / "model.bin").write_bytes(data)
        return "file:model.bin" if relative else origin.put("/model.bin", data)

    project.cafs.project(f'[ref.model]\nfrom = "{put(old)}"\n')
    project.cafs.run("lock")
    assert len(project.indexes()) == 1
    shutil.copy(project.file, project.cafs.directory / "old.lock")
    put(new)
    project.cafs.run("lock", "--upgrade")
    done = project.cafs.run("lock", "--diff", "old.lock", "cafs.lock")
    assert done.stdout == f"model: changed {digest_of(old)} → {digest_of(new)}\n"
    assert not done.stderr


def test_diff_takes_no_wrong_index_where_the_store_has_the_right_one(
    locked: Project, origin: Origin
) -> None:
    directory = locked.cafs.directory
    (right,) = index_directory(locked.file).glob("*.idx")
    data = right.read_bytes()
    shutil.copy(locked.file, directory / "old.lock")

    async def store() -> None:
        async with open_store(locked.cafs.store) as opened:
            await opened.blobs.put("x/y", data)

    trio.run(store)
    (directory / "old.lock.d").mkdir()
    wrong = directory / "old.lock.d" / right.name
    wrong.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    origin.put("/t.tgz", tar_bytes(NEW, compression="gz"))
    locked.cafs.run("lock", "--upgrade", "tree")
    done = locked.cafs.run("lock", "--diff", "old.lock", "cafs.lock")
    assert "  + share/new  3 B" in done.stdout.splitlines()
    assert f"{wrong.relative_to(directory)}: expected {digest_of(data)}" in done.stderr


def test_diff_tells_what_came_and_went(locked: Project) -> None:
    (locked.cafs.directory / "none.lock").write_text("version = 1\n")
    told = locked.told("--diff", "none.lock", "cafs.lock")
    assert [(each["name"], each["state"]) for each in told] == [
        ("tool", "added"),
        ("tree", "added"),
    ]
    done = locked.cafs.run("lock", "--diff", "cafs.lock", "gone.lock", check=False)
    assert done.returncode == 3


def test_words_that_do_not_go_together_are_refused(locked: Project) -> None:
    for words in (["--full"], ["--check", "--upgrade"], ["--diff", "a", "b", "--check"]):
        assert locked.cafs.run("lock", *words, check=False).returncode == 2
    done = locked.cafs.run("lock", "--check", "--upgrade", check=False)
    assert "--check and --upgrade exclude each other" in done.stderr
    done = locked.cafs.run("lock", "--check", "--large", "large", check=False)
    assert "--check and --large exclude each other" in done.stderr
    done = locked.cafs.run("lock", "tre", check=False)
    assert done.returncode == 3
    assert "tree" in done.stderr


def test_without_a_project_there_is_nothing_to_lock(cafs: Cafs) -> None:
    done = cafs.run("lock", check=False)
    assert done.returncode == 2
    assert "cafs add" in done.stderr


def test_a_lock_with_marks_of_a_merge_is_an_error_that_says_where(locked: Project) -> None:
    locked.file.write_text(f"<<<<<<< ours\n{locked.file.read_text()}")
    for verb in (["lock"], ["status"], ["lock", "--check"]):
        done = locked.cafs.run(*verb, check=False)
        assert done.returncode == 2
        assert f"{locked.file}: line 1" in done.stderr


def test_no_secret_of_a_url_is_written_down(project: Project, origin: Origin) -> None:
    url = f"{origin.put('/tool', b'tool')}?token=s3cret"
    project.cafs.project(f'[ref.tool]\nfrom="{url}"\n')
    project.cafs.run("lock")
    assert "s3cret" not in project.file.read_text()
    assert project.cafs.run("lock", "--check").returncode == 0


def image(number: int) -> Image:
    """An image of two layers, the upper one with something of its own."""
    names = ("amd64", "arm64")
    return Image(
        (
            Layer((member("base", "base"), member("gone", "gone")), Compression.GZIP),
            Layer((member(".wh.gone", ""), member("arch", names[number])), Compression.GZIP),
        ),
        architecture=names[number],
    )


def test_an_image_is_locked_for_this_machine_and_for_others_that_are_named(
    project: Project, other: Cafs, registry: Registry, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "oci", [image(0), image(1)])
    registry.push(layout, "lock/multi")
    project.cafs.project(f'[ref.base]\nfrom="docker://{registry.host}/lock/multi"\n')
    project.cafs.run("lock", "--platform", "linux/amd64", "--platform", "linux/arm64")
    amd, arm = project.lock.of("base")
    assert (amd.platform, arm.platform) == ("linux/amd64", "linux/arm64")
    assert str(amd.named) == str(arm.named) == layout.digest
    assert amd.digest != arm.digest
    assert [len(each.parts) for each in (amd, arm)] == [2, 2]
    assert project.indexes() == {digest.hex for digest in project.lock.indexes()}
    assert len(project.indexes()) == 3  # the lower layer is the same
    asked = len(registry.requests())
    assert project.cafs.run("lock").stdout.count("unchanged") == 2
    assert project.cafs.run("lock", "--check").returncode == 0
    assert len(registry.requests()) == asked
    again = Project(other)
    shutil.copytree(project.cafs.directory, again.cafs.directory, dirs_exist_ok=True)
    again.cafs.run("lock", "--check", "--full")
    # It has the manifest now, and so need not believe what the lock says of it.
    size = amd.parts[0].size
    text = again.file.read_text()
    again.file.write_text(text.replace(f"size = {size}\n", f"size = {size + 1}\n"))
    done = again.cafs.run("resolve", "base", check=False)
    assert done.returncode == 4
    assert f"layer 1 has {size + 1} bytes in it, and {size} in that" in done.stderr
    assert "cafs lock --upgrade base" in done.stderr


def test_diff_of_images_is_of_the_merged_trees(
    project: Project, registry: Registry, tmp_path: Path
) -> None:
    own = "amd64" if os.uname().machine == "x86_64" else "arm64"
    number = ("amd64", "arm64").index(own)
    registry.push(write_layout(tmp_path / "one", [image(number)]), "lock/moving")
    project.cafs.project(f'[ref.base]\nfrom="docker://{registry.host}/lock/moving"\n')
    project.cafs.run("lock")
    assert project.entry("base").platform == ""  # no index: it is the same for everybody
    shutil.copy(project.file, project.cafs.directory / "old.lock")
    shutil.copytree(index_directory(project.file), project.cafs.directory / "old.lock.d")
    upper = Layer((member(".wh.base", ""), member("arch", "another")), Compression.GZIP)
    lower = image(number).layers[0]
    moved = Image((lower, upper), architecture=own)
    registry.push(write_layout(tmp_path / "two", [moved]), "lock/moving")
    project.cafs.run("lock", "--upgrade")
    lines = project.cafs.run("lock", "--diff", "old.lock", "cafs.lock").stdout.splitlines()
    assert lines[1:] == ["  ~ arch  5 B → 7 B", "  - base  4 B", "  + gone  4 B"]


def test_a_ref_by_platform_is_locked_on_each(project: Project, origin: Origin) -> None:
    urls = [origin.put(f"/{each}", each.encode()) for each in ("amd", "arm")]
    project.cafs.project(
        f'[ref.tool.by-platform]\n"linux/amd64" = {{from="{urls[0]}"}}\n'
        f'"linux/arm64" = {{from="{urls[1]}"}}\n'
    )
    project.cafs.run("lock")
    assert [(each.platform, each.digest) for each in project.lock.of("tool")] == [
        ("linux/amd64", digest_of(b"amd")),
        ("linux/arm64", digest_of(b"arm")),
    ]
    assert project.cafs.run("lock", "--check").returncode == 0
    assert "note" not in project.cafs.run("status").stdout


def test_a_table_of_contents_is_locked_and_not_believed(project: Project, origin: Origin) -> None:
    """The index is of a pass over the layer; the table is for who cannot have the index."""
    layer = estargz([member("bin/cc", b"compiler" * 1000)])
    manifest = layer.manifest()
    origin.put(f"/v2/image/blobs/{digest_of(layer.data)}", layer.data)
    for reference in ("latest", str(digest_of(manifest))):
        origin.put(f"/v2/image/manifests/{reference}", manifest, content_type=OCI_MANIFEST)
    project.cafs.project(f'[ref.base]\nfrom="docker://127.0.0.1:{origin.port}/image"\n')
    project.cafs.run("lock")
    (part,) = project.entry("base").parts
    assert part.contents is not None
    assert (part.contents.kind, part.index is not None) == ("estargz", True)
    assert project.cafs.run("lock", "--check", "--full").returncode == 0
