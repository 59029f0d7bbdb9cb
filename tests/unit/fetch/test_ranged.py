import os
import random
from pathlib import Path

import pytest
import trio

from cafs.errors import (
    BudgetError,
    CafsError,
    DeadlineError,
    OfflineError,
    RefusedError,
    SourceChangedError,
    UnreachableError,
)
from cafs.fetch.content.ranged import RangedContent
from cafs.fetch.flights.flight import Flight
from cafs.fetch.flights.planning import GRANULE
from cafs.fetch.interfaces import Patience, Priority, Source
from cafs.model.bounds import Bounds
from cafs.model.digest import digest_of
from cafs.model.span import Span, SpanSet
from cafs.testing.bodies import Generated
from cafs.testing.faults import (
    ChangedEtag,
    Drop,
    IgnoreRange,
    Stall,
    StallBeyond,
    Status,
    WrongContentRange,
)
from cafs.testing.origin import Origin
from cafs.transport.file import FileTransport
from cafs.transport.revalidating import Locator
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all, until

MIB = 1 << 20


async def test_any_range_is_the_right_bytes(rig: Rig, origin: Origin) -> None:
    url = origin.put("/blob", Generated(3 * MIB + 17, seed=1))
    content = await rig.located(url)
    random.seed(5)
    for _ in range(40):
        offset = random.randrange(content.size)
        length = random.randrange(1, 300_000)
        expected = origin.expected("/blob", Span(offset, min(content.size, offset + length)))
        assert await content.read(offset, length, USUAL) == expected
    assert await content.read(content.size, 10, USUAL) == b""


async def test_a_small_read_of_a_large_blob_costs_a_granule(rig: Rig, origin: Origin) -> None:
    url = origin.put("/large", Generated(256 * MIB, seed=2))
    content = await rig.located(url)
    await content.read(100 * MIB + 5, 4096, USUAL)
    assert rig.metrics["fetch.bytes"] < MIB


async def test_scattered_reads_cost_a_granule_each(rig: Rig, origin: Origin) -> None:
    url = origin.put("/large", Generated(256 * MIB, seed=2))
    content = await rig.located(url)
    for number in range(10):
        await content.read((number * 7 % 10) * 20 * MIB + 5, 4096, USUAL)
    assert rig.metrics["fetch.bytes"] <= 10 * (256 << 10) + 1


async def test_thirty_two_readers_share_one_download(rig: Rig, origin: Origin) -> None:
    size = 4 * MIB
    url = origin.put("/shared", Generated(size, seed=3))
    content = await rig.located(url)
    expected = origin.expected("/shared")
    results: list[bytes] = []

    async def reader() -> None:
        results.append(await read_all(content))

    async with trio.open_nursery() as nursery:
        for _ in range(32):
            nursery.start_soon(reader)
    assert all(one == expected for one in results)
    assert len(results) == 32
    assert rig.metrics["fetch.bytes"] <= size + 1


async def test_reading_forward_takes_few_requests_and_no_byte_twice(
    rig: Rig, origin: Origin
) -> None:
    size = 64 * MIB
    url = origin.put("/forward", Generated(size, seed=4))
    content = await rig.located(url)
    hashed = digest_of(await read_all(content))
    assert hashed.hex == Generated(size, seed=4).sha256()
    assert rig.metrics["fetch.bytes"] <= size + 1
    assert len(origin.requests_for("/forward")) <= 16


