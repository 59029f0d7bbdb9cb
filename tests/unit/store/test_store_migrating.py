"""Migrations: step by step, with a copy of the index first; whoever dies over one is followed."""

import fcntl
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cafs.errors import StorageError, StorageFullError
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.disk.layout import VERSION, Layout, Usage
from cafs.store.health.migrating import KEPT, STEPS, migrate
from cafs.store.store import open_store

pytestmark = pytest.mark.expects_log("store.migration")

KEY, OTHER = StreamKey("ab" * 32), StreamKey("cd" * 32)
HALF = b"half"
DATA = random.Random(1).randbytes(200_000)


async def fill(path: Path) -> None:
    """A blob, and a stream that has a part."""
    async with open_store(path) as store:
        await (await store.streams.open(KEY, len(DATA))).write(0, DATA)
        await store.blobs.admit(KEY, media_type="", name="x")
        await (await store.streams.open(OTHER, len(DATA))).write(1000, DATA[1000:90_000])


def changed(path: Path, change: Callable[[Environment, Batch], None]) -> None:
    """Change the index of a store that nobody has open."""
    index = Environment(
        path / "index", {"spans": 1, "sums": 1, "t": 1}, synced=True, make_room=lambda: False
    )
    index.apply(lambda batch: change(index, batch))
    index.close()


async def older(path: Path) -> None:
    """A store as version 1 wrote it, before there were sums."""
    await fill(path)

    def unsum(index: Environment, batch: Batch) -> None:
        batch.clear(index.table("sums"), b"", b"\xff" * 64, 1000)

    changed(path, unsum)
    (path / "VERSION").write_text("1\n")


def backups(path: Path) -> list[str]:
    return sorted(each.name for each in path.glob("backups/*"))


async def test_r26_every_version_has_a_step_to_the_next() -> None:
    assert sorted(STEPS) == list(range(1, VERSION))


async def test_r26_version_1_becomes_2_and_what_has_no_sum_is_fetched_again(
    tmp_path: Path,
) -> None:
    await older(tmp_path)
    async with open_store(tmp_path) as store:
        assert (tmp_path / "VERSION").read_text() == f"{VERSION}\n"
        assert await store.blobs.read(digest_of(DATA), 0, 1 << 20) == DATA
        stream = store.streams.find(OTHER)
        assert stream is not None
        assert stream.present() == SpanSet()
        await stream.write(0, DATA)
        assert await stream.read(0, len(DATA)) == DATA
    assert [name.rpartition("-")[0] for name in backups(tmp_path)] == ["index-1"]
    assert not (tmp_path / "migrating").exists()


async def test_r26_spans_with_sums_stay(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "VERSION").write_text("1\n")
    async with open_store(tmp_path) as store:
        stream = store.streams.find(OTHER)
        assert stream is not None
        assert stream.present() == SpanSet([Span(1000, 90_000)])
        assert await stream.read(1000, 89_000) == DATA[1000:90_000]


async def test_r26_a_store_of_this_version_is_not_touched(tmp_path: Path) -> None:
    await fill(tmp_path)
    before = (tmp_path / "index" / "data.mdb").read_bytes()
    migrate(Layout(tmp_path, "boot"))
    assert (tmp_path / "index" / "data.mdb").read_bytes() == before
    assert not (tmp_path / "backups").exists()


async def test_r26_the_last_copies_are_kept_and_no_more(tmp_path: Path) -> None:
    await fill(tmp_path)
    for _ in range(KEPT + 2):
        (tmp_path / "VERSION").write_text("1\n")
        migrate(Layout(tmp_path, "boot"))
    names = backups(tmp_path)
    assert len(names) == KEPT
    (tmp_path / "VERSION").write_text("1\n")
    migrate(Layout(tmp_path, "boot"))
    assert backups(tmp_path)[:-1] == names[1:]


