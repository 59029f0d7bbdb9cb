"""Holds: who uses an item keeps it, across tasks, threads and processes, as long as he lives."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.model.span import Span
from cafs.store.holds.holds import GRAIN, Holds
from cafs.store.store import Store

ITEM = Item.stream(StreamKey("ab" * 32))
OTHER = Item.stream(StreamKey("cd" * 32))
_CHILD = """
import sys, trio
from pathlib import Path
from cafs.model.identity import StreamKey
from cafs.model.item import Item
from cafs.store.holds.holds import Holds

async def main():
    holds = Holds(Path(sys.argv[1]))
    async with holds.hold(Item.stream(StreamKey("ab" * 32))):
        print("held", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "held"


@pytest.fixture
async def holds(path: Path) -> Holds:
    return Holds(path)


@pytest.fixture
async def others(path: Path) -> Holds:
    """What another process would have: locks of a descriptor of its own."""
    return Holds(path)


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the item."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def claimed(holds: Holds, item: Item, span: Span | None = None) -> bool:
    with holds.claim([(item, span)]) as got:
        return got == [True]


async def test_what_is_held_is_held_for_all_and_cannot_be_claimed(
    holds: Holds, others: Holds
) -> None:
    async with holds.hold(ITEM):
        assert holds.held(ITEM)
        assert others.held(ITEM)
        assert not others.held(OTHER)
        assert not claimed(holds, ITEM)
        assert not claimed(others, ITEM)
        assert claimed(others, OTHER)
    assert not holds.held(ITEM)
    assert claimed(others, ITEM)


async def test_several_holds_of_one_process_are_counted(holds: Holds, others: Holds) -> None:
    async with holds.hold(ITEM):
        async with holds.hold(ITEM):
            pass
        with holds.hold_here(ITEM):
            pass
        assert others.held(ITEM)
    assert not others.held(ITEM)


async def test_parts_that_overlap_are_let_go_of_apart(holds: Holds, others: Holds) -> None:
    async with holds.hold(ITEM, Span(0, 3 * GRAIN)):
        async with holds.hold(ITEM, Span(2 * GRAIN, 5 * GRAIN)):
            assert others.held(ITEM, Span(4 * GRAIN, 4 * GRAIN + 1))
        assert not others.held(ITEM, Span(3 * GRAIN, 9 * GRAIN))
        assert others.held(ITEM, Span(2 * GRAIN, 9 * GRAIN))
        assert others.held(ITEM)
        assert claimed(others, ITEM, Span(3 * GRAIN, 4 * GRAIN))
        assert not claimed(others, ITEM, Span(2 * GRAIN, 4 * GRAIN))


async def test_what_lies_beyond_all_places_is_held_with_the_last(holds: Holds) -> None:
    async with holds.hold(ITEM, Span(1 << 50, (1 << 50) + 1)):
        assert holds.held(ITEM, Span(1 << 51, (1 << 51) + 1))
        assert not holds.held(ITEM, Span(0, 1 << 30))


async def test_who_begins_to_hold_what_is_being_removed_waits_for_that(
    holds: Holds, others: Holds
) -> None:
    events: list[str] = []

    async def hold() -> None:
        async with holds.hold(ITEM):
            events.append("held")

    async with trio.open_nursery() as nursery:
        with others.claim([(ITEM, None)]) as got:
            assert got == [True]
            nursery.start_soon(hold)
            await trio.testing.wait_all_tasks_blocked(0.05)
            events.append("removed")
    assert events == ["removed", "held"]


async def test_a_process_that_dies_holds_nothing(
    holds: Holds, holder: subprocess.Popen[str]
) -> None:
    assert holds.held(ITEM)
    assert not claimed(holds, ITEM)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not holds.held(ITEM)
    assert claimed(holds, ITEM)


async def test_a_blob_is_named_or_removed_by_one_at_a_time_whoever_holds_it(store: Store) -> None:
    digests = [digest_of(b"%d" % number) for number in range(3)]
    inside, entered = threading.Event(), threading.Event()

    def second() -> None:
        with store.holds.naming(reversed(digests[1:])):
            entered.set()

    def first() -> None:
        with store.holds.naming(digests[:2]):
            inside.set()
            with store.holds.naming(digests[2:]):  # another one is nobody's business
                assert not entered.wait(0.1)

    async with store.blobs.hold(digests[1]), trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, first)
        await trio.to_thread.run_sync(inside.wait)
        nursery.start_soon(trio.to_thread.run_sync, second)
    assert entered.is_set()
