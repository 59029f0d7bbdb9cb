"""Mirrors: which is asked, which is left, and which had wrong bytes."""

import gzip
from collections.abc import Iterator, Sequence

import pytest
import trio

from cafs.errors import CredentialsError, DigestMismatchError
from cafs.fetch.interfaces import Patience, Source
from cafs.fetch.progress import Progress
from cafs.fetch.sources.rating import Rating
from cafs.model.digest import Digest, digest_of
from cafs.model.pacing import HASTE_S
from cafs.model.resolved import Part
from cafs.testing import archives
from cafs.testing.bodies import Generated
from cafs.testing.faults import (
    Corrupt,
    Drop,
    IgnoreRange,
    Latency,
    Rate,
    Stall,
    Status,
)
from cafs.testing.oddities import Digested
from cafs.testing.origin import Origin, running_origin
from cafs.transport.choosing import Choosing
from tests.unit.fetch.conftest import USUAL, Rig, read_all, until

MIB = 1 << 20
SIZE = 24 * MIB
BODY = Generated(SIZE, seed=9)
PIN = Digest.parse(f"sha256:{BODY.sha256()}")
PATH = "/blob"
WRONG = pytest.mark.expects_log("fetch.mirror.wrong")


@pytest.fixture
def mirrors() -> Iterator[list[Origin]]:
    """Three places that have the same blob."""
    with running_origin() as one, running_origin() as two, running_origin() as three:
        for each in (one, two, three):
            each.put(PATH, BODY)
        yield [one, two, three]


def urls(mirrors: Sequence[Origin]) -> list[str]:
    return [each.url(PATH) for each in mirrors]


def told(rig: Rig, origin: Origin) -> Rating | None:
    """What is known of an origin's host."""
    names = {rating.host: rating for rating in rig.fetcher.mirrors()}
    return names.get(f"127.0.0.1:{origin.port}")


def state(rig: Rig, origin: Origin) -> str:
    rating = told(rig, origin)
    return "unasked" if rating is None else rating.state


async def bring(rig: Rig, mirrors: Sequence[Origin]) -> None:
    """Read all of the blob, and see that it is right."""
    content = await rig.pinned(PIN, SIZE, *urls(mirrors))
    await rig.fetcher.prefetch([content], Progress(lambda *_: None, 1.0), USUAL)
    for offset in range(0, SIZE, 4 * MIB):
        assert await content.read(offset, 4 * MIB, USUAL) == BODY.read(offset, 4 * MIB)


async def test_two_good_mirrors_are_both_used(rig: Rig, mirrors: list[Origin]) -> None:
    await bring(rig, mirrors[:2])
    sent = [each.bytes_sent() for each in mirrors[:2]]
    assert min(sent) >= 4 * MIB
    assert rig.metrics["fetch.bytes"] == SIZE
    ratings = [told(rig, each) for each in mirrors[:2]]
    assert all(rating is not None and rating.state == "ok" for rating in ratings)
    assert sum(rating.received for rating in ratings if rating is not None) == SIZE
    assert all(rating is not None and rating.latency_s for rating in ratings)


async def test_a_mirror_without_it_is_asked_once_and_the_next_one_has_it(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].remove(PATH)
    await bring(rig, mirrors[:2])
    assert len(mirrors[0].requests) == 1
    assert state(rig, mirrors[0]) == "ok"


@pytest.mark.parametrize("code", [401, 403])
async def test_a_mirror_that_wants_credentials_is_told_and_the_next_one_has_it(
    rig: Rig, mirrors: list[Origin], code: int
) -> None:
    mirrors[0].fault(PATH, Status(code))
    await bring(rig, mirrors[:2])
    rating = told(rig, mirrors[0])
    assert rating is not None
    assert rating.state == "failing"
    assert str(code) in rating.why


async def test_a_mirror_with_another_size_is_told_and_the_next_one_is_read(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].put(PATH, b"cut off")
    await bring(rig, mirrors[:2])
    rating = told(rig, mirrors[0])
    assert rating is not None
    assert rating.state == "failing"
    assert f"expected {SIZE} bytes" in rating.why


async def test_when_all_refuse_the_first_one_says_why(rig: Rig, mirrors: list[Origin]) -> None:
    mirrors[0].fault(PATH, Status(403))
    mirrors[1].remove(PATH)
    content = await rig.pinned(PIN, SIZE, *urls(mirrors[:2]))
    with pytest.raises(CredentialsError, match="403"):
        await content.read(0, 1, USUAL)


async def test_a_mirror_that_nothing_here_can_ask_leaves_it_to_the_next_one(
    rig: Rig, mirrors: list[Origin]
) -> None:
    part = Part(media_type="x/y", size=SIZE, digest=PIN, urls=("s3://b/k", mirrors[0].url(PATH)))
    transport = Choosing({"http": rig.transport})
    sources = [Source(transport, url) for url in part.urls]
    content = await rig.fetcher.content(part, sources, name="blob")
    assert await content.read(5, 9, USUAL) == BODY.read(5, 9)


