"""Walking the pages of records: what is right is found right, also while others write."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
import trio

from cafs.errors import StorageError
from cafs.model.identity import StreamKey, TreeIdentity
from cafs.model.member import ROOT, Entry, Kind
from cafs.store.db.btree import BrokenRecord, Walk
from cafs.store.db.btree_pages import DamageError, Meta, metas
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, BrokenEnvironmentError, is_marked
from cafs.store.health.opening import INDEX
from cafs.store.health.redress import redress
from cafs.store.health.walking import examine, walk
from cafs.store.store import Store, open_store
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.trees.trees import Trees

pytestmark = pytest.mark.expects_log("store.(walk|record|index).*")

TABLES = {"t": 1, "u": 1}
PAGE = 4096


def opened(path: Path) -> Environment:
    path.mkdir(exist_ok=True)
    return Environment(path, TABLES, synced=False, make_room=lambda: False)


def fill(environment: Environment, count: int, *, size: int = 20) -> None:
    table = environment.table("t")

    def change(batch: Batch) -> None:
        for number in range(count):
            batch.put(table, b"key %06d" % number, bytes([number % 256]) * size)

    environment.apply(change)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An environment with trees of several depths, large values, and pages that are free."""
    environment = opened(tmp_path / "env")
    fill(environment, 3000)
    fill(environment, 20, size=10_000)
    environment.apply(lambda batch: batch.clear(environment.table("t"), b"key 0010", b"z", 900))
    environment.apply(lambda batch: batch.put(environment.table("u"), b"a", b"b"))
    environment.close()
    return environment.path


def latest(descriptor: int) -> Meta:
    return max(metas(descriptor), key=lambda meta: meta.number)


def walked(path: Path) -> tuple[dict[str, int], list[BrokenRecord]]:
    descriptor = os.open(path / "data.mdb", os.O_RDONLY)
    try:
        one = Walk(descriptor, latest(descriptor), TABLES)
        return one.run(), one.broken
    finally:
        os.close(descriptor)


def test_every_page_of_a_right_file_is_met_or_free(path: Path) -> None:
    descriptor = os.open(path / "data.mdb", os.O_RDONLY)
    one = Walk(descriptor, latest(descriptor), TABLES)
    assert one.run() == {"t": 2100, "u": 1}
    assert one.broken == []
    assert all(one._seen)
    os.close(descriptor)


def test_a_short_value_in_the_place_of_a_long_one_is_right(tmp_path: Path) -> None:
    environment = opened(tmp_path / "env")
    table = environment.table("t")

    def change(batch: Batch) -> None:
        batch.put(table, b"a", bytes(50_000))
        batch.put(table, b"a", bytes(10))

    environment.apply(change)
    environment.close()
    assert walked(environment.path) == ({"t": 1, "u": 0}, [])


def test_pages_that_were_free_before_they_were_written_are_not_missed(tmp_path: Path) -> None:
    """The file ends before them; who opens it must not take it for one that was cut short."""
    environment = opened(tmp_path / "env")
    table = environment.table("t")

    def change(batch: Batch) -> None:
        batch.put(table, b"a", bytes(500_000))
        batch.delete(table, b"a")

    for _ in range(50):
        fill(environment, 20)
        environment.apply(lambda batch: batch.clear(table, b"", b"z", 20))
        environment.apply(change)
        descriptor = os.open(tmp_path / "env" / "data.mdb", os.O_RDONLY)
        short = (latest(descriptor).last + 1) * PAGE > os.fstat(descriptor).st_size
        os.close(descriptor)
        if short:
            break
    else:
        pytest.fail("LMDB writes all pages by now")
    environment.close()
    assert walked(environment.path) == ({"t": 0, "u": 0}, [])
    again = opened(tmp_path / "env")
    assert again.get(again.table("t"), b"a") is None
    again.close()


def test_an_empty_environment_is_right(tmp_path: Path) -> None:
    environment = opened(tmp_path / "env")
    assert walked(environment.path) == ({"t": 0, "u": 0}, [])
    environment.close()


@pytest.mark.parametrize(
    ("offset", "format_", "value", "said"),
    [
        (16, "<I", 7, "no first page"),
        (16 + 4, "<I", 2, "no first page"),
        (16 + 24, "<I", 4097, "pages are said"),
        (16 + 24 + 96 + 8, "<Q", 77, "commits in a row"),
    ],
)
def test_a_first_page_that_is_wrong_is_damage(
    path: Path, offset: int, format_: str, value: int, said: str
) -> None:
    with (path / "data.mdb").open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(format_, value))
    descriptor = os.open(path / "data.mdb", os.O_RDONLY)
    with pytest.raises(DamageError, match=said):
        metas(descriptor)
    os.close(descriptor)


