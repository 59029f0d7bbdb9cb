import gc
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from cafs.errors import (
    CafsError,
    DeadlineError,
    DigestMismatchError,
    OfflineError,
    RefusedError,
    SizeMismatchError,
    SourceChangedError,
    StorageFullError,
    UnsupportedError,
)
from cafs.fetch import contents as contents_module
from cafs.fetch.flights.depositing import Deposit
from cafs.fetch.flights.overflow import Overflow
from cafs.fetch.flights.sealing import Seal
from cafs.fetch.flights.work import Work, Works
from cafs.fetch.interfaces import Patience, Priority
from cafs.fetch.progress import Progress
from cafs.fetch.sources.failures import Failures
from cafs.model.digest import Digest, Hasher, digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.testing.bodies import Generated
from cafs.testing.faults import (
    ChangedEtag,
    Corrupt,
    Drop,
    IgnoreRange,
    NoLength,
    NoValidators,
    Rate,
    Stall,
)
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, until

MIB = 1 << 20


def digest_at(origin: Origin, path: str) -> Digest:
    return digest_of(origin.expected(path))


async def test_pinned_content_is_fetched_once_and_is_a_blob(rig: Rig, origin: Origin) -> None:
    size = 20 * MIB + 5
    url = origin.put("/pinned", Generated(size, seed=1))
    digest = Digest.parse("sha256:" + Generated(size, seed=1).sha256())
    content = await rig.pinned(digest, size, url)
    expected = origin.expected("/pinned", Span(size - 100, size))
    assert await content.read(size - 100, 4096, USUAL) == expected
    assert content.digest() == digest
    assert rig.store.blobs.stat(digest) is not None
    assert rig.metrics["fetch.bytes"] == size
    assert rig.metrics["fetch.verified"] == size
    assert len(origin.requests_for("/pinned")) == 3


async def test_pinned_readers_share_one_download(rig: Rig, origin: Origin) -> None:
    size = 9 * MIB
    url = origin.put("/pinned", Generated(size, seed=1))
    content = await rig.pinned(digest_at(origin, "/pinned"), size, url)
    right = 0

    async def reader(number: int) -> None:
        nonlocal right
        start = number * 250_000
        data = await content.read(start, 1000, USUAL)
        right += data == origin.expected("/pinned", Span(start, start + 1000))

    async with trio.open_nursery() as nursery:
        for number in range(32):
            nursery.start_soon(reader, number)
    assert right == 32
    assert rig.metrics["fetch.bytes"] == size


async def test_two_contents_of_one_digest_share_one_download(rig: Rig, origin: Origin) -> None:
    size = 5 * MIB
    urls = [origin.put(path, Generated(size, seed=1)) for path in ("/one", "/two")]
    digest = digest_at(origin, "/one")
    async with trio.open_nursery() as nursery:
        for url in urls:
            content = await rig.pinned(digest, size, url)
            nursery.start_soon(content.read, 0, 100, USUAL)
    assert rig.metrics["fetch.bytes"] == size


async def test_a_wrong_digest_hands_out_no_byte(rig: Rig, origin: Origin) -> None:
    url = origin.put("/bad", Generated(2 * MIB, seed=2))
    content = await rig.pinned(digest_of(b"something else"), 2 * MIB, url)
    with pytest.raises(DigestMismatchError, match="/bad"):
        await content.read(0, 1, USUAL)
    assert content.present() == 0
    assert content.digest() is None


async def test_a_wrong_digest_is_not_fetched_again_at_once(rig: Rig, origin: Origin) -> None:
    url = origin.put("/bad", Generated(2 * MIB, seed=2))
    content = await rig.pinned(digest_of(b"something else"), 2 * MIB, url)
    for _ in range(3):
        with pytest.raises(DigestMismatchError):
            await content.read(0, 1, USUAL)
    assert rig.metrics["fetch.bytes"] == 2 * MIB


async def test_one_flipped_bit_anywhere_is_found(rig: Rig, origin: Origin) -> None:
    url = origin.put("/flipped", Generated(3 * MIB, seed=2))
    content = await rig.pinned(digest_at(origin, "/flipped"), 3 * MIB, url)
    origin.fault("/flipped", Corrupt(at=3 * MIB - 1))
    with pytest.raises(DigestMismatchError):
        await content.read(0, 1, USUAL)


