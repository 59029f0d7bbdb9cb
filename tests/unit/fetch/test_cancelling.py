"""A fetch that a person ends: everybody who waits for it is told, whatever their patience."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from typing_extensions import override

from cafs.errors import CafsError, CancelledError
from cafs.fetch.content.bridging import PIECE, Intake
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.hold import Hold
from cafs.fetch.interfaces import Content, Patience, Priority
from cafs.fetch.passes.tar_pass import plant_plain
from cafs.fetch.progress import Progress
from cafs.model.digest import Digest
from cafs.model.limits import Limits
from cafs.model.member import Member
from cafs.model.span import Span
from cafs.store.trees.planting import Planter
from cafs.testing.archives import tar_bytes
from cafs.testing.bodies import Generated
from cafs.testing.faults import HangBeforeHead, IgnoreRange, NoValidators, Stall
from cafs.testing.origin import Origin
from tests.planted import tree_writer
from tests.unit.fetch.conftest import USUAL, Rig, until
from tests.unit.fetch.test_waiting import Nowhere

MIB = 1 << 20
FOR_EVER = Patience(None)


async def told(read: Callable[[], Awaitable[object]], heard: list[CafsError]) -> None:
    """Read, and keep what that failed with."""
    try:
        await read()
    except CafsError as error:
        heard.append(error)


async def under_way(rig: Rig) -> str:
    """Wait until something is fetched, from somewhere; its id."""
    await until(lambda: any(one.url for one in rig.fetcher.inflight()))
    return rig.fetcher.inflight()[0].id


async def test_all_who_wait_for_a_content_are_told_also_who_would_wait_for_ever(
    rig: Rig, origin: Origin
) -> None:
    content = await rig.located(origin.put("/x", Generated(64 * MIB, seed=1)))
    other = await rig.located(origin.put("/y", Generated(MIB, seed=2)))
    origin.fault("/x", Stall(after_bytes=1000))
    heard: list[CafsError] = []
    async with trio.open_nursery() as nursery:
        for offset in (0, 40 * MIB, 1 << 19):
            nursery.start_soon(told, lambda o=offset: content.read(o, 4096, FOR_EVER), heard)
        nursery.start_soon(told, lambda: content.read(63 * MIB, 4096, USUAL), heard)
        id_ = await under_way(rig)
        assert {one.id for one in rig.fetcher.inflight()} == {id_}
        assert rig.fetcher.cancel("another") == []
        assert rig.fetcher.cancel(id_) == [content.name]
        await until(lambda: len(heard) == 4)
    assert all(isinstance(one, CancelledError) for one in heard)
    assert "cancelled" in heard[0].line
    await until(lambda: not rig.fetcher.inflight())
    # The kernel asks twice: for a second nothing is begun anew.
    asked = len(origin.requests_for("/x"))
    with pytest.raises(CancelledError):
        await content.read(0, 4096, FOR_EVER)
    assert len(origin.requests_for("/x")) == asked
    assert await other.read(0, 10, USUAL) == origin.expected("/y", Span(0, 10))


async def test_what_was_cancelled_is_fetched_by_who_asks_later(rig: Rig, origin: Origin) -> None:
    content = await rig.located(origin.put("/x", Generated(4 * MIB, seed=1)))
    origin.fault("/x", Stall(after_bytes=1000, times=1))
    heard: list[CafsError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told, lambda: content.read(3 * MIB, 4096, FOR_EVER), heard)
        await under_way(rig)
        assert rig.fetcher.cancel() == [content.name]
        await until(lambda: bool(heard))
    await trio.sleep(1.1)
    assert await content.read(3 * MIB, 10, USUAL) == origin.expected(
        "/x", Span(3 * MIB, 3 * MIB + 10)
    )


@pytest.mark.parametrize("fault", [HangBeforeHead(), Stall(after_bytes=1000)])
async def test_who_waits_for_a_pinned_blob_is_told(
    rig: Rig, origin: Origin, fault: HangBeforeHead | Stall
) -> None:
    body = Generated(32 * MIB, seed=3)
    url = origin.put("/x", body)
    origin.fault("/x", fault)
    content = await rig.pinned(Digest.parse("sha256:" + body.sha256()), 32 * MIB, url)
    heard: list[CafsError] = []
    async with trio.open_nursery() as nursery:
        for offset in (0, 20 * MIB):
            nursery.start_soon(told, lambda o=offset: content.read(o, 4096, FOR_EVER), heard)
        id_ = await under_way(rig)
        assert rig.fetcher.cancel(id_) == [content.name]
        await until(lambda: len(heard) == 2)
    assert [type(one) for one in heard] == [CancelledError] * 2


async def test_who_waits_for_one_whole_response_is_told(rig: Rig, origin: Origin) -> None:
    url = origin.put("/x", Generated(4 * MIB, seed=4))
    origin.fault("/x", NoValidators(), IgnoreRange(), Stall(after_bytes=1000))
    content = await rig.located(url)
    heard: list[CafsError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told, lambda: content.read(0, 4096, FOR_EVER), heard)
        await under_way(rig)
        rig.fetcher.cancel()
        await until(lambda: len(heard) == 1)
    assert isinstance(heard[0], CancelledError)


async def test_a_first_pass_that_waits_ends(rig: Rig, origin: Origin) -> None:
    files = {f"f{number}": (0o644, bytes(MIB)) for number in range(40)}
    content = await rig.located(origin.put("/x.tar", tar_bytes(files)))
    origin.fault("/x.tar", Stall(after_bytes=3 * MIB))
    heard: list[CafsError] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told, lambda: rig.plant(content, FOR_EVER), heard)
        await under_way(rig)
        rig.fetcher.cancel()
        await until(lambda: len(heard) == 1)
    assert isinstance(heard[0], CancelledError)
    await until(lambda: not rig.fetcher.inflight())


async def test_a_first_pass_ends_among_members_of_which_all_bytes_are_here(
    tmp_path: Path,
) -> None:
    """A piece of raw bytes may decode to millions of members: nothing is asked for until then."""
    archive = tar_bytes({f"f{number}": (0o644, b"") for number in range(1500)})
    scope, planted = trio.CancelScope(), 0

    class Planting(Planter):
        @override
        def plant(self, member: Member, sha256: bytes = b"") -> int | None:
            nonlocal planted
            planted += 1
            trio.from_thread.run_sync(scope.cancel)
            return super().plant(member, sha256)

    async def pull(offset: int, length: int) -> bytes:
        return archive[offset : offset + length]

    def run() -> None:
        with tree_writer(tmp_path) as writer:
            plant_plain(Intake(pull, None), Planting, writer, name="x", limits=Limits())

    assert len(archive) < PIECE
    with scope:
        await trio.to_thread.run_sync(run)
    assert scope.cancelled_caught
    assert planted < 300


async def test_a_prefetch_goes_on_with_the_next(rig: Rig, origin: Origin) -> None:
    stuck = await rig.located(origin.put("/stuck", Generated(4 * MIB, seed=5)))
    fine = [await rig.located(origin.put(f"/{n}", Generated(MIB, seed=n))) for n in range(6)]
    origin.fault("/stuck", Stall(after_bytes=1000))
    contents: list[Content] = [stuck, *fine]
    heard: list[CafsError] = []
    patience = Patience(None, Priority.PREFETCH)
    progress = Progress(lambda _done, _total: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told, lambda: rig.fetcher.prefetch(contents, progress, patience), heard)
        await until(lambda: all(one.digest() is not None for one in fine))
        (flight,) = {one.id for one in rig.fetcher.inflight()}
        assert {one.priority for one in rig.fetcher.inflight()} == {Priority.PREFETCH}
        assert rig.fetcher.cancel(flight) == [stuck.name]
        await until(lambda: bool(heard))
    assert isinstance(heard[0], CancelledError)


async def test_who_does_not_wait_at_the_moment_is_told_when_he_next_would() -> None:
    """As a pass that decodes what it has while what follows is on its way."""
    place = Somewhere()
    with Hold(place, "x", FOR_EVER) as hold:
        (flight,) = hold.want(Span(0, 10))
        flight.cancel(CancelledError("x: the fetch was cancelled"))
        place.forget()
        with pytest.raises(CancelledError):
            await hold.ensure(Span(0, 10))
        assert not place.flights


class Somewhere(Nowhere):
    """A place where nothing has come yet."""

    def __init__(self) -> None:
        self.flights: list[Flight] = []

    def forget(self) -> None:
        self.flights.clear()

    @override
    def book(self, span: Span, granule: int) -> list[Flight]:
        self.flights.append(Flight(span))
        return list(self.flights)