def test_a_file_that_was_cut_short_is_damage(path: Path) -> None:
    os.truncate(path / "data.mdb", (path / "data.mdb").stat().st_size // 2)
    with pytest.raises(DamageError, match="the file ends before it does"):
        walked(path)


def test_broken_records_are_told_with_their_neighbours(path: Path) -> None:
    environment = lmdb.open(str(path), max_dbs=4)
    table = environment.open_db(b"t")
    with environment.begin(write=True) as transaction:
        for number in (0, 700, 701, 2999):
            transaction.put(b"key %06d" % number, b"garbage", db=table)
    environment.close()
    counts, broken = walked(path)
    assert counts["t"] == 2100
    assert broken == [
        BrokenRecord("t", b"", b"key 000000", b"key 000001"),
        BrokenRecord("t", b"key 000699", b"key 000700", b"key 000702"),
        BrokenRecord("t", b"key 000699", b"key 000701", b"key 000702"),
        BrokenRecord("t", b"key 002998", b"key 002999", None),
    ]


def test_who_asked_and_was_killed_is_told_nothing(path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cafs.store.health.walker", str(path)],
        input=b"{}",
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_too_many_broken_records_are_damage(tmp_path: Path) -> None:
    environment = opened(tmp_path / "env")
    fill(environment, 3000)
    environment.close()
    descriptor = os.open(tmp_path / "env" / "data.mdb", os.O_RDONLY)
    one = Walk(descriptor, latest(descriptor), {"t": 2})
    with pytest.raises(DamageError, match="more than 1000"):
        one.run()
    os.close(descriptor)


async def test_damage_is_marked_and_nobody_opens_it(path: Path) -> None:
    with (path / "data.mdb").open("r+b") as file:
        for page in range(2, 30):
            file.seek(page * PAGE + 10)
            file.write(b"\xff\xff")
    found = await walk(path, TABLES, lambda _done, _of: None)
    assert found.damage
    assert is_marked(path)
    again = await walk(path, TABLES, lambda _done, _of: None)
    assert again.damage == "it was found damaged before"
    with pytest.raises(BrokenEnvironmentError, match="damaged: they were found so before"):
        opened(path)


async def test_what_cannot_be_opened_is_no_damage(path: Path) -> None:
    (path / "lock.mdb").unlink()
    (path / "lock.mdb").mkdir()
    with pytest.raises(StorageError, match="cannot be examined"):
        await walk(path, TABLES, lambda _done, _of: None)
    assert not is_marked(path)


_WRITER = """
import sys, os, random
from pathlib import Path
from cafs.store.db.environment import Environment
e = Environment(Path(sys.argv[1]), {"t": 1, "u": 1}, synced=False, make_room=lambda: False)
t = e.table("t")
print("ready", flush=True)
n = 0
while True:
    n += 1
    def change(batch):
        for _ in range(50):
            key = b"key %06d" % random.randrange(5000)
            if n % 3: batch.put(t, key, os.urandom(random.choice([5, 50, 5000])))
            else: batch.delete(t, key)
    e.apply(change)
"""


def test_a_walk_is_right_while_another_process_writes(tmp_path: Path) -> None:
    environment = opened(tmp_path / "env")
    fill(environment, 3000)
    environment.close()
    command = [sys.executable, "-c", _WRITER, str(environment.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        try:
            for _ in range(4):
                found = trio.run(walk, environment.path, TABLES, lambda _done, _of: None)
                assert (found.damage, found.broken) == ("", ())
                assert found.records > 1000
        finally:
            writer.kill()


async def test_a_store_in_use_is_examined(store: Store) -> None:
    await (await store.streams.open(StreamKey("ab" * 32), 10)).write(0, b"x" * 10)
    pages: list[tuple[int, int]] = []
    layout = store._layout
    for directory in (layout.index, layout.recent):
        found = await walk(directory, INDEX, lambda done, of: pages.append((done, of)))
        assert not found.damage
    assert pages
    assert all(0 < done <= of for done, of in pages)


async def test_examining_needs_the_store_to_be_usable(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        pass
    found = await examine(tmp_path, lambda _done, _of: None)
    assert [each.path.name.partition("-")[0] for each in found] == ["index", "recent"]
    assert all(not each.damage for each in found)
    (tmp_path / "VERSION").write_text("99\n")
    with pytest.raises(StorageError, match="newer"):
        await examine(tmp_path, lambda _done, _of: None)


def plant(index: Environment, digit: str) -> int:
    trees = Trees(TreeTables(index))
    with trees.writer(TreeIdentity(digit * 64)) as writer:
        writer.add(Entry(name=b"", parent=ROOT, kind=Kind.DIRECTORY, mode=0o755))
        for name in (b"one", b"two"):
            writer.add(Entry(name=name, parent=ROOT, kind=Kind.FILE, mode=0o644))
        return writer.publish((), None).number


async def test_a_broken_record_of_a_tree_has_the_tree_forgotten_and_no_other(
    store: Store,
) -> None:
    index = store.trees._index
    numbers = [plant(index, digit) for digit in "abc"]
    table = index.table("names")
    key = numbers[1].to_bytes(8, "big") + bytes(4) + b"one"
    index.apply(lambda batch: batch._transaction.put(key, b"garbage", db=table.handle))
    with pytest.raises(StorageError, match="names is damaged"):
        store.trees.child(numbers[1], ROOT, b"one")
    with pytest.raises(StorageError, match="names is damaged"):
        store.trees.children(numbers[1], ROOT, None, 10)
    found = await walk(store._layout.index, INDEX, lambda _done, _of: None)
    assert [(each.table, each.key) for each in found.broken] == [("names", key)]
    told = redress(index, found.broken)
    assert len(told) == 1
    assert store.trees.child(numbers[2], ROOT, b"one") == 1
    known = [store.trees.find(TreeIdentity(digit * 64)) is not None for digit in "abc"]
    assert known[1] is False
    assert known[2] is True
    assert store.trees.unpublished() >= {numbers[1]}
    assert redress(index, found.broken) == []


async def test_a_lost_counter_gives_no_number_twice(store: Store) -> None:
    index = store.trees._index
    first = plant(index, "a")
    table = index.table("counters")
    index.apply(lambda batch: batch._transaction.put(b"tree", b"garbage", db=table.handle))
    assert plant(index, "b") > first
    assert store.trees.find(TreeIdentity("a" * 64)) is not None