@pytest.mark.expects_log("fetch.mirror.wrong")
async def test_a_mirror_serves_what_the_first_source_spoils(rig: Rig, origin: Origin) -> None:
    urls = [origin.put(path, Generated(3 * MIB, seed=3)) for path in ("/spoiled", "/good")]
    origin.fault("/spoiled", Corrupt(at=5))
    content = await rig.pinned(digest_at(origin, "/good"), 3 * MIB, *urls)
    assert await content.read(0, 10, USUAL) == origin.expected("/good", Span(0, 10))


@pytest.mark.parametrize("missing", ["/absent", "/other-size"])
async def test_mirrors_are_tried_in_turn(rig: Rig, origin: Origin, missing: str) -> None:
    origin.put("/other-size", b"short")
    good = origin.put("/good", Generated(3 * MIB, seed=3))
    content = await rig.pinned(
        digest_at(origin, "/good"), 3 * MIB, origin.url(missing), origin.url("/absent"), good
    )
    assert await content.read(0, 10, USUAL) == origin.expected("/good", Span(0, 10))


async def test_a_mirror_goes_on_where_the_first_source_broke(rig: Rig, origin: Origin) -> None:
    size = 8 * MIB
    urls = [origin.put(path, Generated(size, seed=3)) for path in ("/broken", "/good")]
    origin.fault("/broken", Drop(after_bytes=3 * MIB))
    content = await rig.pinned(digest_at(origin, "/good"), size, *urls)
    assert await content.read(0, 10, USUAL) == origin.expected("/good", Span(0, 10))
    assert rig.metrics["fetch.bytes"] <= 1.05 * size


async def test_when_no_source_has_it_the_first_says_so(rig: Rig, origin: Origin) -> None:
    content = await rig.pinned(digest_of(b"x"), 100, origin.url("/first"), origin.url("/second"))
    with pytest.raises(RefusedError) as failed:  # and not ENOENT: a digest names it
        await content.read(0, 1, USUAL)
    assert "/first: 404" in failed.value.line
    assert "/second" not in failed.value.line


@pytest.mark.parametrize("mirrored", [False, True])
async def test_a_source_that_was_shortened_has_other_content_and_others_are_asked(
    rig: Rig, origin: Origin, *, mirrored: bool
) -> None:
    """What lies behind its end is a 416, which by itself tells nothing of the content."""
    body = Generated(8 * MIB, seed=31).read(0, 8 * MIB)
    urls = [origin.put("/short", body[:MIB]), *([origin.put("/whole", body)] if mirrored else ())]
    content = await rig.pinned(digest_of(body), len(body), *urls)
    ranges = rig.fetcher.ranges(content)
    assert ranges is not None
    if mirrored:
        assert await ranges.read(6 * MIB, 100, USUAL) == body[6 * MIB :][:100]
    else:
        with pytest.raises(SizeMismatchError, match=f"{len(body)} bytes, got {MIB}") as failed:
            await ranges.read(6 * MIB, 100, USUAL)
        assert "416" in failed.value.line
    assert any(each.status == 416 for each in origin.requests_for("/short"))


async def test_content_without_any_source_says_that_it_is_not_here(rig: Rig) -> None:
    content = await rig.pinned(digest_of(b"x"), 100)
    with pytest.raises(OfflineError, match="sha256:"):
        await content.read(0, 1, USUAL)


async def test_a_lying_size_is_found(rig: Rig, origin: Origin) -> None:
    url = origin.put("/sized", b"0123456789")
    content = await rig.pinned(digest_of(b"0123456789"), 11, url)
    with pytest.raises(SizeMismatchError):
        await content.read(0, 1, USUAL)


async def test_an_empty_pinned_blob_needs_no_request(rig: Rig, origin: Origin) -> None:
    content = await rig.pinned(digest_of(b""), 0, origin.url("/never"))
    assert await content.read(0, 10, USUAL) == b""
    await content.ensure(Span(0, 0), USUAL)
    assert content.digest() == digest_of(b"")
    assert not origin.requests


async def test_a_pinned_blob_whose_body_breaks_is_continued(rig: Rig, origin: Origin) -> None:
    size = 24 * MIB
    url = origin.put("/broken", Generated(size, seed=4))
    origin.fault("/broken", Drop(after_bytes=1_500_000, times=8))
    content = await rig.pinned(digest_at(origin, "/broken"), size, url)
    await content.ensure(Span(0, size), USUAL)
    assert rig.metrics["fetch.bytes"] <= 1.05 * size


