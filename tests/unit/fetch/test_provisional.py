"""Content that is read as it arrives: each gets what it asked for, and what was wrong is not read
any more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from cafs.errors import DeadlineError, DigestMismatchError
from cafs.fetch.content.exposing import DisownedError
from cafs.fetch.content.gated import GatedContent
from cafs.fetch.content.provisional import ProvisionalContent
from cafs.fetch.interfaces import Patience
from cafs.model.bounds import Bounds
from cafs.model.digest import Digest, digest_of
from cafs.model.span import Span
from cafs.store.disk import locking
from cafs.store.trees.mounts import new_key
from cafs.testing.bodies import Generated
from cafs.testing.faults import Corrupt, IgnoreRange, Rate, StallBeyond, Status
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all, until

MIB = 1 << 20
SIZE = 12 * MIB
FRONT = 4 * MIB
"""What comes at once; the rest is held back."""
WRONG = 6 * MIB
"""The byte that is wrong, where one is."""
DISOWNED = pytest.mark.expects_log("fetch.disowned|fetch.mirror.wrong")
SOON = Patience(0.3)
MOUNT = new_key()


def put(origin: Origin, path: str = "/large") -> tuple[str, Digest]:
    url = origin.put(path, Generated(SIZE, seed=7))
    return url, Digest.parse("sha256:" + Generated(SIZE, seed=7).sha256())


async def opened(rig: Rig, digest: Digest, *urls: str) -> ProvisionalContent:
    content = await rig.pinned(digest, SIZE, *urls, verify="provisional")
    assert isinstance(content, ProvisionalContent)
    return content


async def settled(rig: Rig, content: ProvisionalContent) -> None:
    """Wait until what was handed out has been found right, or wrong."""

    def known() -> bool:
        found = rig.fetcher.exposures.find(content.key)
        return found is None or bool(found.wrong)

    await until(known)


@contextmanager
def held(origin: Origin, path: str = "/large") -> Iterator[None]:
    """Nothing beyond the front comes in this block."""
    origin.fault(path, StallBeyond(at=FRONT))
    try:
        yield
    finally:
        origin.heal(path)
        origin.release()


async def test_bytes_are_read_before_the_rest_has_come(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    with held(origin):
        expected = origin.expected("/large", Span(MIB, MIB + 1000))
        assert await content.read(MIB, 1000, USUAL) == expected
        assert content.digest() is None
        assert not content.checked()
    await settled(rig, content)
    assert content.digest() == digest
    assert content.checked()
    assert rig.fetcher.exposures.find(content.key) is None
    assert await read_all(content) == origin.expected("/large")


async def test_who_wants_it_checked_gets_nothing_meanwhile(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    checked = await rig.pinned(digest, SIZE, url)
    with held(origin):
        await content.read(0, 1000, USUAL)
        with pytest.raises(DeadlineError):
            await checked.read(0, 1000, SOON)
    assert await checked.read(0, 1000, USUAL) == origin.expected("/large", Span(0, 1000))
    assert rig.metrics["fetch.bytes"] <= SIZE + 4 * MIB


async def test_a_reader_goes_before_what_follows_him(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    with held(origin):
        await content.read(0, 1000, USUAL)
        # All that follows is held up; what a reader asks for is not.
        for offset in range(0, FRONT - MIB, MIB):
            found = await content.read(offset, 1000, USUAL)
            assert found == origin.expected("/large", Span(offset, offset + 1000))


async def test_a_reader_does_not_wait_for_what_lies_before_in_the_flight_that_follows_another(
    rig: Rig, origin: Origin
) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    # At this rate another request costs less than what is held back, however busy the machine is.
    origin.fault("/large", StallBeyond(at=MIB, until=6 * MIB), Rate(4 * MIB))
    await content.read(0, 1000, USUAL)
    await until(
        lambda: any(
            one.span.start < MIB and one.span.stop > 8 * MIB for one in rig.fetcher.inflight()
        )
    )
    for offset in (7 * MIB, 6 * MIB + 5, 7 * MIB + 400_000):
        data = await content.read(offset, 1000, USUAL)
        assert data == origin.expected("/large", Span(offset, offset + 1000))
    origin.heal("/large")
    origin.release()
    await settled(rig, content)
    assert content.digest() == digest
    assert rig.metrics["fetch.bytes"] <= SIZE + MIB


@DISOWNED
async def test_after_a_wrong_byte_every_read_fails(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    origin.fault("/large", Corrupt(at=WRONG))
    was = origin.expected("/large", Span(WRONG, WRONG + 10))
    assert await content.read(WRONG, 10, USUAL) != was
    await settled(rig, content)
    for offset in (0, WRONG, SIZE - 10):
        with pytest.raises(DisownedError, match=f"expected {digest}, got sha256:") as failed:
            await content.read(offset, 10, USUAL)
        assert "what was read of it before is wrong" in failed.value.line
        assert "cafs reload" in failed.value.line
    with pytest.raises(DisownedError):
        await content.ensure(Span(0, 1), USUAL)


@DISOWNED
async def test_it_stays_wrong_until_it_is_let_off_and_right(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    origin.fault("/large", Corrupt(at=WRONG))
    await content.read(0, 10, USUAL)
    await settled(rig, content)
    origin.heal("/large")
    await rig.store.blobs.put("", origin.expected("/large"), digest)
    # It is right by now: who has read the wrong one is told all the same.
    with pytest.raises(DisownedError):
        await content.read(WRONG, 10, USUAL)
    await rig.fetcher.exposures.pardon()
    assert await content.read(WRONG, 10, USUAL) == origin.expected(
        "/large", Span(WRONG, WRONG + 10)
    )


@DISOWNED
async def test_what_is_let_off_is_checked_before_it_is_read(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    origin.fault("/large", Corrupt(at=WRONG))
    await content.read(0, 10, USUAL)
    await settled(rig, content)
    await rig.fetcher.exposures.pardon()
    with pytest.raises(DigestMismatchError):
        await content.read(0, 10, USUAL)


@DISOWNED
async def test_the_right_bytes_of_a_mirror_do_not_make_good_what_was_read(
    rig: Rig, origin: Origin
) -> None:
    url, digest = put(origin)
    good, _ = put(origin, "/good")
    origin.fault("/large", Corrupt(at=WRONG))
    origin.fault("/good", Status(code=503))
    content = await opened(rig, digest, url, good)
    await content.read(WRONG, 10, USUAL)
    origin.heal("/good")
    await until(lambda: content.digest() is not None)
    with pytest.raises(DisownedError):
        await content.read(0, 10, USUAL)


@DISOWNED
async def test_who_waits_is_told_at_once(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    with held(origin):
        await content.read(0, 10, USUAL)
        failed: list[DisownedError] = []

        async def wait() -> None:
            with pytest.raises(DisownedError) as error:
                await content.read(SIZE - 10, 10, USUAL)
            failed.append(error.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: len(origin.requests_for("/large")) > 2)
            stream = rig.store.streams.find(content.key)
            assert stream is not None
            await stream.reject(Span(0, 10))
            with pytest.raises(DisownedError, match="have left the store"):
                await content.read(MIB, 10, USUAL)
        assert failed


@DISOWNED
async def test_what_was_wrong_before_anybody_read_it_is_nobodys_harm(
    rig: Rig, origin: Origin
) -> None:
    url, digest = put(origin)
    checked = await rig.pinned(digest, SIZE, url)
    content = await opened(rig, digest, url)
    origin.fault("/large", Corrupt(at=WRONG))
    with pytest.raises(DigestMismatchError):
        await checked.read(0, 10, USUAL)
    # For a while it is known that it is wrong, and nothing of it is handed out.
    with pytest.raises(DigestMismatchError):
        await content.read(0, 10, USUAL)
    assert rig.fetcher.exposures.find(content.key) is None


@DISOWNED
async def test_the_next_worker_knows_what_was_wrong(tmp_path: Path, origin: Origin) -> None:
    url, digest = put(origin)
    origin.fault("/large", Corrupt(at=WRONG))
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        content = await opened(rig, digest, url)
        await content.read(0, 10, USUAL)
        await settled(rig, content)
    origin.heal("/large")
    for _ in range(2):
        async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
            content = await opened(rig, digest, url)
            with pytest.raises(DisownedError, match=f"expected {digest}"):
                await content.read(0, 10, USUAL)
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        await rig.fetcher.exposures.pardon()
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        content = await opened(rig, digest, url)
        assert await content.read(0, 10, USUAL) == origin.expected("/large", Span(0, 10))
        assert content.checked()


@DISOWNED
async def test_the_next_worker_checks_what_the_one_before_handed_out(
    tmp_path: Path, origin: Origin
) -> None:
    url, digest = put(origin)
    origin.fault("/large", Corrupt(at=100))
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        with held(origin):
            content = await opened(rig, digest, url)
            await content.read(0, 200, USUAL)
            origin.fault("/large", Corrupt(at=100))
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        content = await opened(rig, digest, url)
        content.follow()
        await settled(rig, content)
        with pytest.raises(DisownedError):
            await content.read(MIB, 10, USUAL)


@DISOWNED
async def test_what_has_left_the_store_unchecked_is_worth_nothing(
    tmp_path: Path, origin: Origin
) -> None:
    url, digest = put(origin)
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        with held(origin):
            content = await opened(rig, digest, url)
            await content.read(0, 200, USUAL)
            stream = rig.store.streams.find(content.key)
            assert stream is not None
    async with open_rig(origin, tmp_path / "store", mount=MOUNT) as rig:
        stream = rig.store.streams.find(content.key)
        assert stream is not None
        await stream.discard()
        content = await opened(rig, digest, url)
        with pytest.raises(DisownedError, match="have left the store"):
            await content.read(0, 10, USUAL)


async def test_a_blob_that_came_another_way_is_held_against_what_was_read(
    tmp_path: Path, rig: Rig, origin: Origin
) -> None:
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    with held(origin):
        await content.read(0, 200, USUAL)
        await rig.store.blobs.put("", origin.expected("/large"), digest)
        assert await content.read(0, 10, USUAL) == origin.expected("/large", Span(0, 10))
        assert content.checked()
        assert rig.fetcher.exposures.find(content.key) is None


async def test_what_gains_nothing_is_checked_first(
    tmp_path: Path, rig: Rig, origin: Origin
) -> None:
    small = origin.put("/small", b"s" * 1000)
    content = await rig.pinned(digest_of(b"s" * 1000), 1000, small, verify="provisional")
    assert isinstance(content, GatedContent)
    url, digest = put(origin)
    content = await rig.pinned(digest, SIZE, url, ranges=False, verify="provisional")
    assert isinstance(content, GatedContent)


async def test_what_does_not_fit_into_the_store_is_checked_first(
    tmp_path: Path, origin: Origin
) -> None:
    url, digest = put(origin)
    async with open_rig(origin, tmp_path / "store", bounds=Bounds(SIZE // 2, 0)) as rig:
        content = await opened(rig, digest, url)
        with held(origin), pytest.raises(DeadlineError):
            await content.read(0, 10, SOON)


async def test_without_ranges_after_all_it_comes_whole(rig: Rig, origin: Origin) -> None:
    url, digest = put(origin)
    origin.fault("/large", IgnoreRange())
    content = await opened(rig, digest, url)
    assert await content.read(SIZE - 10, 10, USUAL) == origin.expected(
        "/large", Span(SIZE - 10, SIZE)
    )
    assert content.digest() == digest


async def test_what_is_handed_out_has_a_name_when_nothing_is_being_taken_out(
    rig: Rig, origin: Origin
) -> None:
    """In between, the stream has its next generation, and what goes can still be read."""
    url, digest = put(origin)
    content = await opened(rig, digest, url)
    with held(origin):
        await content.read(0, 1000, USUAL)
        [file] = rig.store.path.glob("streams/*/*")
        descriptor = os.open(file, os.O_RDWR)
        found: list[object] = []

        async def look() -> None:
            found.append(await content.settled())

        async with trio.open_nursery() as nursery:
            await trio.to_thread.run_sync(locking.hold_gate, descriptor)
            nursery.start_soon(look)
            await trio.sleep(0.05)
            assert not found
            os.close(descriptor)
        stream = rig.store.streams.find(content.key)
        assert stream is not None
        assert found == [stream.incarnation()]
    await settled(rig, content)
