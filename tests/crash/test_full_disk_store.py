"""What a store keeps back for a full disk: a ballast, room in its records, places for readers."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cafs.errors import StorageFullError
from cafs.model.identity import StreamKey
from cafs.model.resolved import Resolved, Shape
from cafs.store.disk import ballast
from cafs.store.disk.files import erase
from cafs.store.store import Store, open_store
from cafs.store.trees.mounts import new_key
from tests.small_disk import TOLD_IN_TIME, disk_of, fill, free

pytestmark = TOLD_IN_TIME

MIB = 1 << 20
KEY = StreamKey("a" * 64)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 64 MiB."""
    with disk_of(tmp_path / "disk", 64) as path:
        yield path


@pytest.mark.parametrize(
    ("mib", "expected"), [(20, 20 * MIB // 16), (64, 4 * MIB), (512, 16 * MIB)]
)
async def test_a_small_disk_has_a_small_ballast(tmp_path: Path, mib: int, expected: int) -> None:
    with disk_of(tmp_path / "disk", mib) as disk:
        async with open_store(disk / "store") as store:
            found = (store.path / "ballast").stat()
            assert found.st_size == expected
            assert found.st_blocks * 512 >= expected


async def test_where_there_is_hardly_any_room_there_is_no_ballast_and_none_was_spent(
    disk: Path,
) -> None:
    (disk / "filler").write_bytes(bytes(50 * MIB))
    async with open_store(disk / "store") as store:
        assert not (store.path / "ballast").exists()
        stream = await store.streams.open(KEY, MIB)
        await stream.write(0, b"x" * MIB)


async def test_what_the_ballast_was_is_for_what_must_go_on_and_not_for_bytes(disk: Path) -> None:
    async with open_store(disk / "store") as store:
        mount = await store.mounts.open(new_key(), "test")
        stream = await store.streams.open(KEY, 32 * MIB)
        await stream.write(0, b"x" * MIB)
        fill(disk)
        meanings = 0
        while (store.path / "ballast").stat().st_size:
            await store.mounts.resolve(mount, f"ref {meanings}", meaning(meanings))
            meanings += 1
        assert free(disk) > 0
        with pytest.raises(StorageFullError):
            await stream.write(MIB, b"x" * MIB)
        fill(disk, 1)  # nor can others take what the store has made its own
        for number in range(1000):
            await store.attachments.attach(mount, f"ref/{number}")
        assert store.mounts.resolved(mount, f"ref {meanings - 1}") == meaning(meanings - 1)
        await stream.discard()


async def test_the_ballast_is_made_again_when_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ballast, "_PERIOD_S", 0.01)
    async with open_store(disk / "store") as store:
        filler = fill(disk)
        place = store.path / "ballast"
        await spend(store)
        await trio.sleep(0.05)
        assert not place.stat().st_size
        filler.unlink()
        with trio.fail_after(60):
            while not place.stat().st_size:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
        assert place.stat().st_size == 4 * MIB


async def spend(store: Store) -> None:
    mount = await store.mounts.open(new_key(), "test")
    number = 0
    while (store.path / "ballast").stat().st_size:
        await store.mounts.resolve(mount, f"ref {number}", meaning(number))
        number += 1


def meaning(number: int) -> Resolved:
    return Resolved(
        ref=f"{number} " + "x" * 5000, shape=Shape.FILE, digest=None, parts=(), resolved_ns=number
    )


async def test_a_store_whose_disk_is_full_ends_and_opens(disk: Path) -> None:
    async with open_store(disk / "store", checkpoint_s=1e6) as store:
        stream = await store.streams.open(KEY, 40 * MIB)
        await stream.write(0, b"x" * MIB)
        fill(disk)
    async with open_store(disk / "store", boot_id="another") as store:
        fill(disk, 1)
        await store.mounts.open(new_key(), "test")


def test_a_full_disk_has_a_place_for_every_reader(disk: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import crowd; crowd({str(disk)!r})"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout) == (0, "1000\n"), done.stderr


def crowd(disk: str) -> None:
    """Read in a thousand threads at once, each of which takes a slot in the table of readers."""

    async def main() -> None:
        async with open_store(Path(disk) / "store") as store:
            fill(Path(disk))
            sys.stdout.write(f"{len(read_at_once(store))}\n")

    trio.run(main)


def read_at_once(store: Store) -> list[bool]:
    barrier = threading.Barrier(1000)
    found: list[bool] = []

    def read() -> None:
        barrier.wait()
        found.append(store.streams.find(KEY) is None)
        barrier.wait()

    threads = [threading.Thread(target=read) for _ in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_what_is_removed_gives_its_space_back_though_others_have_it_open(disk: Path) -> None:
    alone, named = disk / "alone", disk / "named"
    for path in (alone, named):
        path.write_bytes(bytes(4 * MIB))
        path.chmod(0o444)
    (disk / "other").hardlink_to(named)
    before = free(disk)
    with alone.open("rb"), named.open("rb"):
        erase(alone)
        erase(named)
        erase(disk / "not there")
        assert free(disk) - before == 4 * MIB
    assert not alone.exists()
    assert not named.exists()
    assert (disk / "other").stat().st_size == 4 * MIB  # those bytes are somebody's
