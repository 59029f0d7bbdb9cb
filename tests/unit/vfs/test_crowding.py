"""However many wait for a dead source, there is room for everybody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from cafs.errors import CrowdedError
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Content, Source
from cafs.fetch.opening import open_fetcher
from cafs.metrics import Metrics
from cafs.model.identity import located_stream
from cafs.model.resolved import Part
from cafs.model.validator import Validator
from cafs.store.store import Store
from cafs.transport.interfaces import Request, Response, Transport
from cafs.vfs.crowding import PER_REF, Crowds, Request as Waiting
from tests.vfs_world import World, blob, running_world

MIB = 1 << 20
DEAD, OTHER = blob("dead"), blob("other")


class Silent(Transport):
    """A source that takes every request, and never answers."""

    @override
    async def open(self, request: Request) -> Response:
        await trio.sleep_forever()

    @override
    async def aclose(self) -> None:
        """Nothing is pooled."""


async def half_local(store: Store, fetcher: Fetcher, name: str) -> Content:
    """Content of which the first MiB is local, and the second will never come."""
    part = Part(
        media_type="application/x-test",
        size=2 * MIB,
        digest=None,
        urls=(f"http://{name}/",),
        validator=Validator(etag='"1"'),
        ranges=True,
    )
    stream = await store.streams.open(located_stream(part), part.size)
    await stream.write(0, bytes(MIB))
    return await fetcher.content(part, [Source(Silent(), part.urls[0])], name=name)


@asynccontextmanager
async def silent_world(path: Path) -> AsyncIterator[World]:
    """Two file refs that are half local."""
    async with (
        running_world(path, [DEAD, OTHER]) as world,
        open_fetcher(world.store, Metrics()) as fetcher,
    ):
        for spec in (DEAD, OTHER):
            world.refs.files[spec.name] = await half_local(world.store, fetcher, spec.name)
        yield world


async def inode_of(world: World, name: str) -> int:
    return (await world.walk(f"ref/{name}")).inode


async def test_one_more_than_may_wait_fails_at_once_and_local_bytes_are_read_all_the_same(
    tmp_path: Path,
) -> None:
    async with silent_world(tmp_path) as world, trio.open_nursery() as nursery:
        dead, other = await inode_of(world, "dead"), await inode_of(world, "other")
        read = world.filesystem.read
        for _ in range(PER_REF):
            nursery.start_soon(read, dead, MIB, 4096)
        await wait_all_tasks_blocked()
        with trio.fail_after(60), pytest.raises(CrowdedError, match="dead: 1024 requests wait"):
            await read(dead, MIB, 4096)
        assert "1024 requests" in (await world.text("ref/dead", "user.cafs.error") or "")
        assert await read(dead, MIB - 4096, 4096) == bytes(4096)
        assert (await world.filesystem.attributes(dead)).size == 2 * MIB
        # Those of another ref have a crowd of their own.
        with trio.move_on_after(0.1) as waited:
            await read(other, MIB, 4096)
        assert waited.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_a_place_that_becomes_free_is_taken_and_nobody_is_told_of_an_old_refusal(
    tmp_path: Path,
) -> None:
    async with silent_world(tmp_path) as world, trio.open_nursery() as nursery:
        dead = await inode_of(world, "dead")
        killed = trio.CancelScope()

        async def reader() -> None:
            with killed:
                await world.filesystem.read(dead, MIB, 4096)

        nursery.start_soon(reader)
        for _ in range(PER_REF - 1):
            nursery.start_soon(world.filesystem.read, dead, MIB, 4096)
        await wait_all_tasks_blocked()
        with pytest.raises(CrowdedError):
            await world.filesystem.read(dead, MIB, 4096)
        killed.cancel()
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.1) as waited:
            await world.filesystem.read(dead, MIB, 4096)
        assert waited.cancelled_caught
        nursery.cancel_scope.cancel()


def test_a_request_counts_once_from_its_first_wait_to_its_end() -> None:
    crowds = Crowds(per_ref=1)
    with Waiting(crowds, "k", "x", None) as patience, Waiting(crowds, "k", "x", None) as other:
        other.begin()
        with pytest.raises(CrowdedError, match="x: 1 requests"):
            patience.begin()
    with Waiting(crowds, "k", "x", None) as patience:
        patience.begin()
        patience.begin()
        with pytest.raises(CrowdedError), Waiting(crowds, "k", "x", None) as other:
            other.begin()


def test_all_who_wait_together_leave_room_for_what_is_local() -> None:
    crowds = Crowds(per_ref=2, in_all=3)
    for key in ("a", "b", "b"):
        crowds.enter(key, key)
    with pytest.raises(CrowdedError, match="c: 3 requests wait for sources"):
        crowds.enter("c", "c")
    crowds.leave("a")
    crowds.enter("c", "c")
