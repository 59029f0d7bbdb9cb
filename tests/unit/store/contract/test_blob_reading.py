"""Every store of blobs: what it knows, hands out, lists and removes."""

import os
import random

import pytest
import trio

from cafs.errors import NotFoundError, UnsupportedError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, Digest, digest_of
from cafs.store.interfaces import GET_LIMIT, BlobStore

DATA = b"the bytes of a blob"
DIGEST = digest_of(DATA)
SHA512 = digest_of(DATA, "sha512")
MD5 = digest_of(DATA, "md5")
OTHER = digest_of(b"other bytes")
BLOCK = 13
BLOCKS = [b"block %07d" % number for number in range(1024)]


async def written(blobs: BlobStore, data: bytes, claim: Digest | None = None) -> Descriptor:
    writer = await blobs.create("text/plain")
    await writer.write(data)
    return await writer.commit(claim, None)


async def test_b3_what_nobody_put_is_unknown(blobs: BlobStore) -> None:
    assert blobs.stat(DIGEST) is None
    for call in (blobs.read(DIGEST, 0, 1), blobs.get(DIGEST)):
        with pytest.raises(NotFoundError, match=str(DIGEST)):
            await call
    with pytest.raises(NotFoundError, match=str(DIGEST)):
        blobs.open(DIGEST)
    assert list(blobs.digests()) == []


async def test_b3_what_was_put_is_known_read_and_listed(blobs: BlobStore) -> None:
    assert await blobs.put("text/plain", DATA) == Descriptor("text/plain", DIGEST, len(DATA))
    assert blobs.stat(DIGEST) == Descriptor("text/plain", DIGEST, len(DATA))
    assert await blobs.get(DIGEST) == DATA
    assert list(blobs.digests()) == [DIGEST]


async def test_b5_both_digests_resolve_and_the_answer_is_canonical(blobs: BlobStore) -> None:
    committed = await written(blobs, DATA, SHA512)
    assert blobs.stat(DIGEST) == blobs.stat(SHA512) == committed
    assert committed.digest == DIGEST
    assert await blobs.read(SHA512, 4, 5) == DATA[4:9]
    assert await blobs.get(SHA512) == await blobs.open(SHA512).read(100) == DATA
    assert list(blobs.digests()) == [DIGEST]


async def test_b10_a_weak_digest_is_checked_and_resolves_to_nothing(blobs: BlobStore) -> None:
    await written(blobs, DATA, MD5)
    assert blobs.stat(MD5) is None
    with pytest.raises(NotFoundError):
        await blobs.read(MD5, 0, 1)


async def test_b_s1_the_media_type_of_the_first_who_knew_one_is_kept(blobs: BlobStore) -> None:
    for media_type, kept in [("", OCTETS), ("a/b", "a/b"), ("c/d", "a/b"), ("", "a/b")]:
        assert await blobs.put(media_type, DATA) == Descriptor(kept, DIGEST, len(DATA))
        assert blobs.stat(DIGEST) == Descriptor(kept, DIGEST, len(DATA))


async def test_b17_the_empty_blob_is_always_here_and_can_be_put(blobs: BlobStore) -> None:
    nothing = Descriptor(OCTETS, EMPTY, 0)
    assert blobs.stat(EMPTY) == nothing
    assert await blobs.get(EMPTY) == b""
    assert list(blobs.digests()) == []
    assert await blobs.put("", b"") == nothing
    assert list(blobs.digests()) == [EMPTY]
    await blobs.delete(EMPTY)
    assert blobs.stat(EMPTY) == nothing
    assert await blobs.open(EMPTY).read(1) == b""
    assert list(blobs.digests()) == []


async def test_b20_get_is_capped_and_what_is_larger_is_opened(blobs: BlobStore) -> None:
    data = random.Random(1).randbytes(GET_LIMIT + 1)
    largest = await blobs.put("", data[:-1])
    larger = await blobs.put("", data)
    assert await blobs.get(largest.digest) == data[:-1]
    with pytest.raises(UnsupportedError, match=f"{GET_LIMIT + 1} bytes"):
        await blobs.get(larger.digest)
    reader = blobs.open(larger.digest)
    assert reader.size == GET_LIMIT + 1
    assert await reader.read(GET_LIMIT + 2) == data


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 100, DATA),
        (0, len(DATA), DATA),
        (4, 5, DATA[4:9]),
        (len(DATA) - 1, 2, DATA[-1:]),
        (len(DATA), 1, b""),
        (len(DATA) + 9, 1, b""),
        (3, 0, b""),
    ],
)
async def test_b19_a_read_is_short_only_at_the_end(
    blobs: BlobStore, offset: int, length: int, expected: bytes
) -> None:
    await blobs.put("", DATA)
    assert await blobs.read(DIGEST, offset, length) == expected


