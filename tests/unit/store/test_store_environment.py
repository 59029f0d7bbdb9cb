"""Environments: checked records, transactions, room on a full disk."""

import threading
from pathlib import Path

import pytest

from cafs.errors import StorageError, StorageFullError
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch, BrokenEnvironmentError, after


def no_room() -> bool:
    return False


def opened(path: Path, *, version: int = 1, synced: bool = False) -> Environment:
    path.mkdir(exist_ok=True)
    return Environment(path, {"t": version, "u": 1}, synced=synced, make_room=no_room)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return opened(tmp_path / "env")


def fill(environment: Environment, *keys: bytes) -> None:
    table = environment.table("t")

    def change(batch: Batch) -> None:
        for key in keys:
            batch.put(table, key, b"v" + key)

    environment.apply(change)


def test_a_change_that_raises_changes_nothing(environment: Environment) -> None:
    table = environment.table("t")

    def change(batch: Batch) -> None:
        batch.put(table, b"a", b"1")
        raise ValueError

    with pytest.raises(ValueError):
        environment.apply(change)
    assert environment.get(table, b"a") is None


def test_a_batch_reads_its_own_writes(environment: Environment) -> None:
    table = environment.table("t")

    def change(batch: Batch) -> bytes | None:
        batch.put(table, b"a", b"1")
        return batch.get(table, b"a")

    assert environment.apply(change) == b"1"


@pytest.mark.parametrize(
    ("key", "expected"),
    [(b"a", None), (b"b", b"b"), (b"c", b"b"), (b"d", b"d"), (b"zz", b"f"), (b"e\xff", b"d")],
)
def test_floor_is_the_greatest_key_not_above(
    environment: Environment, key: bytes, expected: bytes | None
) -> None:
    fill(environment, b"b", b"d", b"f")
    with environment.read() as snapshot:
        found = snapshot.floor(environment.table("t"), key)
    assert found == (None if expected is None else (expected, b"v" + expected))


def test_floor_of_an_empty_table_is_none(environment: Environment) -> None:
    with environment.read() as snapshot:
        assert snapshot.floor(environment.table("t"), b"x") is None


def test_scan_is_half_open_and_ascending(environment: Environment) -> None:
    fill(environment, b"d", b"a", b"c", b"b")
    with environment.read() as snapshot:
        keys = [key for key, _ in snapshot.scan(environment.table("t"), b"b", b"d")]
    assert keys == [b"b", b"c"]


def test_clear_removes_no_more_than_its_limit_and_no_other(environment: Environment) -> None:
    table = environment.table("t")
    fill(environment, b"a", b"b1", b"b2", b"b3", b"c")
    assert environment.apply(lambda batch: batch.clear(table, b"b", after(b"b"), 2)) == 2
    assert environment.apply(lambda batch: batch.clear(table, b"b", after(b"b"), 2)) == 1
    with environment.read() as snapshot:
        assert [key for key, _ in snapshot.scan(table, b"", b"z")] == [b"a", b"c"]


def test_clear_to_the_end_of_the_table(environment: Environment) -> None:
    table = environment.table("t")
    fill(environment, b"a", b"b")
    assert environment.apply(lambda batch: batch.clear(table, b"", b"\xff", 10)) == 2


@pytest.mark.parametrize("prefix", [b"a", b"a\xff", b"\x00", b"\xff\xff", b"a\xff\xff"])
def test_after_is_behind_all_that_begin_with_the_prefix(prefix: bytes) -> None:
    assert prefix < prefix + b"\xff" * 200 < after(prefix)


@pytest.mark.expects_log("store.record.broken table=t")
@pytest.mark.parametrize("garbage", [b"", b"abc", b"\0\0\0\0v", b"garbage that is longer"])
def test_garbage_reads_as_absent_and_is_logged(
    environment: Environment, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    table = environment.table("t")
    fill(environment, b"a", b"b", b"c")

    def spoil(batch: Batch) -> None:
        batch._transaction.put(b"b", garbage, db=table.handle)

    environment.apply(spoil)
    with environment.read() as snapshot:
        assert snapshot.get(table, b"b") is None
        assert snapshot.floor(table, b"b") is None
        assert [key for key, _ in snapshot.scan(table, b"a", b"z")] == [b"a", b"c"]
    assert "table=t key=62" in caplog.text


@pytest.mark.expects_log("store.record.broken table=t")
def test_a_record_under_another_key_reads_as_absent(environment: Environment) -> None:
    table = environment.table("t")
    moved = table.seal(b"a", b"1")
    environment.apply(lambda batch: batch._transaction.put(b"b", moved, db=table.handle))
    assert environment.get(table, b"b") is None


@pytest.mark.expects_log("store.record.broken table=t")
def test_records_of_another_version_read_as_absent(tmp_path: Path) -> None:
    first = opened(tmp_path / "env", version=1)
    fill(first, b"a")
    first.close()
    second = opened(tmp_path / "env", version=2)
    assert second.get(second.table("t"), b"a") is None


def test_an_environment_is_opened_once_in_a_process(environment: Environment) -> None:
    with pytest.raises(StorageError, match="already open"):
        opened(environment.path)


def test_a_file_that_is_no_environment_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.mkdir()
    (path / "data.mdb").write_bytes(b"this is not LMDB" * 1000)
    with pytest.raises(BrokenEnvironmentError):
        opened(path)


def test_threads_take_turns_to_write(environment: Environment) -> None:
    table = environment.table("t")

    def increment() -> None:
        def change(batch: Batch) -> None:
            batch.put(table, b"n", b"%d" % (int(batch.get(table, b"n") or b"0") + 1))

        for _ in range(50):
            environment.apply(change)

    threads = [threading.Thread(target=increment) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert environment.get(table, b"n") == b"400"


class FullDisk:
    """A disk that is full until the ballast is gone."""

    def __init__(self, *, ballast: bool) -> None:
        self.ballast = ballast
        self.full = True

    def make_room(self) -> bool:
        had, self.ballast = self.ballast, False
        self.full = not had
        return had

    def change(self, batch: Batch) -> str:
        if self.full:
            raise StorageFullError("put: no space", hint="free space")
        return "done"


def test_r_s5_removing_from_a_full_disk_takes_the_ballast(tmp_path: Path) -> None:
    disk = FullDisk(ballast=True)
    environment = Environment(tmp_path, {"t": 1}, synced=False, make_room=disk.make_room)
    with pytest.raises(StorageFullError):
        environment.apply(disk.change)
    assert disk.ballast
    assert environment.apply(disk.change, urgent=True) == "done"


def test_what_is_urgent_is_tried_again_though_another_process_took_the_ballast(
    tmp_path: Path,
) -> None:
    """It went between our failure and our look: there is room, and nothing more to let go of."""
    disk = FullDisk(ballast=True)

    def too_late() -> bool:
        disk.make_room()
        return False

    environment = Environment(tmp_path, {"t": 1}, synced=False, make_room=too_late)
    assert environment.apply(disk.change, urgent=True) == "done"


def test_a_full_disk_without_ballast_is_an_error(tmp_path: Path) -> None:
    disk = FullDisk(ballast=False)
    environment = Environment(tmp_path, {"t": 1}, synced=False, make_room=disk.make_room)
    with pytest.raises(StorageFullError) as caught:
        environment.apply(disk.change, urgent=True)
    assert "free space" in caught.value.hint


async def test_commit_runs_in_a_thread(environment: Environment) -> None:
    assert await environment.commit(lambda batch: threading.current_thread()) is not (
        threading.current_thread()
    )
