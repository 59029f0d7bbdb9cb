"""What is kept in memory of what cannot be stored, and how often a full disk is tried."""

import trio
from trio.testing import MockClock

from cafs.errors import StorageFullError
from cafs.fetch.flights.overflow import WANTED_S, Overflow
from cafs.fetch.flights.shortage import AGAIN_S, FRUITLESS_S, Shortage
from cafs.fetch.interfaces import Priority
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet

A, B = StreamKey("a" * 64), StreamKey("b" * 64)


def parts(overflow: Overflow, key: StreamKey, start: int, stop: int) -> bytes:
    return b"".join(data for _, data in overflow.parts(key, Span(start, stop)))


async def test_what_was_put_is_there_and_only_that() -> None:
    overflow = Overflow(100)
    assert overflow.put(A, 10, b"0123456789")
    assert overflow.put(A, 15, b"56789abcde")  # half of it is there
    assert overflow.put(A, 40, b"x")
    assert overflow.size == 16
    assert overflow.spans(A) == SpanSet([Span(10, 25), Span(40, 41)])
    assert parts(overflow, A, 12, 22) == b"23456789ab"
    assert overflow.parts(A, Span(0, 100))[-1] == (40, b"x")
    assert not overflow.spans(B)
    assert overflow.piece(A, 13) == b"3456789"
    assert overflow.piece(A, 30) is None
    overflow.drop(A)
    assert (overflow.size, overflow.spans(A)) == (0, SpanSet())


async def test_what_was_read_to_its_end_makes_way_the_least_recently_wanted_first() -> None:
    overflow = Overflow(30)
    for start in (0, 10, 20):
        assert overflow.put(A, start, bytes(10))
    parts(overflow, A, 10, 20)
    parts(overflow, A, 0, 5)
    assert overflow.put(B, 0, bytes(4))
    assert overflow.spans(A) == SpanSet([Span(0, 10), Span(20, 30)])
    assert overflow.size == 24


async def test_what_is_about_to_be_read_stays_for_a_moment(autojump_clock: MockClock) -> None:
    overflow = Overflow(30)
    assert overflow.put(A, 0, bytes(20))
    assert not overflow.put(B, 0, bytes(20))
    assert overflow.spans(A).total == 20
    await trio.sleep(WANTED_S)
    assert overflow.put(B, 0, bytes(20))
    assert not overflow.spans(A)


async def test_there_is_never_more_than_the_limit() -> None:
    overflow = Overflow(30)
    assert not overflow.put(A, 0, bytes(31))
    assert overflow.put(A, 0, bytes(30))
    assert not overflow.put(A, 30, b"x")


async def test_what_is_of_no_use_in_parts_goes_together(autojump_clock: MockClock) -> None:
    overflow = Overflow(30)
    assert overflow.put(A, 0, bytes(10), together=True)
    parts(overflow, A, 0, 10)
    await trio.sleep(WANTED_S - 0.5)
    assert overflow.put(A, 10, bytes(10), together=True)
    await trio.sleep(WANTED_S - 0.5)
    assert not overflow.put(B, 0, bytes(20))
    await trio.sleep(0.5)
    assert overflow.put(B, 0, bytes(20))
    assert not overflow.spans(A)


async def test_a_whole_is_read_anywhere_and_takes_the_place_of_its_pieces(
    autojump_clock: MockClock,
) -> None:
    overflow = Overflow(30)
    data = bytes(range(25))
    assert overflow.put(A, 5, data[5:20], together=True)
    assert overflow.keep_whole(A, digest_of(data), [data[:5], data[5:20], data[20:]])
    assert overflow.size == 25
    assert overflow.whole(A) == digest_of(data)
    assert overflow.whole(B) is None
    assert overflow.read_whole(A, 3, 10) == data[3:13]
    assert overflow.read_whole(A, 0, 100) == data
    assert overflow.read_whole(A, 25, 1) == b""
    assert not overflow.put(B, 0, bytes(10))
    await trio.sleep(WANTED_S)
    assert overflow.put(B, 0, bytes(10))
    assert overflow.read_whole(A, 0, 1) is None