async def test_b19_a_negative_offset_is_a_mistake(blobs: BlobStore) -> None:
    await blobs.put("", DATA)
    with pytest.raises(ValueError):
        await blobs.read(DIGEST, -1, 3)


async def test_b19_a_reader_reads_from_front_to_back(blobs: BlobStore) -> None:
    descriptor = await blobs.put("", b"".join(BLOCKS))
    reader = blobs.open(descriptor.digest)
    assert [await reader.read(BLOCK) for _ in range(len(BLOCKS))] == BLOCKS
    assert await reader.read(1) == b""
    assert reader.seek(0) == 0
    assert await reader.read(BLOCK) == BLOCKS[0]


async def test_b19_a_reader_seeks_to_any_of_1024_blocks(blobs: BlobStore) -> None:
    descriptor = await blobs.put("", b"".join(BLOCKS))
    reader = blobs.open(descriptor.digest)
    for number in random.Random(2).sample(range(len(BLOCKS)), len(BLOCKS)):
        assert reader.seek(number * BLOCK) == number * BLOCK
        assert await reader.read(BLOCK) == BLOCKS[number]


async def test_b19_a_reader_seeks_relative_to_where_it_is_and_to_the_end(blobs: BlobStore) -> None:
    await blobs.put("", DATA)
    reader = blobs.open(DIGEST)
    assert reader.seek(0, os.SEEK_END) == reader.size == len(DATA)
    assert reader.seek(-3, os.SEEK_END) == len(DATA) - 3
    assert await reader.read(9) == DATA[-3:]
    assert reader.seek(-4, os.SEEK_CUR) == len(DATA) - 4
    assert await reader.read(1) == DATA[-4:-3]
    assert reader.seek(1000) == 1000
    assert await reader.read(1) == b""


@pytest.mark.parametrize(
    ("offset", "whence"),
    [(-1, os.SEEK_SET), (-3, os.SEEK_CUR), (-len(DATA) - 1, os.SEEK_END), (0, 17)],
)
async def test_b19_a_seek_to_nowhere_is_an_error_and_changes_nothing(
    blobs: BlobStore, offset: int, whence: int
) -> None:
    await blobs.put("", DATA)
    reader = blobs.open(DIGEST)
    assert await reader.read(2) == DATA[:2]
    with pytest.raises(ValueError, match=str(DIGEST)):
        reader.seek(offset, whence)
    assert await reader.read(2) == DATA[2:4]


async def test_b19_a_reader_of_what_was_deleted_gets_an_error_and_no_end(blobs: BlobStore) -> None:
    await blobs.put("", DATA)
    reader = blobs.open(DIGEST)
    assert await reader.read(2) == DATA[:2]
    await blobs.delete(DIGEST)
    with pytest.raises(NotFoundError):
        await reader.read(2)
    assert reader.offset == 2


async def test_delete_forgets_all_names_and_the_bytes_can_be_put_again(blobs: BlobStore) -> None:
    await written(blobs, DATA, SHA512)
    for name in (SHA512, DIGEST):
        await blobs.delete(name)
        assert blobs.stat(DIGEST) is None
        assert blobs.stat(SHA512) is None
        assert list(blobs.digests()) == []
        with pytest.raises(NotFoundError):
            await blobs.read(DIGEST, 0, 1)
        await blobs.put("", DATA)
        assert await blobs.get(DIGEST) == DATA
        assert blobs.stat(SHA512) is None


async def test_deleting_what_is_not_here_changes_nothing(blobs: BlobStore) -> None:
    await blobs.put("", DATA)
    await blobs.delete(OTHER)
    assert list(blobs.digests()) == [DIGEST]


async def test_digests_are_listed_ascending_and_once(blobs: BlobStore) -> None:
    contents = [b"%d" % (number % 20) for number in range(30)]
    for data in contents:
        await written(blobs, data, digest_of(data, "sha384"))
    expected = sorted({digest_of(data) for data in contents}, key=lambda digest: digest.raw)
    assert list(blobs.digests()) == expected


async def test_a_listing_goes_on_while_blobs_come_and_go(blobs: BlobStore) -> None:
    for number in range(5):
        await blobs.put("", b"%d" % number)
    listing = blobs.digests()
    seen = [next(listing)]
    for digest in [*blobs.digests()][2:]:
        await blobs.delete(digest)
    await blobs.put("", b"new")
    seen += listing
    assert len(set(seen)) == len(seen)
    assert [digest.raw for digest in seen] == sorted(digest.raw for digest in seen)


async def test_a_cancelled_read_or_deletion_changes_nothing(blobs: BlobStore) -> None:
    await blobs.put("", DATA)
    reader = blobs.open(DIGEST)
    with trio.CancelScope() as scope:
        scope.cancel()
        await reader.read(3)
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await blobs.delete(DIGEST)
    assert scope.cancelled_caught
    assert await reader.read(3) == DATA[:3]
