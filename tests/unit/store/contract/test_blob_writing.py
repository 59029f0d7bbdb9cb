"""Every store of blobs: uploads, and how they become blobs."""

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

import pytest
import trio

from cafs.errors import DigestMismatchError, NotFoundError, SizeMismatchError, StorageFullError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, Digest, digest_of
from cafs.store.interfaces import BlobStore, Writer

DATA = b"some bytes that are written in pieces"
DIGEST = digest_of(DATA)
SHA512 = digest_of(DATA, "sha512")
MD5 = digest_of(DATA, "md5")
OTHER = digest_of(b"other bytes")

Full = Callable[[], AbstractContextManager[None]]
Ending = Callable[[Writer], Coroutine[Any, Any, object]]


async def commit(writer: Writer) -> Descriptor:
    return await writer.commit(None, None)


async def close(writer: Writer) -> None:
    await writer.close()


async def cancel(writer: Writer) -> None:
    await writer.cancel()


async def begun(blobs: BlobStore, data: bytes = DATA) -> Writer:
    writer = await blobs.create("text/plain")
    await writer.write(data)
    return writer


async def test_a_simple_upload_from_beginning_to_deletion(blobs: BlobStore) -> None:
    """docker/distribution's TestSimpleBlobUpload, step by step."""
    writer = await begun(blobs)
    await writer.cancel()
    with pytest.raises(NotFoundError):
        await blobs.resume(writer.id)
    writer = await begun(blobs)
    offset = writer.size
    await writer.close()
    resumed = await blobs.resume(writer.id)
    assert resumed.size == offset == len(DATA)
    committed = await resumed.commit(DIGEST, len(DATA))
    assert committed == Descriptor("text/plain", DIGEST, len(DATA))
    with pytest.raises(NotFoundError):
        await blobs.resume(writer.id)
    assert blobs.stat(DIGEST) == committed
    assert digest_of(await blobs.get(DIGEST)) == DIGEST
    await blobs.delete(DIGEST)
    assert blobs.stat(DIGEST) is None
    assert await blobs.put("text/plain", DATA) == committed


async def test_b14_an_upload_knows_its_name_and_since_when_it_is(blobs: BlobStore) -> None:
    first, second = await blobs.create(), await blobs.create()
    assert first.id != second.id
    assert 0 < first.started_ns <= second.started_ns
    await first.close()
    resumed = await blobs.resume(first.id)
    assert (resumed.id, resumed.started_ns) == (first.id, first.started_ns)


@pytest.mark.parametrize("identity", ["", "nonsense", "../uploads", "\udcff", "x" * 5000])
async def test_b14_an_unknown_upload_cannot_be_resumed(blobs: BlobStore, identity: str) -> None:
    with pytest.raises(NotFoundError, match="no upload"):
        await blobs.resume(identity)


async def test_b14_an_upload_has_one_writer(blobs: BlobStore) -> None:
    writer = await begun(blobs)
    with pytest.raises(trio.BusyResourceError, match=writer.id):
        await blobs.resume(writer.id)
    await writer.close()
    resumed = await blobs.resume(writer.id)
    with pytest.raises(trio.BusyResourceError, match=writer.id):
        await blobs.resume(writer.id)
    assert (await resumed.commit(DIGEST, None)).digest == DIGEST


@pytest.mark.parametrize("cuts", [(0,), (len(DATA),), (10,), (1, 2, 30), (5, 5)])
async def test_b15_what_was_there_is_hashed_when_an_upload_is_resumed(
    blobs: BlobStore, cuts: tuple[int, ...]
) -> None:
    writer: Writer = await blobs.create()
    at = 0
    for cut in cuts:
        await writer.write(DATA[at:cut])
        await writer.close()
        writer = await blobs.resume(writer.id)
        assert writer.size == cut
        at = cut
    await writer.write(DATA[at:])
    assert (await writer.commit(SHA512, len(DATA))).digest == DIGEST
    assert await blobs.get(DIGEST) == DATA


@pytest.mark.parametrize("parts", [[], [b""], [b"", b""]])
async def test_b17_nothing_written_is_the_empty_blob(blobs: BlobStore, parts: list[bytes]) -> None:
    writer = await blobs.create()
    for part in parts:
        await writer.write(part)
    assert await writer.commit(EMPTY, 0) == Descriptor(OCTETS, EMPTY, 0)