async def test_a_whole_that_has_no_room_leaves_what_was_there() -> None:
    overflow = Overflow(30)
    assert overflow.put(A, 0, bytes(10), together=True)
    assert overflow.put(B, 0, bytes(10))
    assert not overflow.keep_whole(A, digest_of(bytes(25)), [bytes(25)])
    assert overflow.spans(A).total == 10


async def test_room_is_set_aside_for_one_after_the_other_and_nobody_waits_for_ever(
    autojump_clock: MockClock,
) -> None:
    overflow = Overflow(30)
    begun: list[tuple[str, float]] = []

    async def put_together(name: str, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            async with overflow.set_aside(StreamKey(name * 64), 20) as found:
                assert found
                assert overflow.size == 20
                begun.append((name, trio.current_time() - start))
                await trio.sleep(3)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name, patience_s in (("a", 1), ("b", 0.5), ("c", 100), ("d", 100)):
            nursery.start_soon(put_together, name, patience_s)
            await trio.testing.wait_all_tasks_blocked()
    assert begun == [("a", 0), ("c", 1), ("d", 4)]
    assert overflow.size == 0


async def test_who_waits_for_room_that_others_keep_is_told_at_once(
    autojump_clock: MockClock,
) -> None:
    overflow = Overflow(30)
    told: list[bool] = []

    async def wait() -> None:
        async with overflow.set_aside(B, 20) as found:
            told.append(found)

    async with trio.open_nursery() as nursery, overflow.set_aside(A, 20):
        nursery.start_soon(wait)
        await trio.sleep(1)
        assert not told
        assert overflow.keep_whole(A, digest_of(bytes(20)), [bytes(20)])
    assert told == [False]
    await trio.sleep(WANTED_S)
    await wait()
    assert told == [False, True]


async def test_what_is_kept_of_a_content_counts_once_and_stays_while_it_is_put_together(
    autojump_clock: MockClock,
) -> None:
    overflow = Overflow(30)
    assert overflow.put(A, 0, bytes(20), together=True)
    async with overflow.set_aside(A, 25) as found:
        assert found
        assert overflow.size == 25
        await trio.sleep(2 * WANTED_S)
        assert not overflow.put(B, 0, bytes(10))
        assert overflow.put(B, 0, bytes(5))
        assert overflow.keep_whole(A, digest_of(bytes(25)), [bytes(25)])
        assert overflow.size == 30
    assert overflow.size == 30


class Disk:
    """What can be evicted, and how often it was tried."""

    def __init__(self, *freed: int) -> None:
        self.freed = list(freed)
        self.tries = 0

    async def make_room(self, count: int) -> int:
        self.tries += 1
        await trio.sleep(0.1)
        return self.freed.pop(0) if self.freed else 0


async def test_eviction_is_tried_once_a_shortage_and_not_once_a_request(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    disk = Disk(0, 1)
    shortage = Shortage(nursery, disk.make_room, lambda: 0)
    outcomes: list[bool] = []

    async def write() -> None:
        outcomes.append(await shortage.relieve(1))

    async with trio.open_nursery() as writers:
        for _ in range(100):
            writers.start_soon(write)
    assert (disk.tries, set(outcomes)) == (1, {False})
    assert shortage.lasting()
    await write()
    assert disk.tries == 1
    await trio.sleep(AGAIN_S)
    assert not shortage.lasting()
    await trio.sleep(FRUITLESS_S)
    assert await shortage.relieve(1)
    assert disk.tries == 2
    assert not shortage.lasting()


async def test_readers_wait_for_an_eviction_for_its_first_seconds_and_it_goes_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ended: list[float] = []

    async def slow(count: int) -> int:
        await trio.sleep(60)
        ended.append(trio.current_time())
        return count

    shortage = Shortage(nursery, slow, lambda: 0)
    began = trio.current_time()
    assert not await shortage.relieve(1)
    assert trio.current_time() - began == 5
    assert not await shortage.relieve(1)  # the same eviction, which is too old to be waited for
    assert trio.current_time() - began == 5
    assert shortage.lasting()
    await trio.sleep(1)
    assert await shortage.relieve(1, Priority.PREFETCH)
    assert ended == [began + 60]
    assert not shortage.lasting()


async def test_a_reader_who_is_killed_ends_no_eviction(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    disk = Disk(1)
    shortage = Shortage(nursery, disk.make_room, lambda: 0)
    with trio.move_on_after(0.05):
        await shortage.relieve(1)
    assert await shortage.relieve(1)
    assert disk.tries == 1


async def test_nothing_is_evicted_for_what_is_only_read_ahead(nursery: trio.Nursery) -> None:
    disk = Disk(1)
    shortage = Shortage(nursery, disk.make_room, lambda: 0)
    assert not await shortage.relieve(1, Priority.READAHEAD)
    assert disk.tries == 0


async def test_an_eviction_that_fails_is_of_no_use(nursery: trio.Nursery) -> None:
    async def failing(count: int) -> int:
        raise StorageFullError("no room for that either")

    assert not await Shortage(nursery, failing, lambda: 0).relieve(1)


async def test_a_prefetch_is_told_what_was_asked_what_is_free_and_what_to_do(
    nursery: trio.Nursery,
) -> None:
    shortage = Shortage(nursery, Disk().make_room, lambda: 3 << 20)
    line = shortage.stopped("gcc", 5 << 20).line
    assert "gcc: 5 MiB of it are missing" in line
    assert "3.0 MiB free" in line
    assert "cafs gc --older-than 0s" in line


async def test_what_nobody_awaits_makes_way_at_once_and_for_anybody() -> None:
    overflow = Overflow(30)
    assert overflow.put(A, 0, bytes(20), awaited=False)
    assert overflow.spans(A).total == 20
    assert overflow.put(B, 0, bytes(20))
    assert not overflow.spans(A)
    assert not overflow.put(A, 0, bytes(20), awaited=False)


async def test_what_is_claimed_is_a_part_of_what_there_is_and_comes_back() -> None:
    overflow = Overflow(40)
    assert overflow.put(A, 0, bytes(30))
    parts(overflow, A, 0, 30)  # it makes way
    with overflow.claim(7) as one, overflow.claim(100) as two, overflow.claim(1) as three:
        assert (one, two, three) == (7, 3, 0)
        assert not overflow.put(B, 0, bytes(31), awaited=False)
        assert overflow.put(B, 0, bytes(30))
        assert not overflow.spans(A)
        assert not overflow.put(A, 0, bytes(1), awaited=False)
    assert overflow.size == 30
    with overflow.claim(100) as count:
        assert count == 10
    assert overflow.put(B, 50, bytes(10))
    with overflow.claim(100) as count:
        assert count == 0


async def test_nobody_is_refused_because_others_have_claimed_room() -> None:
    mib = 1 << 20
    overflow = Overflow()
    for number in range(28):
        assert overflow.put(A, number * mib, bytes(mib))
    with overflow.claim(8 * mib) as count:
        assert count == 4 * mib
        for number in range(4):
            assert overflow.put(B, number * mib, bytes(mib))
        assert not overflow.put(B, 4 * mib, b"x")
        with overflow.claim(mib) as more:
            assert more == 0
    assert not overflow.put(A, 28 * mib, bytes(4 * mib), awaited=False)
    assert overflow.size == overflow.limit


async def test_room_is_set_aside_and_a_whole_kept_beside_what_is_claimed() -> None:
    overflow = Overflow(40)
    with overflow.claim(10) as count:
        assert count == 10
        async with overflow.set_aside(A, 40) as found:
            assert found
            assert overflow.keep_whole(A, digest_of(bytes(40)), [bytes(40)])


async def test_what_nobody_awaits_makes_way_before_what_was_read() -> None:
    overflow = Overflow(30)
    assert overflow.put(A, 0, bytes(10))
    parts(overflow, A, 0, 10)
    assert overflow.put(B, 0, bytes(10), awaited=False)
    assert overflow.put(A, 10, bytes(20))
    assert overflow.spans(A).total == 30
    assert not overflow.spans(B)