async def test_a_dead_mirror_is_asked_ever_more_seldom(rig: Rig, mirrors: list[Origin]) -> None:
    mirrors[0].stop()
    await bring(rig, mirrors[:2])
    assert state(rig, mirrors[0]) == "failing"
    assert rig.metrics["fetch.retries"] <= 2
    mirrors[0].start()


async def test_a_slow_mirror_is_left_half_way_and_not_asked_for_more(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].fault(PATH, Rate(200 << 10))
    with trio.fail_after(60):  # all of it, at the rate of the slow one, takes two minutes
        await bring(rig, mirrors[:2])
    assert mirrors[0].bytes_sent() < 8 * MIB
    assert state(rig, mirrors[0]) == "slow"
    assert state(rig, mirrors[1]) == "ok"


@pytest.mark.parametrize("rate", [50 << 10, 100], ids=["slow", "drips"])
@pytest.mark.parametrize("size", [100_000, 5 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("ranges", [False, True], ids=["whole", "ranges"])
async def test_a_slow_mirror_is_left_for_another_also_where_that_begins_again(
    rig: Rig, mirrors: list[Origin], ranges: bool, size: int, rate: int
) -> None:
    body = BODY.read(0, size)
    for each in mirrors[:2]:
        each.put(PATH, body, ranges=ranges)
    mirrors[0].fault(PATH, Rate(rate if size > MIB else rate // 10))
    content = await rig.pinned(digest_of(body), size, *urls(mirrors[:2]))
    with trio.fail_after(15):  # of the slow one, it takes between 20 s and hours
        assert await content.read(0, size, USUAL) == body
    assert mirrors[0].requests
    assert mirrors[0].bytes_sent() < size


@pytest.mark.parametrize("ranges", [False, True], ids=["whole", "ranges"])
async def test_a_mirror_that_falls_silent_in_the_middle_is_left_as_soon_as_one_that_does_not_answer(
    rig: Rig, mirrors: list[Origin], ranges: bool
) -> None:
    for each in mirrors[:2]:
        each.put(PATH, BODY, ranges=ranges)
    mirrors[0].fault(PATH, Stall(after_bytes=MIB))
    content = await rig.pinned(PIN, SIZE, *urls(mirrors[:2]))
    with trio.fail_after(HASTE_S + 12):
        assert await content.read(MIB, 9, USUAL) == BODY.read(MIB, 9)


async def test_two_slow_mirrors_do_not_send_a_reader_to_and_fro(
    rig: Rig, mirrors: list[Origin]
) -> None:
    body = BODY.read(0, 400_000)
    for each in mirrors[:2]:
        each.put(PATH, body, ranges=False)
        each.fault(PATH, Rate(100_000))
    content = await rig.pinned(digest_of(body), len(body), *urls(mirrors[:2]))
    assert await content.read(0, 9, USUAL) == body[:9]
    assert max(len(each.requests) for each in mirrors[:2]) == 1


async def test_a_mirror_that_breaks_off_is_continued_elsewhere(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].fault(PATH, Drop(after_bytes=MIB))
    await bring(rig, mirrors[:2])
    assert rig.metrics["fetch.bytes"] == SIZE


async def test_a_mirror_without_ranges_does_not_make_the_others_be_read_whole(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[1].fault(PATH, IgnoreRange())
    await bring(rig, mirrors[:2])
    assert rig.metrics["fetch.bytes"] <= SIZE + MIB
    assert len(mirrors[0].requests) > 2


@WRONG
@pytest.mark.parametrize("bad", [0, 1])
@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1])
async def test_one_corrupt_byte_of_one_of_two_mirrors_is_nobodys_but_its_own(
    rig: Rig, mirrors: list[Origin], bad: int, at: int
) -> None:
    mirrors[bad].fault(PATH, Corrupt(at=at))
    # The good one is slow enough for the bad one to be asked for every part.
    mirrors[1 - bad].fault(PATH, Latency(0.05))
    await bring(rig, mirrors[:2])
    if any_sent(mirrors[bad], at):
        await until(lambda: state(rig, mirrors[bad]) == "wrong")
    assert state(rig, mirrors[1 - bad]) in {"ok", "slow"}


def any_sent(origin: Origin, at: int) -> bool:
    """Whether an origin was asked for a byte."""
    for each in origin.requests_for(PATH):
        first, _, last = (each.header("range") or "bytes=0-").removeprefix("bytes=").partition("-")
        if int(first) <= at <= int(last or SIZE):
            return True
    return False


@WRONG
async def test_a_mirror_whose_bytes_contradict_its_own_digest_is_named_at_once(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].fault(PATH, Digested("Content-Digest"), Corrupt(at=5))
    await bring(rig, mirrors[:2])
    assert [state(rig, each) for each in mirrors[:2]] == ["wrong", "ok"]
    assert mirrors[1].bytes_sent() <= 2 * SIZE


@WRONG
async def test_two_wrong_mirrors_of_three_are_both_named(rig: Rig, mirrors: list[Origin]) -> None:
    for each in mirrors[:2]:
        each.fault(PATH, *(Corrupt(at=at) for at in range(0, SIZE, MIB)))
    await bring(rig, mirrors)
    await until(lambda: [state(rig, each) for each in mirrors] == ["wrong", "wrong", "ok"])


async def test_when_all_mirrors_are_wrong_no_byte_is_handed_out(
    rig: Rig, mirrors: list[Origin]
) -> None:
    content = await rig.pinned(digest_of(b"something else"), SIZE, *urls(mirrors[:2]))
    with pytest.raises(DigestMismatchError):
        await content.read(0, 1, USUAL)
    assert content.present() == 0
    # Each had to show all that it has, and what it had shown already was not asked for again.
    assert rig.metrics["fetch.bytes"] <= 3 * SIZE
    assert [state(rig, each) for each in mirrors[:2]] == ["wrong", "wrong"]


@WRONG
async def test_the_right_source_is_down_while_it_is_found_out_whose_bytes_were_wrong(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].fault(PATH, Corrupt(at=5))
    mirrors[1].fault(PATH, Status(503))
    content = await rig.pinned(PIN, SIZE, *urls(mirrors[:2]))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await content.read(0, 10, Patience(None)) == BODY.read(0, 10)

        nursery.start_soon(read)
        await until(lambda: state(rig, mirrors[0]) == "wrong")
        asked = len(mirrors[1].requests)
        await until(lambda: len(mirrors[1].requests) > asked)
        mirrors[1].heal()
    assert content.digest() == PIN


@WRONG
async def test_an_archive_of_which_a_mirror_has_a_wrong_byte_is_opened_right(
    rig: Rig, mirrors: list[Origin]
) -> None:
    items = tuple(archives.file(f"f{number}", f"{number}" * 9000) for number in range(300))
    data = gzip.compress(archives.tar(items), mtime=0)
    for each in mirrors[:2]:
        each.put("/a.tar.gz", data)
    mirrors[0].fault("/a.tar.gz", Corrupt(at=len(data) // 2))
    places = [each.url("/a.tar.gz") for each in mirrors[:2]]
    raw = await rig.pinned(digest_of(data), len(data), *places)
    record = await rig.plant(raw)
    assert record.count > len(items)
    await until(lambda: state(rig, mirrors[0]) == "wrong")


@WRONG
async def test_a_plain_archive_whose_wrong_byte_is_in_a_file_is_opened_right(
    rig: Rig, mirrors: list[Origin]
) -> None:
    data = archives.tar((archives.file("big", "x" * (3 * MIB)),))
    for each in mirrors[:2]:
        each.put("/a.tar", data)
    mirrors[0].fault("/a.tar", Corrupt(at=2 * MIB))
    raw = await rig.pinned(digest_of(data), len(data), *(m.url("/a.tar") for m in mirrors[:2]))
    await rig.plant(raw)
    assert await read_all(raw) == data
    assert state(rig, mirrors[0]) == "wrong"


async def test_a_second_ref_to_the_same_content_adds_its_mirrors(
    rig: Rig, mirrors: list[Origin]
) -> None:
    mirrors[0].fault(PATH, Status(503))
    first = await rig.pinned(PIN, SIZE, *urls(mirrors[:1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.read, 0, 1, Patience(None))
        await until(lambda: rig.metrics["fetch.retries"] > 0)
        await rig.pinned(PIN, SIZE, *urls(mirrors[1:2]))
    assert first.digest() == PIN


@WRONG
@pytest.mark.parametrize("right", [True, False], ids=["a lying header", "damaged bytes"])
async def test_an_archive_whose_bytes_contradict_their_header_at_the_end_is_opened_right(
    rig: Rig, mirrors: list[Origin], right: bool
) -> None:
    """The pass has taken nearly all of them by then, and they are thrown away."""
    data = archives.tar((archives.file("big", Generated(3 * MIB, seed=4).read(0, 3 * MIB)),))
    for each in mirrors[:2]:
        each.put("/a.tar", data)
    lie = [Digested("Content-Digest", wrong=True)] if right else [Digested("Content-Digest")]
    mirrors[0].fault("/a.tar", *lie, *([] if right else [Corrupt(at=2 * MIB)]))
    mirrors[1].fault("/a.tar", Latency(0.1))
    raw = await rig.pinned(digest_of(data), len(data), *(m.url("/a.tar") for m in mirrors[:2]))
    await rig.plant(raw)
    assert raw.digest() == digest_of(data)
    assert state(rig, mirrors[0]) == "wrong"