async def test_b18_the_media_type_is_octets_unless_said(blobs: BlobStore) -> None:
    for writer in (await blobs.create(), await blobs.create("")):
        assert (await commit(writer)).media_type == OCTETS


@pytest.mark.parametrize("claim", [None, DIGEST, SHA512, MD5])
async def test_b5_a_right_claim_of_any_algorithm_is_answered_canonically(
    blobs: BlobStore, claim: Digest | None
) -> None:
    writer = await begun(blobs)
    assert blobs.stat(DIGEST) is None
    assert await writer.commit(claim, None) == Descriptor("text/plain", DIGEST, len(DATA))


@pytest.mark.parametrize(
    "claim", [OTHER, digest_of(b"x", "sha512"), digest_of(b"x", "md5"), EMPTY], ids=str
)
async def test_b16_a_wrong_digest_ends_the_upload(blobs: BlobStore, claim: Digest) -> None:
    writer = await begun(blobs)
    with pytest.raises(DigestMismatchError) as caught:
        await writer.commit(claim, len(DATA))
    assert (caught.value.expected, caught.value.actual) == (claim, digest_of(DATA, claim.algorithm))
    assert blobs.stat(DIGEST) is None
    assert claim == EMPTY or blobs.stat(claim) is None
    with pytest.raises(NotFoundError):
        await blobs.resume(writer.id)
    await writer.cancel()
    with pytest.raises(trio.ClosedResourceError):
        await writer.write(b"x")


@pytest.mark.parametrize("size", [0, 9, 11, len(DATA)])
async def test_b16_a_wrong_size_is_an_error_and_the_upload_goes_on(
    blobs: BlobStore, size: int
) -> None:
    """The original overwrites the size that was promised before it compares (B-16)."""
    writer = await begun(blobs, DATA[:10])
    with pytest.raises(SizeMismatchError) as caught:
        await writer.commit(None, size)
    assert (caught.value.expected, caught.value.actual) == (size, 10)
    await writer.write(DATA[10:])
    assert (await writer.commit(DIGEST, len(DATA))).size == len(DATA)


async def test_b16_what_is_here_already_is_kept_once(blobs: BlobStore) -> None:
    for claim in (DIGEST, SHA512, SHA512, None):
        writer = await begun(blobs)
        assert (await writer.commit(claim, None)).digest == DIGEST
    assert list(blobs.digests()) == [DIGEST]
    await blobs.delete(DIGEST)
    assert blobs.stat(SHA512) is None


@pytest.mark.parametrize("end", [commit, close, cancel])
async def test_b4_what_is_over_cannot_be_written_or_committed(
    blobs: BlobStore, end: Ending
) -> None:
    writer = await begun(blobs)
    await end(writer)
    with pytest.raises(trio.ClosedResourceError, match=writer.id):
        await writer.write(b"x")
    with pytest.raises(trio.ClosedResourceError, match=writer.id):
        await writer.commit(None, None)


async def test_b4_close_after_commit_is_an_error(blobs: BlobStore) -> None:
    writer = await begun(blobs)
    await commit(writer)
    with pytest.raises(trio.ClosedResourceError, match="committed"):
        await writer.close()


async def test_b4_close_twice_is_once_and_after_cancel_nothing(blobs: BlobStore) -> None:
    writer = await begun(blobs)
    await writer.close()
    await writer.close()
    await writer.cancel()
    await writer.close()


async def test_b4_cancel_may_come_again_and_after_commit(blobs: BlobStore) -> None:
    writer = await begun(blobs)
    await commit(writer)
    await writer.cancel()
    await writer.cancel()
    assert await blobs.get(DIGEST) == DATA


async def test_b4_a_closed_upload_can_be_cancelled_by_who_closed_it(blobs: BlobStore) -> None:
    writer = await begun(blobs)
    await writer.close()
    await writer.cancel()
    with pytest.raises(NotFoundError):
        await blobs.resume(writer.id)