async def test_a_download_that_was_cut_off_is_continued_by_the_next_process(
    origin: Origin, tmp_path: Path
) -> None:
    size = 32 * MIB
    url = origin.put("/resumed", Generated(size, seed=5))
    digest = digest_at(origin, "/resumed")
    total = 0
    async with open_rig(origin, tmp_path / "store") as rig:
        content = await rig.pinned(digest, size, url)
        origin.fault("/resumed", Stall(after_bytes=5 * MIB))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(content.read, 0, 1, USUAL)
            await until(lambda: content.present() > 4 * MIB)
            nursery.cancel_scope.cancel()
        total += rig.metrics["fetch.bytes"]
    origin.heal()
    async with open_rig(origin, tmp_path / "store") as rig:
        content = await rig.pinned(digest, size, url)
        assert await content.read(0, 1, USUAL) == origin.expected("/resumed", Span(0, 1))
        total += rig.metrics["fetch.bytes"]
    assert total <= 1.05 * size


async def test_a_blob_that_is_in_the_store_needs_no_source(origin: Origin, tmp_path: Path) -> None:
    url = origin.put("/kept", Generated(MIB, seed=6))
    digest = digest_at(origin, "/kept")
    async with open_rig(origin, tmp_path / "store") as rig:
        await (await rig.pinned(digest, MIB, url)).read(0, 1, USUAL)
    origin.forget()
    async with open_rig(origin, tmp_path / "store", offline=True) as rig:
        for content in (await rig.pinned(digest, MIB, url), await rig.pinned(digest, None)):
            assert await content.read(5, 7, USUAL) == origin.expected("/kept", Span(5, 12))
            assert content.present() == content.size == MIB
    assert not origin.requests


async def test_a_blob_that_was_deleted_is_fetched_again(rig: Rig, origin: Origin) -> None:
    url = origin.put("/again", Generated(MIB, seed=6))
    digest = digest_at(origin, "/again")
    content = await rig.pinned(digest, MIB, url)
    await content.read(0, 1, USUAL)
    await rig.store.blobs.delete(digest)
    assert await content.read(9, 3, USUAL) == origin.expected("/again", Span(9, 12))
    assert rig.metrics["fetch.bytes"] == 2 * MIB


@pytest.mark.parametrize("size", [0, MIB - 1, MIB + 1])
async def test_a_blob_whose_file_is_damaged_is_fetched_again_once(
    rig: Rig, origin: Origin, size: int
) -> None:
    url = origin.put("/damaged", Generated(MIB, seed=6))
    digest = digest_at(origin, "/damaged")
    content = await rig.pinned(digest, MIB, url)
    await content.read(0, 1, USUAL)
    (path,) = rig.store.path.glob(f"blobs/sha256/*/{digest.hex}")
    path.chmod(0o600)
    os.truncate(path, size)
    with trio.fail_after(30):
        assert await content.read(9, 3, USUAL) == origin.expected("/damaged", Span(9, 12))
    assert rig.metrics["fetch.bytes"] == 2 * MIB


