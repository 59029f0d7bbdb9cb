"""Collecting and dropping, killed at each of their steps: what is left is whole, or goes next."""

import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.store.space.findings import Terms
from cafs.store.space.measuring import Owner
from cafs.store.space.purging import Outcome
from cafs.store.store import Store, open_store
from cafs.store.tables.records import hashed
from tests.crash.store_child import Deadly
from tests.unit.store.keeping_world import (
    HOUR_NS,
    WEEK_NS,
    archive_ref,
    body,
    everything,
    file_ref,
    planted,
    rest,
    stream,
)

KEY = StreamKey("ab" * 32)
KEPT = body("kept")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A store with one of each kind of garbage, and a pinned ref."""

    async def fill() -> None:
        async with open_store(tmp_path / "prepared", boot_id="boot") as store:
            await file_ref(store, "kept", KEPT)
            await store.pins.pin_ref("kept", "kept")
            await archive_ref(store, "old", body("raw"), body("decoded"))
            await planted(store, StreamKey("cd" * 32), body("of no ref"))
            await stream(store, KEY, body("partial"), 1 << 20)
            writer = await store.blobs.create()
            await writer.write(b"left")
            await writer.close()
            (store.path / "quarantine" / "bad").write_bytes(b"bad")
            (store.path / "quarantine" / "bad.json").write_bytes(b"{}")

    trio.run(fill)
    return tmp_path / "prepared"


def killed(path: Path, number: int, work: Callable[[Store], Awaitable[None]]) -> bool:
    """Do the work in a process that dies at a step of it; whether it came so far."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            trio.run(_work, path, number, work)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


async def _work(path: Path, number: int, work: Callable[[Store], Awaitable[None]]) -> None:
    async with open_store(path, boot_id="boot") as store:
        Deadly(number).lurk()
        await work(store)
        os._exit(0)


def sweep(
    tmp_path: Path, prepared: Path, work: Callable[[Store], Awaitable[None]]
) -> Iterator[Path]:
    """Copies of the store in which the work was killed: at its first step, its second, …"""
    for number in range(1, 1000):
        path = tmp_path / f"killed-{number}"
        shutil.copytree(prepared, path, ignore=shutil.ignore_patterns("ballast", "lock.mdb"))
        if not killed(path, number, work):
            assert number > 10, "it must have steps"
            return
        yield path
        shutil.rmtree(path)
    raise AssertionError("it does not end")


def terms() -> Terms:
    return Terms(unused=True, now_ns=time.time_ns() + WEEK_NS + HOUR_NS)


async def collect(store: Store) -> None:
    told: list[Outcome] = []
    await store.housekeeping.collect(terms(), told.extend)


def test_r36_killed_at_any_step_of_a_collection_the_next_one_finishes_it(
    tmp_path: Path, prepared: Path
) -> None:
    async def check(path: Path) -> None:
        async with open_store(path, boot_id="boot") as store:
            assert await store.blobs.read(digest_of(KEPT), 0, len(KEPT)) == KEPT
            for digest in store.blobs.digests():
                known = store.blobs.stat(digest)
                if known is not None:
                    data = await store.blobs.read(digest, 0, known.size)
                    assert digest_of(data) == digest
            await rest(store)
            await collect(store)
            told: list[Outcome] = []
            await store.housekeeping.collect(terms(), told.extend)
            assert told == []
            assert [*everything(store).values()] == [KEPT]
            assert list(store.trees.all()) == []
            assert store.trees.left() == []
            assert store.uploads.all() == []
            assert store.references.latest("old") is None
            assert store.room.usage().total == len(KEPT) + -len(KEPT) % 4096
            assert store.room.recount() == 0

    for path in sweep(tmp_path, prepared, collect):
        trio.run(check, path)


def test_killed_at_any_step_of_a_removal_the_next_one_finishes_it(
    tmp_path: Path, prepared: Path
) -> None:
    async def drop(store: Store) -> None:
        await trio.to_thread.run_sync(_drop, store)

    async def check(path: Path) -> None:
        async with open_store(path, boot_id="boot") as store:
            _drop(store)
            assert store.references.latest("old") is None
            assert store.streams.find(KEY) is not None
            left = everything(store)
            assert body("raw") not in left.values()
            assert body("decoded") not in left.values()
            assert [tree.streams[0].raw for tree in store.trees.all()] == ["cd" * 32]

    for path in sweep(tmp_path, prepared, drop):
        trio.run(check, path)


def _drop(store: Store) -> None:
    owner = Owner("old", hashed("old"), store.references.latest("old"))
    store.dropper.drop([owner], [], force=False)