async def test_b4_who_closed_an_upload_does_not_cancel_it_under_its_next_writer(
    blobs: BlobStore,
) -> None:
    writer = await begun(blobs, DATA[:10])
    await writer.close()
    resumed = await blobs.resume(writer.id)
    await writer.cancel()
    await resumed.write(DATA[10:])
    assert (await resumed.commit(DIGEST, None)).digest == DIGEST


async def test_b4_a_cancelled_task_can_cancel_or_close_its_upload(blobs: BlobStore) -> None:
    left, gone = await begun(blobs), await begun(blobs)
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        finally:
            await gone.cancel()
            await left.close()
    with pytest.raises(NotFoundError):
        await blobs.resume(gone.id)
    assert (await blobs.resume(left.id)).size == len(DATA)


async def test_a_cancelled_write_or_commit_did_nothing(blobs: BlobStore) -> None:
    writer = await begun(blobs, DATA[:10])
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.write(b"x")
    assert scope.cancelled_caught
    assert writer.size == 10
    await writer.write(DATA[10:])
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.commit(DIGEST, None)
    assert scope.cancelled_caught
    assert blobs.stat(DIGEST) is None
    assert (await writer.commit(DIGEST, None)).digest == DIGEST


async def test_a_cancelled_beginning_or_resumption_did_nothing(blobs: BlobStore) -> None:
    writer = await begun(blobs)
    await writer.close()
    for call in (blobs.resume, blobs.create):
        with trio.CancelScope() as scope:
            scope.cancel()
            await call(writer.id)
        assert scope.cancelled_caught
    assert (await (await blobs.resume(writer.id)).commit(DIGEST, None)).digest == DIGEST


async def test_two_writers_of_one_digest_commit_at_once(blobs: BlobStore) -> None:
    data = DATA * 5000
    writers = [await begun(blobs, data) for _ in range(4)]
    found: list[Descriptor] = []

    async def end(writer: Writer, claim: Digest) -> None:
        found.append(await writer.commit(claim, len(data)))

    async with trio.open_nursery() as nursery:
        for number, writer in enumerate(writers):
            algorithm = ("sha256", "sha512")[number % 2]
            nursery.start_soon(end, writer, digest_of(data, algorithm))
    assert found == [Descriptor("text/plain", digest_of(data), len(data))] * 4
    assert list(blobs.digests()) == [digest_of(data)]
    assert await blobs.get(digest_of(data, "sha512")) == data


async def test_writers_of_other_bytes_do_not_meet(blobs: BlobStore) -> None:
    contents = [b"%d " % number * 1000 for number in range(8)]

    async def write(data: bytes) -> None:
        writer = await blobs.create()
        for at in range(0, len(data), 700):
            await writer.write(data[at : at + 700])
        await writer.commit(digest_of(data), len(data))

    async with trio.open_nursery() as nursery:
        for data in contents:
            nursery.start_soon(write, data)
    for data in contents:
        assert await blobs.get(digest_of(data)) == data


async def test_a_full_store_closes_the_writer_and_the_upload_goes_on_later(
    blobs: BlobStore, full: Full
) -> None:
    """Other bytes than those that did not fit may follow, and none of those is left."""
    await blobs.put("", b"kept")
    writer = await begun(blobs, DATA[:10])
    with full(), pytest.raises(StorageFullError):
        await writer.write(b"bytes that do not fit in there")
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        await writer.write(DATA[10:])
    resumed = await blobs.resume(writer.id)
    assert resumed.size == 10
    await resumed.write(DATA[10:])
    assert (await resumed.commit(None, None)).digest == DIGEST
    assert await blobs.get(DIGEST) == DATA


async def test_a_full_store_is_read_and_uploads_in_it_are_cancelled(
    blobs: BlobStore, full: Full
) -> None:
    await blobs.put("", b"kept")
    writer = await begun(blobs)
    with full():
        with pytest.raises(StorageFullError):
            await blobs.put("", b"more")
        assert await blobs.get(digest_of(b"kept")) == b"kept"
        await writer.cancel()
        await blobs.delete(digest_of(b"kept"))
    assert list(blobs.digests()) == []
    with pytest.raises(NotFoundError):
        await blobs.resume(writer.id)
