"""The directory of a store: who may use it, and what is made and removed when it is opened."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cafs.errors import StorageError
from cafs.model.digest import EMPTY
from cafs.store.disk.ballast import LARGEST as BALLAST
from cafs.store.disk.layout import VERSION, Layout, Usage, check_type, file_system_type
from cafs.store.store import Store, open_store

GOLDEN = Path(__file__).parents[2] / "golden" / "store"


async def test_the_version_file_is_the_golden_one(store: Store) -> None:
    assert (store.path / "VERSION").read_bytes() == (GOLDEN / "VERSION").read_bytes()


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text(f"{VERSION + 1}\n")
    with pytest.raises(StorageError, match="written by a newer cafs") as caught:
        async with open_store(tmp_path):
            pass
    assert "upgrade" in caught.value.hint
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("text", ["", "one", "0", "-1", "1.5"])
async def test_a_version_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    store = tmp_path / "a store"
    store.mkdir()
    (store / "VERSION").write_text(text)
    with pytest.raises(StorageError, match="no layout version") as caught:
        async with open_store(store):
            pass
    assert f"echo {VERSION} >'{store}/VERSION'" in caught.value.hint


async def test_only_the_owner_may_enter(store: Store) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    """A directory that the group may read."""
    tmp_path.chmod(0o750)
    return tmp_path


def mode_of(path: Path) -> int:
    """The permission bits of a directory."""
    return path.stat().st_mode & 0o777


def names_in(path: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(each.name for each in path.iterdir())


async def test_an_open_directory_is_closed(readable: Path) -> None:
    async with open_store(readable) as store:
        assert store.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["notes.txt", ".profile", "oci-layout"])
async def test_a_directory_with_something_else_in_it_is_refused_and_left_alone(
    readable: Path, name: str
) -> None:
    (readable / name).touch()
    with pytest.raises(StorageError, match=f"no store, and not empty: '{name}'") as caught:
        async with open_store(readable):
            pass
    assert "empty directory" in caught.value.hint
    assert names_in(readable) == [name]
    assert mode_of(readable) == 0o750


async def test_what_is_of_another_version_is_left_as_open_as_it_is(readable: Path) -> None:
    (readable / "VERSION").write_text("3.2.1\n")
    with pytest.raises(StorageError, match="no layout version"):
        async with open_store(readable):
            pass
    assert mode_of(readable) == 0o750


async def test_the_top_of_a_new_disk_may_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    async with open_store(tmp_path) as store:
        assert store.path == tmp_path


async def test_of_another_boot_is_what_is_a_directory(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        pass
    (tmp_path / "recent-before").mkdir()
    (tmp_path / "recent-notes").touch()
    (tmp_path / "recent-elsewhere").symlink_to(tmp_path.parent)
    async with open_store(tmp_path):
        pass
    left = {name for name in names_in(tmp_path) if name.startswith("recent-")}
    assert {"recent-notes", "recent-elsewhere"} < left
    assert "recent-before" not in left


async def test_a_store_that_has_lost_its_version_is_one(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        pass
    (tmp_path / "VERSION").unlink()
    async with open_store(tmp_path) as store:
        assert (store.path / "VERSION").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_another_users_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.mkdir()
    os.chown(path, 12345, 12345)
    with pytest.raises(StorageError, match="belongs to user 12345"):
        async with open_store(path):
            pass


async def test_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(StorageError, match=str(path)):
        async with open_store(path):
            pass


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "fuse", "fuse.sshfs", "fuse.cafs", "cifs", "9p"])
def test_file_systems_that_cannot_share_are_refused(kind: str) -> None:
    with pytest.raises(StorageError, match=kind) as caught:
        check_type(Path("/somewhere"), kind)
    assert "local disk" in caught.value.hint


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk"])
def test_local_file_systems_are_taken(kind: str) -> None:
    check_type(Path("/somewhere"), kind)


def test_the_file_system_type_is_that_of_the_innermost_mount() -> None:
    assert file_system_type(Path("/proc")) == "proc"
    assert file_system_type(Path("/proc/self")) == "proc"
    assert file_system_type(Path("/sys")) == "sysfs"


def test_another_pid_namespace_is_refused_while_the_store_is_in_use(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "boot")
    first = Usage(layout, "pid:[1]")
    first.share()
    with pytest.raises(StorageError, match="another PID namespace"):
        Usage(layout, "pid:[2]")
    first.close()
    second = Usage(layout, "pid:[2]")
    assert second.alone
    second.close()


def test_the_second_user_waits_until_the_first_shares(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "boot")
    first = Usage(layout, "pid:[1]")
    assert first.alone
    entered = threading.Event()
    alone: list[bool] = []

    def enter() -> None:
        second = Usage(layout, "pid:[1]")
        alone.append(second.alone)
        entered.set()
        second.close()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.05)
    first.share()
    thread.join()
    assert alone == [False]
    first.close()


def test_who_waited_for_one_that_died_is_alone(tmp_path: Path) -> None:
    """Else a store that was never put in order would be used as it is."""
    layout = Layout(tmp_path, "boot")
    first = Usage(layout, "pid:[1]")
    waiting = f":{(tmp_path / 'users').stat().st_ino} "
    alone: list[bool] = []

    def enter() -> None:
        second = Usage(layout, "pid:[1]")
        alone.append(second.alone)
        second.close()

    thread = threading.Thread(target=enter)
    thread.start()
    while not any(
        "->" in line and waiting in line for line in Path("/proc/locks").read_text().splitlines()
    ):
        assert thread.is_alive()
    first.close()
    thread.join()
    assert alone == [True]


async def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "blobs").touch()
    with pytest.raises(StorageError, match=f"cannot be prepared: .* \\({tmp_path}/blobs"):
        async with open_store(tmp_path):
            pass


async def test_a_version_that_could_not_be_written_is_not_half_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StorageError, match="cannot be prepared"):
            async with open_store(tmp_path):
                pass
    async with open_store(tmp_path):
        assert (tmp_path / "VERSION").read_bytes() == (GOLDEN / "VERSION").read_bytes()


async def test_the_ballast_is_made_when_there_is_room(store: Store) -> None:
    ballast = store.path / "ballast"
    assert ballast.stat().st_size == BALLAST
    assert ballast.stat().st_blocks * 512 >= BALLAST


async def test_the_ballast_is_made_again_after_it_was_used(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        assert Layout(tmp_path, "x").ballast.drop()
        assert not Layout(tmp_path, "x").ballast.drop()
        assert Layout(tmp_path, "x").ballast.spent()
    async with open_store(tmp_path):
        assert (tmp_path / "ballast").stat().st_size == BALLAST


async def test_records_of_another_boot_are_deleted(tmp_path: Path) -> None:
    async with open_store(tmp_path, boot_id="one"):
        assert (tmp_path / "recent-one").is_dir()
    async with open_store(tmp_path, boot_id="two"):
        assert not (tmp_path / "recent-one").exists()
        assert (tmp_path / "recent-two").is_dir()


async def test_records_in_use_are_not_deleted(store: Store) -> None:
    script = (
        "import sys, trio; from pathlib import Path; from cafs.store.store import open_store\n"
        "async def main():\n"
        "    async with open_store(Path(sys.argv[1]), boot_id='second'): pass\n"
        "trio.run(main)"
    )
    subprocess.run([sys.executable, "-c", script, store.path], check=True)  # noqa: ASYNC221 (nothing else runs in this test)
    assert (store.path / "recent-first").is_dir()


def test_b12_blobs_lie_in_256_folders(tmp_path: Path) -> None:
    path = Layout(tmp_path, "boot").blob(EMPTY)
    assert path.relative_to(tmp_path).as_posix() == f"blobs/sha256/e3/{EMPTY.hex}"


async def test_the_users_own_error_leaves_the_store_as_it_was_raised(tmp_path: Path) -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_store(tmp_path):
            raise error
    assert caught.value is error


async def test_free_bytes_is_what_the_file_system_says(store: Store) -> None:
    info = os.statvfs(store.path)
    assert abs(store.free_bytes() - info.f_bavail * info.f_frsize) < 1 << 30


def test_a_store_that_was_removed_cannot_say_how_much_room_is_left(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "gone", "boot")
    with pytest.raises(StorageError, match="gone: cannot be looked at"):
        layout.free_bytes()