async def test_r26_what_others_have_put_beside_the_copies_stays_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(tmp_path)
    (tmp_path / "backups").mkdir()
    foreign = ["mine", "index-old", "index-1-x", "before-2024", "mine.part", "index-x.part"]
    for name in foreign:
        (tmp_path / "backups" / name).mkdir()
    (tmp_path / "backups" / "index-1-7.part").mkdir()  # ours, of one that died
    (tmp_path / "VERSION").write_text("1\n")
    with caplog.at_level("INFO"):
        migrate(Layout(tmp_path, "boot"))
    assert set(foreign) < set(backups(tmp_path))
    assert len(backups(tmp_path)) == len(foreign) + 1
    told = [each for each in caplog.messages if each.startswith("store.migration.foreign")]
    assert len(told) == 1
    assert "index-1-x" in told[0]


async def test_r26_a_newer_version_is_refused_also_half_way(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "VERSION").write_text(f"{VERSION + 1}\n")
    (tmp_path / "migrating").write_text('{"version": 1, "backup": "x"}')
    with pytest.raises(StorageError, match="newer cafs"):
        async with open_store(tmp_path):
            pass
    assert (tmp_path / "migrating").exists()


async def test_r26_an_older_version_in_use_is_refused_with_what_to_do(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "VERSION").write_text("1\n")
    layout = Layout(tmp_path, "boot")
    theirs = Usage(layout, os.readlink("/proc/self/ns/pid"))
    theirs.share()
    with pytest.raises(StorageError, match="in use by an older cafs") as caught:
        async with open_store(tmp_path):
            pass
    assert "unmount" in caught.value.hint
    theirs.close()
    async with open_store(tmp_path):
        pass


async def test_r26_a_step_that_fails_leaves_a_store_that_is_migrated_the_next_time(
    tmp_path: Path,
) -> None:
    await older(tmp_path)

    def failing(layout: Layout) -> None:
        changed(layout.root, lambda index, batch: batch.put(index.table("t"), HALF, b"done"))
        raise StorageFullError("no room", hint="free space")

    with pytest.raises(StorageFullError):
        migrate(Layout(tmp_path, "boot"), {1: failing})
    assert (tmp_path / "migrating").exists()
    again: list[bytes | None] = []

    def step(layout: Layout) -> None:
        changed(
            layout.root, lambda index, batch: again.append(batch.get(index.table("t"), b"half"))
        )

    migrate(Layout(tmp_path, "boot"), {1: step})
    assert again == [None]
    assert not (tmp_path / "migrating").exists()


@pytest.mark.crash
async def test_r26_a_crash_at_any_step_is_followed_by_a_migration_that_is_whole(
    tmp_path: Path,
) -> None:
    template = tmp_path / "template"
    await older(template)
    died, number = True, 0
    for number in range(1, 100):
        path = tmp_path / str(number)
        _copy(template, path)
        died = _dies_at(number, path)
        async with open_store(path) as store:
            assert (path / "VERSION").read_text() == f"{VERSION}\n"
            assert await store.blobs.read(digest_of(DATA), 0, 1 << 20) == DATA
            stream = store.streams.find(OTHER)
            assert stream is not None
            assert await stream.read(1000, 100) is None
            assert stream.present() == SpanSet()
        assert not list(path.glob("backups/*.part"))
        assert not (path / "index.part").exists()
        if not died:
            break
    assert not died
    assert number > 8


def _copy(source: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(parents=True)
        elif path.name not in {"ballast", "lock.mdb"}:
            place.write_bytes(path.read_bytes())


def _dies_at(number: int, path: Path) -> bool:
    """Migrate in a process that is killed at a step of what it does to the disk."""
    pid = os.fork()
    if not pid:
        left = [number]

        def deadly(owner: object, name: str) -> None:
            step = getattr(owner, name)

            def doing(*arguments: object, **options: object) -> object:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*arguments, **options)

            setattr(owner, name, doing)

        for owner, name in (
            (os, "fsync"),
            (Path, "rename"),
            (Path, "unlink"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
            (fcntl, "ioctl"),
            (Environment, "apply"),
        ):
            deadly(owner, name)
        migrate(Layout(path, "boot"))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
