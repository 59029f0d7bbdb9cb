"""What is thrown away while all of it is fetched, and hashed: what comes in its place counts."""

import hashlib
import io
import random
import tarfile

import pytest
import trio

from cafs.errors import CafsError, DigestMismatchError
from cafs.fetch.content.feeding import Forward
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.interfaces import Content, Patience, Priority
from cafs.model.digest import digest_of
from cafs.model.record import Segment
from cafs.model.span import Span
from cafs.testing.faults import Corrupt, StallBeyond
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, until
from tests.unit.fetch.test_segmented import Archive, planted

MIB = 1 << 20
SIZE, HERE = 24 * MIB, 8 * MIB
DATA = random.Random(5).randbytes(SIZE)
ALL = Patience(60.0, Priority.PREFETCH)
LOGS = pytest.mark.expects_log("fetch.mirror")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def sliced(data: bytes, right: bytes) -> Archive:
    """An index of the first part of some bytes, that says what it must be."""
    digest = hashlib.sha256(right).digest()
    length = len(right)
    segment = Segment(
        start=0, length=length, input_start=0, input_length=length, codec="store", sha256=digest
    )
    return Archive(data, right, (segment,))


async def read_by_index(rig: Rig, raw: Content, index: Archive) -> bytes:
    name = digest_of(index.segments[0].sha256)
    content = rig.fetcher.decoded(planted(rig.store, raw.key, index, index=name), 0, raw)
    return await content.read(0, 200, USUAL)


@LOGS
async def test_a_forged_index_cannot_make_wrong_bytes_a_blob(rig: Rig, origin: Origin) -> None:
    """It rejects right ones, which were hashed already, and wrong ones come in their place."""
    digest, url = digest_of(DATA), origin.put("/p", DATA)
    origin.fault("/p", StallBeyond(HERE))
    raw = await rig.pinned(digest, SIZE, url)

    async def refused() -> None:
        with pytest.raises(DigestMismatchError):
            await raw.ensure(Span(0, SIZE), ALL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await until(lambda: raw.present() >= HERE)
        await trio.sleep(0.3)  # the gate has hashed it
        origin.fault("/p", Corrupt(100))
        forged = sliced(DATA, flipped(DATA[:HERE], 100))
        assert (await read_by_index(rig, raw, forged))[100] == DATA[100] ^ 0xFF
        origin.heal("/p")
        origin.release()
    assert raw.digest() is None
    assert rig.store.blobs.stat(digest) is None
    assert len(list((rig.store.path / "quarantine").iterdir())) == 2  # with its note


@LOGS
async def test_a_pass_that_saw_other_bytes_than_passed_the_gate_makes_no_tree(
    rig: Rig, origin: Origin
) -> None:
    """A true index rejects wrong bytes that a pass has seen already, and the right ones come."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("one")
        member.size = len(DATA)
        tar.addfile(member, io.BytesIO(DATA))
    data, at = out.getvalue(), 2 * MIB
    digest, url = digest_of(data), origin.put("/a.tar", data)
    raw = await rig.pinned(digest, len(data), url)
    origin.fault("/a.tar", Corrupt(at))
    with pytest.raises(CafsError):
        # Only so that wrong bytes are here when the pass begins.
        await read_by_index(rig, raw, sliced(data, bytes(HERE)))
    assert raw.present() == 0
    ranges = raw.ranges()  # type: ignore[attr-defined]
    await ranges.ensure(Span(0, HERE), USUAL)
    origin.fault("/a.tar", StallBeyond(HERE))
    async with trio.open_nursery() as nursery:
        records = []

        async def plant() -> None:
            records.append(await rig.plant(raw, Patience(60.0)))

        nursery.start_soon(plant)
        await until(lambda: len(origin.requests_for("/a.tar")) > 3)
        await trio.sleep(0.5)  # the pass has seen what is here
        origin.heal("/a.tar")
        assert await read_by_index(rig, raw, sliced(data, data[:HERE])) == data[:200]
        origin.release()
    [record] = records
    assert record.digest == digest
    [slice_] = rig.store.trees.segments(record.number, 0, Span(at, at + 1))
    there = data[slice_.start : slice_.start + slice_.length]
    assert slice_.sha256 == hashlib.sha256(there).digest()


@LOGS
async def test_what_was_wrong_is_fetched_again_while_what_brought_it_goes_on(
    rig: Rig, origin: Origin
) -> None:
    origin.fault("/p", StallBeyond(3 * MIB))
    raw = await rig.pinned(digest_of(DATA), SIZE, origin.put("/p", DATA))
    assert isinstance(raw, GatedContent)
    ranges = raw.ranges()
    assert ranges is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ranges.ensure, Span(0, 6 * MIB), Patience(60.0))
        await until(lambda: raw.present() >= 3 * MIB)
        [flight] = rig.fetcher.inflight()
        assert await ranges.reject(Span(MIB, 2 * MIB))
        began = trio.current_time()
        assert await ranges.read(MIB, 1000, Patience(60.0)) == DATA[MIB : MIB + 1000]
        assert trio.current_time() - began < 50.0
        assert [each.since for each in rig.fetcher.inflight()][:1] == [flight.since]
        origin.heal("/p")
        origin.release()
    assert await ranges.read(0, 6 * MIB, USUAL) == DATA[: 6 * MIB]


async def test_what_was_read_from_memory_is_of_nothing_in_the_store(
    rig: Rig, origin: Origin
) -> None:
    raw = await rig.pinned(digest_of(DATA), SIZE, origin.put("/p", DATA))
    assert isinstance(raw, GatedContent)
    lane = raw._lane
    assert lane.downloader.deposit.overflow.put(raw.key, MIB, DATA[MIB : 2 * MIB])
    feeder = Forward(lane)
    assert await feeder.take(0, MIB, USUAL) == DATA[:MIB]
    assert feeder.of() is not None
    assert await feeder.take(MIB, MIB, USUAL) == DATA[MIB : 2 * MIB]
    assert feeder.of() is None
    feeder.release()
