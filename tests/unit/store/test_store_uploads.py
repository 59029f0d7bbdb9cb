"""Uploads: written from the front, resumed where they ended, committed as what they are."""

import pytest
import trio

from cafs.errors import DigestMismatchError, NotFoundError, SizeMismatchError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, digest_of
from cafs.store.store import Store

DATA = b"some bytes that are written in pieces"
DIGEST = digest_of(DATA)


async def test_a_blob_is_written_and_read(store: Store) -> None:
    writer = await store.blobs.create("text/plain")
    await writer.write(DATA[:10])
    await writer.write(DATA[10:])
    assert writer.size == len(DATA)
    descriptor = await writer.commit(DIGEST, len(DATA))
    assert descriptor == Descriptor("text/plain", DIGEST, len(DATA))
    assert await store.blobs.read(DIGEST, 0, 100) == DATA


async def test_b18_the_media_type_is_octets_unless_said(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    assert (await writer.commit(None, None)).media_type == OCTETS


async def test_b14_an_upload_knows_since_when(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.close()
    resumed = await store.blobs.resume(writer.id)
    assert resumed.id == writer.id
    assert resumed.started_ns == writer.started_ns > 0


async def test_b15_a_resumed_upload_hashes_what_was_there(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA[:10])
    await writer.close()
    resumed = await store.blobs.resume(writer.id)
    assert resumed.size == 10
    await resumed.write(DATA[10:])
    assert (await resumed.commit(DIGEST, len(DATA))).digest == DIGEST


async def test_b14_an_unknown_upload_cannot_be_resumed(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no upload nonsense"):
        await store.blobs.resume("nonsense")


async def test_b16_a_committed_upload_is_over(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    await writer.commit(None, None)
    with pytest.raises(NotFoundError):
        await store.blobs.resume(writer.id)
    with pytest.raises(trio.ClosedResourceError, match="committed"):
        await writer.write(b"x")
    with pytest.raises(trio.ClosedResourceError, match="committed"):
        await writer.commit(None, None)


async def test_b4_close_after_commit_is_an_error(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.commit(None, None)
    with pytest.raises(trio.ClosedResourceError, match="committed"):
        await writer.close()


async def test_b4_a_cancelled_task_can_cancel_its_upload(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.cancel()
    with pytest.raises(NotFoundError):
        await store.blobs.resume(writer.id)
    assert not list(store.path.glob("streams/*/*"))


async def test_b4_cancel_may_be_called_again_and_after_commit(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    await writer.commit(DIGEST, None)
    await writer.cancel()
    await writer.cancel()
    assert store.blobs.stat(DIGEST) is not None


async def test_b4_a_cancelled_upload_is_gone(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    await writer.cancel()
    await writer.cancel()
    assert list(store.path.glob("streams/*/*")) == []
    with pytest.raises(NotFoundError):
        await store.blobs.resume(writer.id)
    with pytest.raises(trio.ClosedResourceError, match="cancelled"):
        await writer.write(b"x")


async def test_close_twice_is_once_and_ends_writing(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.close()
    await writer.close()
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        await writer.write(b"x")
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        await writer.commit(None, None)


async def test_b16_a_wrong_size_leaves_the_upload_going_on(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA[:10])
    with pytest.raises(SizeMismatchError) as caught:
        await writer.commit(DIGEST, len(DATA))
    assert (caught.value.expected, caught.value.actual) == (len(DATA), 10)
    await writer.write(DATA[10:])
    assert (await writer.commit(DIGEST, len(DATA))).digest == DIGEST


async def test_a_wrong_digest_ends_the_upload(store: Store) -> None:
    writer = await store.blobs.create()
    await writer.write(DATA)
    with pytest.raises(DigestMismatchError):
        await writer.commit(digest_of(b"other"), None)
    assert store.blobs.stat(DIGEST) is None
    with pytest.raises(NotFoundError):
        await store.blobs.resume(writer.id)
    await writer.cancel()


async def test_b16_another_algorithm_is_checked_and_resolves(store: Store) -> None:
    sha512 = digest_of(DATA, "sha512")
    writer = await store.blobs.create()
    await writer.write(DATA)
    assert (await writer.commit(sha512, None)).digest == DIGEST
    assert store.blobs.stat(sha512) == store.blobs.stat(DIGEST)


async def test_b17_nothing_written_is_the_empty_blob(store: Store) -> None:
    writer = await store.blobs.create()
    assert await writer.commit(EMPTY, 0) == Descriptor(OCTETS, EMPTY, 0)


async def test_the_same_bytes_may_be_uploaded_again(store: Store) -> None:
    for _ in range(2):
        writer = await store.blobs.create()
        await writer.write(DATA)
        assert (await writer.commit(DIGEST, None)).digest == DIGEST
    assert list(store.blobs.digests()) == [DIGEST]


async def test_after_deletion_the_bytes_can_be_put_again(store: Store) -> None:
    for _ in range(2):
        writer = await store.blobs.create()
        await writer.write(DATA)
        await writer.commit(DIGEST, None)
        await store.blobs.delete(DIGEST)
        assert store.blobs.stat(DIGEST) is None
