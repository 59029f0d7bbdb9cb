"""Patience with a source that does not answer, or not now: who is told what, and when."""

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from typing_extensions import override

from cafs.errors import CafsError, UnreachableError
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.hold import Hold
from cafs.fetch.flights.judging import Terms
from cafs.fetch.flights.recovering import Recovery, Try
from cafs.fetch.interfaces import Patience, Priority, Source
from cafs.fetch.sources.rating import Ratings
from cafs.fetch.sources.rotation import Rotation
from cafs.fetch.sources.slots import Slot, Slots
from cafs.fetch.sources.sources import Sources
from cafs.metrics import Metrics
from cafs.model.digest import digest_of
from cafs.model.identity import located_stream
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.testing.bodies import Generated
from cafs.testing.faults import Stall
from cafs.testing.origin import Origin
from cafs.transport.interfaces import Request, Response, Transport
from cafs.transport.retrying import RetryPolicy
from tests.unit.fetch.conftest import Rig, until
from tests.unit.fetch.test_waiting import Nowhere

URL = "http://source.example/x"
MIB = 1 << 20


async def test_bytes_that_have_come_are_given_at_once_though_no_more_follow(
    rig: Rig, origin: Origin
) -> None:
    """They may still be kept back for a write of many; nothing that follows would write them."""
    content = await rig.located(origin.put("/x", Generated(4 * MIB, seed=1)))
    origin.fault("/x", Stall(after_bytes=700_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.read, 0, 2 * MIB, Patience(None))
        await until(lambda: any(one.received >= 700_000 for one in rig.fetcher.inflight()))
        with trio.fail_after(60):
            for offset in (0, 300_000, 695_000):
                expected = origin.expected("/x", Span(offset, offset + 4096))
                assert await content.read(offset, 4096, Patience(None)) == expected
        nursery.cancel_scope.cancel()


# -- the turn at a host that others have taken


class Busy:
    """Requests that have every slot of a host, and one that waits for one."""

    def __init__(self) -> None:
        self.slots = Slots(total=4, per_host=2)
        self.beats: list[float] = []
        self.held: list[Slot] = []

    async def hold(self, host: str) -> None:
        async with self.slots.hold(host, lambda: Priority.DEMAND) as slot:
            self.held.append(slot)
            await trio.sleep_forever()

    async def wait(self, host: str) -> None:
        def beat() -> None:
            self.beats.append(trio.current_time())

        async with self.slots.hold(host, lambda: Priority.DEMAND, beat=beat):
            pytest.fail("there was no slot")

    async def move(self, host: str, seconds: int) -> None:
        for _ in range(10 * seconds):
            await trio.sleep(0.1)
            for slot in self.held:
                if slot.host == host:
                    slot.arrived(1)


@pytest.mark.parametrize(
    ("holders", "moving", "beats"),
    [("xx", "x", True), ("xxyy", "y", True), ("xx", "-", False), ("xxy", "y", False)],
    ids=["the host moves", "all slots are taken, one moves", "nothing moves", "another host moves"],
)
async def test_who_waits_for_a_turn_is_not_stuck_while_those_before_him_move(
    autojump_clock: MockClock, holders: str, moving: str, beats: bool
) -> None:
    """Else a slow network with many readers would be a dead one."""
    busy = Busy()
    async with trio.open_nursery() as nursery:
        for host in holders:
            nursery.start_soon(busy.hold, host)
        await wait_all_tasks_blocked()
        nursery.start_soon(busy.wait, "x")
        await busy.move(moving, 30)
        assert bool(busy.beats) == beats
        assert not beats or max(busy.beats) > 25
        last = len(busy.beats)
        await trio.sleep(30)
        # Nothing comes any more: from here on the time counts.
        assert len(busy.beats) <= last + 1
        nursery.cancel_scope.cancel()


# -- the retry table of a flight (Y-6, Y-7)

YA = RetryPolicy(retries=9, initial_s=1.0, multiplier=2.3, cap_s=360.0, jitter=False)
DELAYS_S = (1, 2.3, 5.29, 12.167, 27.98, 64.36, 148.04, 340.48, 360)


BUSY = UnreachableError("GET http://source.example/x: 503")


class Trying:
    """A flight whose only source cannot answer, and what it does after each try."""

    def __init__(self, policy: RetryPolicy, patience: Patience) -> None:
        part = Part(media_type="", size=10, digest=digest_of(b"0123456789"), urls=(URL,))
        terms = Terms(
            name="x",
            key=located_stream(part),
            size=10,
            validator=part.validator,
            pinned=True,
            ranges=True,
            limit=10,
        )
        ratings = Ratings()
        self._sources = Sources([Source(Nothing(), URL)], ratings)
        self._recovery = Recovery(
            terms, self._sources, ratings=ratings, policy=policy, metrics=Metrics()
        )
        self._rotation = Rotation()
        self.flight = Flight(Span(0, 10))
        self.flight.url = URL
        self.flight.join(Hold(Nowhere(), "x", patience))

    async def pause(self, error: CafsError = BUSY) -> float:
        """Seconds after which the next try comes.

        Raises:
            CafsError: ``error``: there is no next one.
        """
        began = trio.current_time()
        attempt = Try(gap=Span(0, 10), number=0, order=[0], others=[])
        await self._recovery.recover(self.flight, self._rotation, attempt, error)
        return trio.current_time() - began


class Nothing(Transport):
    """A source that nobody asks here."""

    @override
    async def open(self, request: Request) -> Response:
        raise AssertionError(request)

    @override
    async def aclose(self) -> None:
        pass


async def test_y7_a_flight_asks_ten_times_with_these_pauses_and_none_after_the_last(
    autojump_clock: MockClock,
) -> None:
    trying = Trying(YA, Patience(60.0))
    assert [await trying.pause() for _ in range(9)] == pytest.approx(DELAYS_S, rel=0.01)
    began = trio.current_time()
    with pytest.raises(UnreachableError, match="503"):
        await trying.pause()
    assert trio.current_time() == began


async def test_y6_jitter_adds_up_to_half_to_each_pause_of_a_flight(
    autojump_clock: MockClock,
) -> None:
    trying = Trying(replace(YA, jitter=True), Patience(60.0))
    found = [await trying.pause() for _ in range(9)]
    for pause_s, plain_s in zip(found, DELAYS_S, strict=True):
        assert 0.99 * plain_s <= pause_s <= 1.51 * plain_s
    assert found != pytest.approx(DELAYS_S, rel=0.001)


async def test_for_who_waits_for_ever_there_is_no_last_try(autojump_clock: MockClock) -> None:
    trying = Trying(YA, Patience(None))
    found = [await trying.pause() for _ in range(50)]
    assert found[8:] == pytest.approx([360.0] * 42)


async def test_retry_after_is_obeyed_by_a_flight_also_when_readers_come(
    autojump_clock: MockClock,
) -> None:
    trying = Trying(YA, Patience(60.0))
    asked = UnreachableError("GET http://source.example/x: 429", retry_after_s=30.0)

    async def come() -> None:
        for _ in range(5):
            await trio.sleep(5)
            trying.flight.join(Hold(Nowhere(), "x", Patience(60.0)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        assert await trying.pause(asked) == pytest.approx(30)
        assert await trying.pause(asked) == pytest.approx(30)


async def test_what_only_readahead_wants_is_not_tried_again(autojump_clock: MockClock) -> None:
    trying = Trying(YA, Patience(None, Priority.READAHEAD))
    with pytest.raises(UnreachableError):
        await trying.pause()


# -- urgency


def test_what_is_as_urgent_as_was_said_does_not_rise_with_a_work() -> None:
    rising = Patience(5.0, Priority.PREFETCH, rising=lambda: Priority.DEMAND)
    assert rising.urgency() is Priority.DEMAND
    fixed = rising.at(Priority.READAHEAD)
    assert fixed.urgency() is Priority.READAHEAD
    assert fixed.deadline_s == 5.0
