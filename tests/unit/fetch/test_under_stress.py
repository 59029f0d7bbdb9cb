"""Readers that come and go while the origin misbehaves: every byte right, hardly any twice."""

import random
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from cafs.errors import CafsError
from cafs.fetch.interfaces import Content, Patience, Priority
from cafs.model.digest import Digest
from cafs.model.span import Span
from cafs.testing.bodies import Generated
from cafs.testing.faults import Drop, Latency, Status
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all

MIB = 1 << 20
SIZE = 24 * MIB


async def restless(content: Content, origin: Origin, path: str, seed: int) -> int:
    """Read here and there, losing patience now and then; how many reads came through."""
    dice = random.Random(seed)
    done = 0
    for _ in range(12):
        start = dice.randrange(SIZE)
        length = dice.choice([1, 4096, 131_072, MIB])
        priority = dice.choice([Priority.DEMAND, Priority.DEMAND, Priority.PREFETCH])
        with trio.move_on_after(dice.choice([0.001, 0.01, 0.05, 10.0])):
            data = await content.read(start, length, Patience(10.0, priority))
            assert data == origin.expected(path, Span(start, min(SIZE, start + length)))
            done += 1
    return done


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pinned", [False, True])
async def test_readers_that_come_and_go_get_the_right_bytes(
    rig: Rig, origin: Origin, seed: int, *, pinned: bool
) -> None:
    path = "/restless"
    url = origin.put(path, Generated(SIZE, seed=seed))
    digest = Digest.parse("sha256:" + Generated(SIZE, seed=seed).sha256())
    content = await (rig.pinned(digest, SIZE, url) if pinned else rig.located(url))
    origin.fault(
        path,
        Drop(after_bytes=300_000, skip=1, times=2),
        Status(503, skip=2, times=2),
        Latency(0.02, times=6),
        Drop(after_bytes=2 * MIB, skip=8, times=2, reset=True),
    )
    through = 0

    async def reader(number: int) -> None:
        nonlocal through
        done = await restless(content, origin, path, 100 * seed + number)
        through += done

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(reader, number)
        assert await read_all(content) == origin.expected(path)
    assert through > 10
    assert not [one for one in rig.fetcher.inflight() if one.priority is Priority.DEMAND]


@given(st.lists(st.tuples(st.integers(0, 3 * MIB), st.integers(0, MIB)), max_size=8))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_reads_in_any_order_are_those_of_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, origin: Origin, reads: list[tuple[int, int]]
) -> None:
    body = Generated(3 * MIB + 77, seed=5)
    url = origin.put("/any", body)
    async with open_rig(origin, tmp_path_factory.mktemp("any") / "store") as rig:
        content = await rig.located(url)
        for offset, length in reads:
            expected = body.read(min(offset, body.size), min(length, max(0, body.size - offset)))
            assert await content.read(offset, length, USUAL) == expected
        assert rig.metrics["fetch.bytes"] <= body.size + 1


async def test_a_pinned_read_cancelled_at_any_moment_leaves_what_can_be_continued(
    origin: Origin, tmp_path: Path
) -> None:
    size = 6 * MIB
    url = origin.put("/cut", Generated(size, seed=9))
    digest = Digest.parse("sha256:" + Generated(size, seed=9).sha256())
    total = 0
    data = b""
    step = 0
    while not data:
        step += 1
        async with open_rig(origin, tmp_path / "store") as rig:
            content = await rig.pinned(digest, size, url)
            with trio.move_on_after(0.002 * step) as scope:
                data = await content.read(size - 9, 9, USUAL)
            total += rig.metrics["fetch.bytes"]
            assert scope.cancelled_caught is not bool(data)
            assert content.digest() in {None, digest}
    assert data == origin.expected("/cut", Span(size - 9, size))
    assert step > 1
    assert total <= 2 * size


async def test_a_failed_leader_fails_nobody_who_can_still_wait(rig: Rig, origin: Origin) -> None:
    url = origin.put("/leader", Generated(4 * MIB, seed=1))
    content = await rig.located(url)
    origin.fault("/leader", Status(503, times=3))
    outcomes: list[str] = []

    async def reader(deadline_s: float) -> None:
        try:
            await content.read(0, 1000, Patience(deadline_s))
        except CafsError as error:
            outcomes.append(error.code)
        else:
            outcomes.append("read")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader, 0.001)
        nursery.start_soon(reader, 20.0)
        nursery.start_soon(reader, 20.0)
    assert outcomes.count("read") >= 2