async def test_reading_forward_keeps_two_requests_under_way(rig: Rig, origin: Origin) -> None:
    size = 64 * MIB
    url = origin.put("/forward", Generated(size, seed=4))
    content = await rig.located(url)
    for offset in range(0, 4 * MIB, 128 << 10):
        await content.read(offset, 128 << 10, USUAL)
    origin.fault("/forward", Stall(after_bytes=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, content)
        await until(lambda: len([one for one in rig.fetcher.inflight() if one.url]) >= 2)
        nursery.cancel_scope.cancel()
    origin.release()


async def test_what_was_read_is_read_again_without_the_origin(rig: Rig, origin: Origin) -> None:
    url = origin.put("/warm", Generated(MIB, seed=6))
    content = await rig.located(url)
    first = await read_all(content)
    origin.stop()
    assert await read_all(content) == first
    origin.start()


async def test_a_whole_read_makes_it_a_blob_that_the_document_names(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/whole", Generated(2 * MIB, seed=7), cache_control="max-age=60")
    content = await rig.located(url)
    await content.ensure(Span(0, content.size), USUAL)
    digest = content.digest()
    assert digest is not None
    assert digest.hex == Generated(2 * MIB, seed=7).sha256()
    assert rig.store.blobs.stat(digest) is not None
    document = rig.store.documents.load(url)
    assert document is not None
    assert document.digest == digest


async def test_a_body_that_breaks_is_continued(rig: Rig, origin: Origin) -> None:
    size = 16 * MIB
    url = origin.put("/broken", Generated(size, seed=8))
    content = await rig.located(url)
    origin.fault("/broken", Drop(after_bytes=700_000, times=6))
    assert digest_of(await read_all(content)).hex == Generated(size, seed=8).sha256()
    assert rig.metrics["fetch.bytes"] <= 1.05 * size


async def test_a_changed_etag_is_a_changed_source(rig: Rig, origin: Origin) -> None:
    url = origin.put("/changed", Generated(4 * MIB, seed=9))
    content = await rig.located(url)
    await content.read(0, 4096, USUAL)
    origin.fault("/changed", ChangedEtag())
    with pytest.raises(SourceChangedError, match="/changed") as caught:
        await content.read(3 * MIB, 4096, USUAL)
    assert "a new mount" in (caught.value.hint or "")
    assert await content.read(0, 4096, USUAL) == origin.expected("/changed", Span(0, 4096))


async def test_a_source_of_another_size_is_a_changed_source(rig: Rig, origin: Origin) -> None:
    url = origin.put("/grown", Generated(4 * MIB, seed=9), etag='"same"')
    content = await rig.located(url)
    origin.put("/grown", Generated(5 * MIB, seed=9), etag='"same"')
    with pytest.raises(SourceChangedError):
        await content.read(3 * MIB, 4096, USUAL)


async def test_a_source_that_shrank_is_a_changed_source(rig: Rig, origin: Origin) -> None:
    url = origin.put("/shrunk", Generated(4 * MIB, seed=9), etag='"same"')
    content = await rig.located(url)
    origin.put("/shrunk", Generated(MIB, seed=9), etag='"same"')
    with pytest.raises(SourceChangedError):
        await content.read(3 * MIB, 4096, USUAL)


async def test_a_server_that_forgets_ranges_is_read_whole_in_one_version(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/forgets", Generated(4 * MIB, seed=10))
    content = await rig.located(url)
    origin.fault("/forgets", IgnoreRange())
    expected = origin.expected("/forgets", Span(3 * MIB, 3 * MIB + 4096))
    assert await content.read(3 * MIB, 4096, USUAL) == expected
    assert digest_of(await read_all(content)).hex == Generated(4 * MIB, seed=10).sha256()


async def test_a_wrong_content_range_is_never_taken(rig: Rig, origin: Origin) -> None:
    url = origin.put("/shifted", Generated(4 * MIB, seed=11))
    content = await rig.located(url)
    origin.fault("/shifted", WrongContentRange(shift=4096))
    with pytest.raises(CafsError):
        await content.read(MIB, 4096, Patience(0.4))
    assert content.present() == 0


async def test_missing_content_says_so_to_everyone(rig: Rig, origin: Origin) -> None:
    url = origin.put("/gone", Generated(4 * MIB, seed=11))
    content = await rig.located(url)
    origin.remove("/gone")
    raised: list[CafsError] = []

    async def reader() -> None:
        try:
            await content.read(0, 4096, USUAL)
        except RefusedError as error:  # no ENOENT: it was there when it was located
            raised.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(reader)
    assert ["404" in each.line for each in raised] == [True] * 5
    assert len(origin.requests_for("/gone")) == 2


async def test_a_stall_is_an_error_at_the_deadline(rig: Rig, origin: Origin) -> None:
    url = origin.put("/stalls", Generated(4 * MIB, seed=12))
    content = await rig.located(url)
    origin.fault("/stalls", Stall(after_bytes=1000))
    with trio.fail_after(15), pytest.raises(DeadlineError, match=r"0\.3 s"):
        await content.read(0, 256 << 10, Patience(0.3))
    origin.release()


async def test_a_stall_is_not_asked_twice_at_once(rig: Rig, origin: Origin) -> None:
    url = origin.put("/stalls", Generated(4 * MIB, seed=12))
    content = await rig.located(url)
    origin.fault("/stalls", Stall(after_bytes=1000))
    with pytest.raises(DeadlineError):
        await content.read(0, 256 << 10, Patience(0.3))
    count = len(origin.requests_for("/stalls"))
    with pytest.raises(DeadlineError):
        await content.read(0, 4096, Patience(0.3))
    assert len(origin.requests_for("/stalls")) == count
    origin.release()


async def test_each_waiter_has_a_deadline_of_its_own(rig: Rig, origin: Origin) -> None:
    url = origin.put("/slow", Generated(MIB, seed=12))
    content = await rig.located(url)
    origin.fault("/slow", Stall(after_bytes=1000, times=1))
    ends: list[str] = []

    async def reader(name: str, deadline_s: float) -> None:
        try:
            await content.read(0, 200_000, Patience(deadline_s))
        except DeadlineError:
            ends.append(f"{name} gave up")
            origin.release()
        else:
            ends.append(f"{name} read")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader, "short", 0.2)
        nursery.start_soon(reader, "long", 10.0)
    assert ends == ["short gave up", "long read"]


async def test_a_dead_origin_is_unreachable_at_the_deadline(rig: Rig, origin: Origin) -> None:
    url = origin.put("/dead", Generated(MIB, seed=12))
    content = await rig.located(url)
    origin.stop()
    with trio.fail_after(15), pytest.raises(UnreachableError) as caught:
        await content.read(0, 4096, Patience(0.3))
    assert caught.value.__cause__ is not None
    assert str(caught.value.__cause__) in caught.value.line
    origin.start()


async def test_who_waits_for_ever_outlives_an_outage(rig: Rig, origin: Origin) -> None:
    url = origin.put("/back", Generated(MIB, seed=12))
    content = await rig.located(url)
    origin.stop()
    read: list[bytes] = []

    async def reader() -> None:
        read.append(await content.read(0, 4096, Patience(None)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader)
        await until(lambda: any(flight.url for flight in rig.fetcher.inflight()))
        await trio.to_thread.run_sync(origin.start)
    assert read == [origin.expected("/back", Span(0, 4096))]


async def test_server_errors_are_tried_again(rig: Rig, origin: Origin) -> None:
    url = origin.put("/busy", Generated(MIB, seed=13))
    content = await rig.located(url)
    origin.fault("/busy", Status(503, times=3))
    assert await content.read(0, 4096, USUAL) == origin.expected("/busy", Span(0, 4096))
    assert rig.metrics["fetch.retries"] == 3


async def test_retries_end_when_the_deadline_is_far(rig: Rig, origin: Origin) -> None:
    url = origin.put("/down", Generated(MIB, seed=13))
    content = await rig.located(url)
    origin.fault("/down", Status(503))
    with trio.fail_after(60), pytest.raises(UnreachableError, match="503"):
        await content.read(0, 4096, Patience(1000.0))


async def test_the_last_reader_takes_the_flight_with_him(rig: Rig, origin: Origin) -> None:
    url = origin.put("/killed", Generated(8 * MIB, seed=14))
    content = await rig.located(url)
    origin.fault("/killed", Stall(after_bytes=100_000, times=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.read, 0, 4 * MIB, USUAL)
        await until(lambda: any(one.received >= 100_000 for one in rig.fetcher.inflight()))
        nursery.cancel_scope.cancel()
    await until(lambda: not rig.fetcher.inflight())
    origin.release()
    # What had come stays, and is not fetched again.
    before = content.present()
    assert before >= 65_536
    assert await content.read(0, 50_000, USUAL) == origin.expected("/killed", Span(0, 50_000))
    assert content.present() == before


async def test_a_flight_goes_on_for_the_reader_that_stays(rig: Rig, origin: Origin) -> None:
    url = origin.put("/stays", Generated(8 * MIB, seed=14))
    content = await rig.located(url)
    origin.fault("/stays", Stall(after_bytes=100_000, times=1))
    read: list[bytes] = []

    async def stays() -> None:
        read.append(await content.read(0, 250_000, USUAL))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stays)
        async with trio.open_nursery() as other:
            other.start_soon(content.read, 0, 250_000, USUAL)
            await until(lambda: any(one.received >= 100_000 for one in rig.fetcher.inflight()))
            await trio.to_thread.run_sync(origin.settle)  # it stalls by now
            other.cancel_scope.cancel()
        origin.release()
    assert read == [origin.expected("/stays", Span(0, 250_000))]
    assert len(origin.requests_for("/stays")) == 2


async def test_the_budget_ends_reading(origin: Origin, tmp_path: Path) -> None:
    url = origin.put("/dear", Generated(8 * MIB, seed=15))
    async with open_rig(origin, tmp_path / "store", budget=MIB) as rig:
        content = await rig.located(url)
        await content.read(0, 4096, USUAL)
        with pytest.raises(BudgetError, match="budget"):
            await read_all(content)
        assert await content.read(0, 4096, USUAL) == origin.expected("/dear", Span(0, 4096))


async def test_offline_reads_what_is_there_and_names_what_is_not(
    origin: Origin, tmp_path: Path
) -> None:
    url = origin.put("/near", Generated(8 * MIB, seed=15), cache_control="max-age=600")
    async with open_rig(origin, tmp_path / "store") as rig:
        content = await rig.located(url)
        await content.read(0, 4096, USUAL)
    origin.stop()
    async with open_rig(origin, tmp_path / "store", offline=True) as rig:
        content = await rig.located(url)
        assert await content.read(0, 4096, USUAL) == origin.expected("/near", Span(0, 4096))
        with pytest.raises(OfflineError, match="/near"):
            await content.read(5 * MIB, 4096, USUAL)
    origin.start()


async def test_demand_is_served_while_a_prefetch_runs(rig: Rig, origin: Origin) -> None:
    url = origin.put("/prefetched", Generated(64 * MIB, seed=16))
    content = await rig.located(url)
    origin.fault("/prefetched", Stall(after_bytes=0, times=2))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.ensure, Span(0, content.size), Patience(None, Priority.PREFETCH))
        await until(lambda: len([one for one in rig.fetcher.inflight() if one.url]) >= 2)
        expected = origin.expected("/prefetched", Span(60 * MIB, 60 * MIB + 4096))
        assert await content.read(60 * MIB, 4096, Patience(5.0)) == expected
        nursery.cancel_scope.cancel()
    origin.release()


async def test_empty_content_is_empty_and_a_blob(rig: Rig, origin: Origin) -> None:
    content = await rig.located(origin.put("/empty", b""))
    assert await content.read(0, 10, USUAL) == b""
    await content.ensure(Span(0, 0), USUAL)
    assert content.digest() == digest_of(b"")


async def test_a_first_read_behind_the_end_is_empty(rig: Rig, origin: Origin) -> None:
    content = await rig.located(origin.put("/short", b"0123456789"))
    assert await content.read(10, 10, USUAL) == b""
    assert await content.read(99, 10, USUAL) == b""
    assert await content.read(3, 0, USUAL) == b""
    assert rig.metrics["fetch.bytes"] <= 1


async def test_a_file_is_read_by_ranges_and_its_change_is_noticed(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (16 << 10))
    locator = Locator(FileTransport(), rig.store.documents, rig.metrics)
    part = (await locator.locate(path.as_uri(), pull="update")).part
    content = await rig.fetcher.content(part, [Source(FileTransport(), path.as_uri())], name="file")
    assert await content.read(2 * MIB + 3, 5, USUAL) == bytes(range(3, 8))
    assert content.present() < MIB
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceChangedError):
        await content.read(0, 5, USUAL)


@pytest.mark.parametrize(
    ("wanting", "unawaited"),
    [
        ([Priority.READAHEAD], True),
        ([Priority.READAHEAD, Priority.PREFETCH], False),
        ([Priority.READAHEAD, Priority.DEMAND], False),
        ([Priority.PREFETCH], False),
    ],
)
async def test_only_what_read_ahead_alone_wants_may_fail_unheard(
    rig: Rig, origin: Origin, wanting: list[Priority], *, unawaited: bool
) -> None:
    content = await rig.located(origin.put("/wanted", Generated(MIB, seed=7)))
    assert isinstance(content, RangedContent)
    flight = Flight(Span(0, MIB))
    for priority in wanting:
        flight.join(content._lane.hold(Patience(None, priority)))
    assert flight.unawaited() is unawaited


async def test_what_is_fetched_ahead_still_comes_when_a_reader_overtakes_it(
    rig: Rig, origin: Origin
) -> None:
    content = await rig.located(origin.put("/ahead", Generated(8 * MIB, seed=22)))
    origin.forget()
    origin.fault("/ahead", StallBeyond(at=MIB, until=4 * MIB))
    assert isinstance(content, RangedContent)
    lane, ahead = content._lane, Span(0, 8 * MIB)
    lane.follow(ahead)
    await lane.ensure(Span(5 * MIB, 5 * MIB + 1000), USUAL)
    here = lane.missing(ahead).missing(ahead)
    assert here.union(SpanSet(one.span for one in rig.fetcher.inflight())).covers(ahead)
    assert len(origin.requests_for("/ahead")) == 2  # and no third for what he reads
    origin.heal("/ahead")


async def test_a_small_store_is_not_filled_with_what_is_fetched_ahead(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/large", Generated(256 * MIB, seed=21))
    rig.store.evictor.keep_within(Bounds(quota=8 * MIB))
    content = await rig.located(url)
    for offset in range(0, 3 * MIB, 128 << 10):
        await content.read(offset, 128 << 10, USUAL)
    await until(lambda: rig.metrics["fetch.bytes"] > 3 * MIB)
    await trio.sleep(0.3)
    assert rig.metrics["fetch.bytes"] <= 5 * MIB + GRANULE