@pytest.mark.expects_log("store.record.broken table=blobs")
async def test_a_blob_whose_record_is_damaged_is_fetched_again_once(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/forgotten", Generated(MIB, seed=6))
    digest = digest_at(origin, "/forgotten")
    content = await rig.pinned(digest, MIB, url)
    await content.read(0, 1, USUAL)
    index = rig.store.trees._index
    table = index.table("blobs")
    index.apply(lambda batch: batch._transaction.put(digest.raw, b"garbage", db=table.handle))
    with trio.fail_after(30):
        assert await content.read(9, 3, USUAL) == origin.expected("/forgotten", Span(9, 12))
    assert rig.metrics["fetch.bytes"] == 2 * MIB


async def test_a_sha512_pin_names_the_canonical_blob(rig: Rig, origin: Origin) -> None:
    url = origin.put("/long", b"some bytes")
    pin = digest_of(b"some bytes", "sha512")
    content = await rig.pinned(pin, 10, url)
    assert await content.read(0, 99, USUAL) == b"some bytes"
    assert content.digest() == digest_of(b"some bytes")
    found = rig.store.blobs.stat(pin)
    assert found is not None
    assert found.digest == digest_of(b"some bytes")


async def test_an_md5_pin_is_checked_and_names_nothing_for_others(rig: Rig, origin: Origin) -> None:
    url = origin.put("/weak", b"some bytes")
    pin = digest_of(b"some bytes", "md5")
    content = await rig.pinned(pin, 10, url)
    assert await content.read(0, 99, USUAL) == b"some bytes"
    assert rig.store.blobs.stat(pin) is None
    gc.collect()
    assert await (await rig.pinned(pin, 10, url)).read(0, 99, USUAL) == b"some bytes"
    assert len(origin.requests) == 1


async def test_a_pinned_blob_of_unknown_size_is_fetched_to_know_it(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/unsized", Generated(3 * MIB + 1, seed=7))
    content = await rig.pinned(digest_at(origin, "/unsized"), None, url)
    assert content.size == 3 * MIB + 1
    assert content.digest() is not None
    assert len(origin.requests) == 1


async def test_what_tells_no_size_and_never_ends_is_refused(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents_module, "UNSIZED_LIMIT", 2 * MIB)
    url = origin.put("/endless", Generated(64 * MIB, seed=7), ranges=False)
    origin.fault("/endless", NoLength(), NoValidators())
    with pytest.raises(UnsupportedError, match="/endless"):
        await rig.located(url)
    assert rig.metrics["fetch.bytes"] < 8 * MIB


async def test_an_empty_blob_with_a_weak_pin_is_checked(rig: Rig, origin: Origin) -> None:
    content = await rig.pinned(digest_of(b"", "md5"), 0, origin.url("/never"))
    assert await content.read(0, 10, USUAL) == b""


async def test_many_blobs_of_one_host_come_side_by_side(rig: Rig, origin: Origin) -> None:
    size = 20 * MIB
    contents = []
    for number in range(10):
        url = origin.put(f"/{number}", Generated(size, seed=number))
        digest = Digest.parse("sha256:" + Generated(size, seed=number).sha256())
        contents.append(await rig.pinned(digest, size, url))
    async with trio.open_nursery() as nursery:
        for content in contents:
            nursery.start_soon(content.ensure, Span(0, 1), USUAL)
    assert rig.metrics["fetch.bytes"] == 10 * size


# -- servers without ranges, content without validators


async def test_a_pinned_blob_of_a_server_without_ranges_is_one_response(
    rig: Rig, origin: Origin
) -> None:
    size = 20 * MIB
    url = origin.put("/rangeless", Generated(size, seed=8), ranges=False)
    content = await rig.pinned(digest_at(origin, "/rangeless"), size, url)
    await content.read(0, 1, USUAL)
    assert len(origin.requests) == 1
    assert rig.metrics["fetch.bytes"] == size


async def test_a_pinned_blob_of_a_server_without_ranges_begins_again_at_0(
    rig: Rig, origin: Origin
) -> None:
    size = 6 * MIB
    url = origin.put("/rangeless", Generated(size, seed=8), ranges=False)
    origin.fault("/rangeless", Drop(after_bytes=2 * MIB, times=2))
    content = await rig.pinned(digest_at(origin, "/rangeless"), size, url)
    await content.read(0, 1, USUAL)
    assert len(origin.requests) == 3
    assert content.digest() is not None


async def test_a_server_that_never_gets_to_the_end_is_given_up(rig: Rig, origin: Origin) -> None:
    size = 6 * MIB
    url = origin.put("/short-breath", Generated(size, seed=8), ranges=False)
    origin.fault("/short-breath", Drop(after_bytes=2 * MIB))
    content = await rig.pinned(digest_at(origin, "/short-breath"), size, url)
    with trio.fail_after(60), pytest.raises(CafsError, match="/short-breath"):
        await content.read(0, 1, Patience(0.5))


@pytest.mark.parametrize("chunked", [False, True])
async def test_content_without_validators_is_one_response(
    rig: Rig, origin: Origin, *, chunked: bool
) -> None:
    size = 5 * MIB
    url = origin.put("/loose", Generated(size, seed=9), ranges=False)
    origin.fault("/loose", NoValidators(), *([NoLength()] if chunked else []))
    content = await rig.located(url)
    assert content.size == size
    pieces = [await content.read(at, MIB, USUAL) for at in range(0, size, MIB)]
    assert b"".join(pieces) == origin.expected("/loose")
    # The answer to the first question was all that was ever asked for.
    assert len(origin.requests) == 1
    assert content.digest() == digest_at(origin, "/loose")


async def test_content_without_validators_shows_nothing_before_it_is_whole(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/loose", Generated(4 * MIB, seed=9))
    origin.fault("/loose", NoValidators())
    content = await rig.located(url)
    origin.fault("/loose", Stall(after_bytes=3 * MIB))
    with pytest.raises(DeadlineError):
        await content.read(0, 10, Patience(0.4))
    origin.release()


async def test_content_without_validators_is_never_a_mix(rig: Rig, origin: Origin) -> None:
    url = origin.put("/mixed", Generated(4 * MIB, seed=9))
    origin.fault("/mixed", NoValidators())
    content = await rig.located(url)
    origin.fault("/mixed", Drop(after_bytes=2 * MIB, times=1))
    await content.ensure(Span(0, 1), USUAL)
    # Another version of the same size, which nothing can tell from the first but its bytes.
    assert content.digest() == digest_at(origin, "/mixed")
    assert [one.bytes_sent for one in origin.requests_for("/mixed")][-1] == 4 * MIB


async def test_the_second_response_is_taken_whole_when_the_content_changed_between(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/mixed", Generated(4 * MIB, seed=9))
    origin.fault("/mixed", NoValidators())
    content = await rig.located(url)
    origin.fault("/mixed", Stall(after_bytes=2 * MIB, times=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.ensure, Span(0, 1), USUAL)
        await until(lambda: origin.requests_for("/mixed")[-1].bytes_sent == 2 * MIB)
        nursery.cancel_scope.cancel()
    origin.put("/mixed", Generated(4 * MIB, seed=10))
    origin.release()
    assert await content.read(0, 4 * MIB, USUAL) == origin.expected("/mixed")


async def test_a_weak_validator_that_changes_is_a_changed_source(rig: Rig, origin: Origin) -> None:
    url = origin.put("/weak", Generated(MIB, seed=9), etag='W/"1"', last_modified=None)
    content = await rig.located(url)
    origin.fault("/weak", ChangedEtag('W/"2"'))
    with pytest.raises(SourceChangedError):
        await content.read(0, 1, USUAL)


async def test_an_open_response_that_nobody_reads_is_closed(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents_module, "_FIRST_S", 0.05)
    url = origin.put("/unread", Generated(64 * MIB, seed=9), ranges=False)
    content = await rig.located(url)
    await until(lambda: origin.requests_for("/unread")[0].ended)
    assert rig.metrics["fetch.bytes"] == 0
    assert await content.read(0, 10, USUAL) == origin.expected("/unread", Span(0, 10))


async def test_a_range_server_that_turns_rangeless_halfway_is_read_again_from_0(
    rig: Rig, origin: Origin
) -> None:
    size = 24 * MIB
    url = origin.put("/turns", Generated(size, seed=11))
    origin.fault("/turns", IgnoreRange(skip=2))
    content = await rig.pinned(digest_at(origin, "/turns"), size, url)
    assert await content.read(0, 9, USUAL) == origin.expected("/turns", Span(0, 9))


# -- prefetch


async def test_y17_prefetch_reports_a_true_total_and_the_end(rig: Rig, origin: Origin) -> None:
    urls = {path: origin.put(path, Generated(3 * MIB, seed=12)) for path in ("/a", "/b")}
    contents = [
        await rig.pinned(digest_at(origin, "/a"), 3 * MIB, urls["/a"]),
        await rig.located(urls["/b"]),
    ]
    calls: list[tuple[int, int]] = []
    await rig.fetcher.prefetch(contents, Progress(lambda *call: calls.append(call), 0.0))
    assert calls[0] == (0, 6 * MIB)
    assert calls[-1] == (6 * MIB, 6 * MIB)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) > 3
    assert all(content.digest() is not None for content in contents)


async def test_prefetch_brings_the_others_when_one_fails(rig: Rig, origin: Origin) -> None:
    url = origin.put("/a", Generated(MIB, seed=12))
    bad = await rig.pinned(digest_of(b"no"), 5, origin.url("/none"))
    good = await rig.pinned(digest_at(origin, "/a"), MIB, url)
    calls: list[tuple[int, int]] = []
    with pytest.raises(RefusedError):
        await rig.fetcher.prefetch([bad, good], Progress(lambda *call: calls.append(call), 0.0))
    assert good.digest() is not None
    assert calls[-1] == (MIB, MIB + 5)


async def test_a_reader_hurries_what_a_prefetch_has_begun(rig: Rig, origin: Origin) -> None:
    url = origin.put("/slow", Generated(2 * MIB, seed=12))
    origin.fault("/slow", Rate(MIB))
    content = await rig.pinned(digest_at(origin, "/slow"), 2 * MIB, url)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.ensure, Span(0, 1), Patience(None, Priority.PREFETCH))
        await until(lambda: bool(rig.fetcher.inflight()))
        assert rig.fetcher.inflight()[0].priority is Priority.PREFETCH
        nursery.start_soon(content.ensure, Span(0, 1), USUAL)
        demanded = {Priority.DEMAND}
        await until(lambda: {one.priority for one in rig.fetcher.inflight()} == demanded)
    assert rig.metrics["fetch.bytes"] == 2 * MIB


async def test_what_is_under_way_is_listed(rig: Rig, origin: Origin) -> None:
    url = origin.put("/listed", Generated(2 * MIB, seed=13))
    origin.fault("/listed", Stall(after_bytes=70_000))
    content = await rig.pinned(digest_at(origin, "/listed"), 2 * MIB, url)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(content.ensure, Span(0, 1), USUAL)
        await until(lambda: any(one.received >= 65_536 for one in rig.fetcher.inflight()))
        (flight,) = rig.fetcher.inflight()
        assert (flight.name, flight.url) == (url, url)
        assert flight.span == Span(0, 2 * MIB)
        assert flight.since > 1_700_000_000
        nursery.cancel_scope.cancel()
    origin.release()
    await until(lambda: not rig.fetcher.inflight())


async def test_many_that_pass_in_memory_share_one_bound(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes are in the store, which has no room to make blobs of them."""
    overflow = rig.fetcher._means.overflow
    overflow.limit = 6 * MIB
    size, most = 5 * MIB, 0
    held: dict[Deposit, int] = {}
    piece, keep = Deposit.piece, Overflow.keep_whole

    async def counted(self: Deposit, offset: int, whole: int) -> bytes | None:
        nonlocal most
        data = await piece(self, offset, whole)
        held[self] = offset + len(data or b"")
        most = max(most, sum(held.values()))
        return data

    def kept(self: Overflow, key: StreamKey, digest: Digest, pieces: Sequence[bytes]) -> bool:
        held.clear()  # at once: what is kept is counted by itself
        return keep(self, key, digest, pieces)

    async def full(self: Seal, hasher: Hasher | None, count: int) -> Digest:
        raise StorageFullError("no space for a record")

    monkeypatch.setattr(Deposit, "piece", counted)
    monkeypatch.setattr(Overflow, "keep_whole", kept)
    monkeypatch.setattr(Seal, "close", full)
    right: list[bool] = []

    async def read(number: int) -> None:
        body = Generated(size, seed=number)
        url = origin.put(f"/{number}", body)
        digest = Digest.parse(f"sha256:{body.sha256()}")
        content = await rig.pinned(digest, size, url)
        try:
            data = await content.read(100, 4096, USUAL)
        except StorageFullError:
            right.append(False)
        else:
            right.append(data == body.read(100, 4096))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(read, number)
    assert True in right
    assert most <= overflow.limit


async def test_a_reader_who_joins_a_prefetch_while_the_disk_is_full_is_served(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a prefetch began passes in memory, for him: so what he waits for has not failed."""
    closing, go = trio.Event(), trio.Event()

    async def full(self: Seal, hasher: Hasher | None, count: int) -> Digest:
        closing.set()
        await go.wait()
        raise StorageFullError("no space for a record")

    monkeypatch.setattr(Seal, "close", full)
    body = Generated(5 * MIB, seed=1)
    url = origin.put("/joined", body)
    content = await rig.pinned(Digest.parse(f"sha256:{body.sha256()}"), body.size, url)
    ended: list[Priority] = []

    async def work(own: Work[None]) -> None:
        await content.ensure(Span(0, body.size), own.patience())

    async with trio.open_nursery() as nursery:
        works = Works[None](nursery, Failures(), rig.metrics)

        async def join(priority: Priority) -> None:
            await works.join("it", "it", work, Patience(60.0, priority))
            ended.append(priority)

        nursery.start_soon(join, Priority.PREFETCH)
        await closing.wait()
        nursery.start_soon(join, Priority.DEMAND)
        await until(lambda: rig.metrics["fetch.joined"] == 1)
        go.set()
    assert Priority.DEMAND in ended
    assert await content.read(100, 4096, USUAL) == body.read(100, 4096)
