"""Work of our own is progress: who waits for a pass, or for a check, waits while it is done."""

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from cafs import labour
from cafs.errors import DeadlineError
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.flights.sealing import Seal
from cafs.fetch.flights.work import Work
from cafs.fetch.interfaces import Content, Patience
from cafs.fetch.opening import open_fetcher
from cafs.fetch.passes import first_pass, tar_pass
from cafs.labour import Threads
from cafs.metrics import Metrics
from cafs.model.digest import EMPTY, Digest, Hasher, digest_of
from cafs.model.member import Member
from cafs.model.record import TreeRecord
from cafs.model.span import Span
from cafs.store.blobs import admission
from cafs.store.db.transactions import Batch
from cafs.store.streams.witness import Seen
from cafs.store.tables.tree_tables import TreeTables
from cafs.store.trees import member_rows, tree_writing
from cafs.store.trees.planting import Planter
from cafs.testing.faults import Stall
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, until

P = ParamSpec("P")
T = TypeVar("T")
DEADLINE = Patience(60.0)
STEP_S = 36.0
"""Two steps take longer than the deadline; one alone is far from it."""
STEPS = 8


@pytest.fixture
def clock(mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """The real clock, which jumps when it is told to; and each step of work is told."""
    monkeypatch.setattr(labour, "_OFTEN_S", 0.0)
    mock_clock.rate = 1.0
    return mock_clock


def slowly(clock: MockClock, work: Callable[P, T], every: int = 1) -> Callable[P, T]:
    """A step, in a thread, that takes long each time, or each so many times."""
    calls = 0

    def step(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal calls
        calls += 1
        if not calls % every:
            trio.from_thread.run_sync(clock.jump, STEP_S)
        return work(*args, **kwargs)

    return step


def archive(count: int, size: int = 8) -> bytes:
    """A tar.gz of so many small files, and few bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        for number in range(count):
            member = tarfile.TarInfo(f"file{number}")
            member.size = size
            opened.addfile(member, io.BytesIO(number.to_bytes(8, "big")))
    return gzip.compress(out.getvalue(), 1)


async def here(rig: Rig, origin: Origin, path: str, count: int) -> Content:
    """An archive of which all bytes have come; nothing was made of it yet."""
    raw = await rig.located(origin.put(path, archive(count)))
    await raw.ensure(Span(0, raw.size), USUAL)
    return raw


async def overdue(
    wait: Callable[[], Awaitable[object]], holds: Callable[[], bool], clock: MockClock
) -> str:
    """What is told to who waits, when the deadline passes once something holds."""

    async def jump() -> None:
        await until(holds)
        await wait_all_tasks_blocked(0.05)
        clock.jump(61.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(jump)
        with pytest.raises(DeadlineError) as caught:
            await wait()
    return caught.value.line


def works(rig: Rig) -> list[Work[TreeRecord]]:
    """The passes under way."""
    return list(rig.fetcher._planting._passes._works.values())


def is_told(makes: Work[TreeRecord], waits: Work[TreeRecord], since: float) -> bool:
    """Whether who waits has heard since then of who goes on."""
    makes.beat()
    return waits.moved >= since


async def test_unpacking_is_progress_when_all_bytes_are_here(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await here(rig, origin, "/x.tar.gz", 10 * STEPS)
    monkeypatch.setattr(tar_pass, "_LOOK", 4)
    monkeypatch.setattr(Planter, "plant", slowly(clock, Planter.plant, every=10))
    record = await rig.plant(raw, DEADLINE)
    assert record.count == 10 * STEPS + 1


async def test_writing_entries_is_progress(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await here(rig, origin, "/x.tar.gz", 10 * STEPS)
    writer = tree_writing.TreeWriter
    monkeypatch.setattr(tree_writing, "BATCH", 10)
    monkeypatch.setattr(writer, "_write", slowly(clock, writer._write))
    record = await rig.plant(raw, DEADLINE)
    assert record.count == 10 * STEPS + 1


async def test_sorting_members_is_progress(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = await here(rig, origin, "/x.tar.gz", 10 * STEPS)
    monkeypatch.setattr(member_rows, "_TOGETHER", 10)
    monkeypatch.setattr(member_rows, "_put", slowly(clock, member_rows._put))
    await rig.plant(raw, DEADLINE)


async def test_checking_a_whole_is_progress(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Hasher):
        @override
        def update(self, data: bytes | bytearray | memoryview) -> None:
            trio.from_thread.run_sync(clock.jump, STEP_S)
            super().update(data)

    body = bytes(STEPS << 16)
    monkeypatch.setattr(admission, "_CHUNK", 1 << 16)
    monkeypatch.setattr(admission, "Hasher", Slow)
    url = origin.put("/x", body)
    raw = await rig.pinned(digest_of(body), len(body), url, ranges=False)
    await raw.ensure(Span(0, len(body)), DEADLINE)
    assert raw.digest() == digest_of(body)


async def test_to_wait_for_a_thread_is_progress_while_others_work_in_them(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    raws = [await here(rig, origin, f"/{name}.tar.gz", 10 * STEPS) for name in "ab"]
    threads, go = Threads(1), threading.Event()
    slow = slowly(clock, Planter.plant, every=10)

    def plant(planter: Planter, member: Member, sha256: bytes = b"") -> int | None:
        go.wait(60)
        return slow(planter, member, sha256)

    monkeypatch.setattr(rig.fetcher._planting, "_threads", threads)
    monkeypatch.setattr(tar_pass, "_LOOK", 4)
    monkeypatch.setattr(Planter, "plant", plant)
    async with trio.open_nursery() as nursery:
        for raw in raws:
            nursery.start_soon(rig.plant, raw, DEADLINE)
        await until(lambda: threads.limiter.statistics().tasks_waiting == 1)
        go.set()


async def test_unpacking_that_hangs_ends_by_the_deadline_and_says_so(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, go = threading.Event(), threading.Event()

    def hang(_: Planter) -> None:
        hangs.set()
        go.wait(60)

    raw = await here(rig, origin, "/x.tar.gz", 10)
    monkeypatch.setattr(Planter, "finish", hang)
    line = await overdue(lambda: rig.plant(raw, DEADLINE), hangs.is_set, clock)
    go.set()
    assert "unpacking what has come got no further for 60.0 s" in line


async def test_a_pass_that_waits_for_its_source_says_that_nothing_arrived(
    rig: Rig, origin: Origin, clock: MockClock
) -> None:
    raw = await rig.located(origin.put("/x.tar.gz", archive(20_000)))
    origin.fault("/x.tar.gz", Stall(after_bytes=10_000))
    before = rig.metrics["fetch.bytes"]
    line = await overdue(
        lambda: rig.plant(raw, DEADLINE), lambda: rig.metrics["fetch.bytes"] > before, clock
    )
    origin.release()
    assert "nothing arrived for 60.0 s" in line


async def test_checking_that_hangs_ends_by_the_deadline_and_says_so(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, go, hash_file = threading.Event(), threading.Event(), admission.hash_file
    body = bytes(1 << 20)

    def hang(path: Path, claims: Sequence[Digest]) -> Hasher:
        hangs.set()
        go.wait(60)
        return hash_file(path, claims)

    monkeypatch.setattr(admission, "hash_file", hang)
    raw = await rig.pinned(digest_of(body), len(body), origin.put("/x", body), ranges=False)
    whole = Span(0, len(body))
    line = await overdue(lambda: raw.ensure(whole, DEADLINE), hangs.is_set, clock)
    go.set()
    assert "checking all that has come got no further for 60.0 s" in line


async def test_who_joins_a_check_that_nobody_waited_for_is_told_of_it_when_it_hangs(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, go, close = trio.Event(), trio.Event(), Seal.close

    async def hang(self: Seal, seen: Seen | None, size: int) -> Digest:
        hangs.set()
        await go.wait()
        return await close(self, seen, size)

    monkeypatch.setattr(Seal, "close", hang)
    body = bytes(5 << 20)
    raw = await rig.pinned(digest_of(body), len(body), origin.put("/x", body))
    assert isinstance(raw, GatedContent)
    ranges, whole = raw.ranges(), Span(0, len(body))
    assert ranges is not None
    await ranges.ensure(whole, DEADLINE)
    await until(hangs.is_set)
    line = await overdue(lambda: raw.ensure(whole, DEADLINE), hangs.is_set, clock)
    go.set()
    assert "checking all that has come got no further for 60.0 s" in line


async def test_a_pass_of_another_fetcher_or_process_is_progress(
    rig: Rig, origin: Origin, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They know of each other only by the store."""
    begun, go = threading.Event(), threading.Event()

    def hang(_: Planter) -> None:
        begun.set()
        go.wait(60)

    body = archive(10)
    url, digest = origin.put("/x.tar.gz", body), digest_of(body)
    raw = await rig.pinned(digest, len(body), url)
    monkeypatch.setattr(Planter, "finish", hang)
    async with (
        open_fetcher(rig.store, Metrics(), budget=None, mount=None) as fetcher,
        trio.open_nursery() as nursery,
    ):
        other = replace(rig, fetcher=fetcher)
        theirs = await other.pinned(digest, len(body), url)
        nursery.start_soon(rig.plant, raw, Patience(None))
        await until(begun.is_set)
        nursery.start_soon(other.plant, theirs, DEADLINE)
        await until(lambda: bool(works(other)))
        [makes], [waits] = works(rig), works(other)
        for _ in range(4):
            clock.jump(STEP_S)
            await until(partial(is_told, makes, waits, trio.current_time()), 20)
        go.set()


async def test_a_disk_that_stalls_the_signs_of_a_pass_holds_up_nobody(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the trio thread, nor the end of the pass, nor who makes another one then."""
    begun, go, where = threading.Event(), threading.Event(), list[threading.Thread]()
    trios = threading.current_thread()

    def stall(_descriptor: int, *, ns: tuple[int, int]) -> None:
        where.append(threading.current_thread())
        begun.set()
        if where[-1] is not trios:
            go.wait(60)

    raw = await here(rig, origin, "/x.tar.gz", 10)
    monkeypatch.setattr(first_pass, "_POLL_S", 0.0)
    monkeypatch.setattr(os, "utime", stall)
    try:
        record = await rig.plant(raw, DEADLINE)
        await until(begun.is_set)
        assert len(where) == 1
        assert trios not in where
        stream = await rig.store.streams.open(first_pass._pass_of(record.streams[0].raw), None)
        lock = stream.try_lock(Span(0, 1))
        assert lock is not None
        lock.release()
    finally:
        go.set()


async def test_members_are_written_some_at_a_time_and_those_of_one_content_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants to write meanwhile would wait for all: a million empty files were one write."""
    together: list[int] = []
    put = member_rows._put

    def counted(tables: TreeTables, tree: int, rows: list[bytes], batch: Batch) -> None:
        together.append(len(rows))
        put(tables, tree, rows, batch)

    monkeypatch.setattr(member_rows, "_TOGETHER", 8)
    monkeypatch.setattr(member_rows, "_put", counted)
    rows = member_rows.MemberRows()
    for number in range(50):
        rows.add(EMPTY.raw, number)
        rows.add(EMPTY.raw[:1] + number.to_bytes(31, "little"), number)
    rows.write(rig.store.members._tables, 7)
    assert max(together) == 8
    assert sum(together) == 51
