"""What is known of blobs is on record, and asked of the disk each time: nothing of it is stale.

These are the rules that a cache of descriptors has (B-9, B-10), for records and files that are one.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from cafs.errors import DigestMismatchError, NotFoundError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import StreamKey
from cafs.store.store import Store, open_store

DATA = b"the bytes of a blob" * 100
DIGEST = digest_of(DATA)
SHA512 = digest_of(DATA, "sha512")
KEY = StreamKey("ab" * 32)
DELETER = """
import sys, trio
from pathlib import Path
from cafs.model.digest import Digest
from cafs.store.store import open_store

async def main():
    async with open_store(Path(sys.argv[1]), boot_id="first") as store:
        await store.blobs.delete(Digest.parse(sys.argv[2]))

trio.run(main)
"""


def path_of(store: Store, digest: Digest) -> Path:
    return store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


def spoil(store: Store, table: str, key: bytes) -> None:
    """Flip a bit of a record, behind the back of its checksum."""
    index = store.uploads._index
    with index._environment.begin(write=True) as transaction:
        handle = index.table(table).handle
        raw = bytearray(transaction.get(key, db=handle) or b"")
        raw[-1] ^= 1
        transaction.put(key, bytes(raw), db=handle)


async def test_b9_a_hit_is_answered_only_while_its_bytes_are_there(store: Store) -> None:
    await store.blobs.put("text/plain", DATA)
    assert store.blobs.stat(DIGEST) == Descriptor("text/plain", DIGEST, len(DATA))
    path_of(store, DIGEST).rename(store.path / "aside")
    assert store.blobs.stat(DIGEST) is None
    (store.path / "aside").rename(path_of(store, DIGEST))
    assert store.blobs.stat(DIGEST) == Descriptor("text/plain", DIGEST, len(DATA))


@pytest.mark.expects_log("store.record.broken")
async def test_b9_a_record_that_cannot_be_read_is_a_miss_and_content_that_comes_again_mends_it(
    store: Store,
) -> None:
    await store.blobs.put("text/plain", DATA)
    spoil(store, "blobs", DIGEST.raw)
    assert store.blobs.stat(DIGEST) is None
    with pytest.raises(NotFoundError):
        await store.blobs.read(DIGEST, 0, 5)
    await store.blobs.put("text/plain", DATA)
    assert store.blobs.stat(DIGEST) == Descriptor("text/plain", DIGEST, len(DATA))
    assert await store.blobs.get(DIGEST) == DATA


@pytest.mark.expects_log("store.record.broken")
async def test_b9_an_alias_that_cannot_be_read_resolves_to_nothing_until_it_is_verified_again(
    store: Store,
) -> None:
    await store.blobs.put("", DATA, SHA512)
    spoil(store, "aliases", b"sha512:" + SHA512.raw)
    assert store.blobs.stat(SHA512) is None
    assert store.blobs.stat(DIGEST) is not None
    await store.blobs.put("", DATA, SHA512)
    assert store.blobs.stat(SHA512) == store.blobs.stat(DIGEST)


async def test_b_s2_what_another_process_deleted_is_gone_at_once_and_can_be_put_again(
    tmp_path: Path,
) -> None:
    """The original answers from its cache, and skips the bytes that it takes for present."""
    async with open_store(tmp_path / "store", boot_id="first") as store:
        await store.blobs.put("text/plain", DATA, SHA512)
        assert await store.blobs.get(SHA512) == DATA
        await trio.run_process(
            [sys.executable, "-c", DELETER, str(store.path), str(DIGEST)], stdout=subprocess.DEVNULL
        )
        assert store.blobs.stat(DIGEST) is store.blobs.stat(SHA512) is None
        with pytest.raises(NotFoundError):
            await store.blobs.read(DIGEST, 0, 5)
        assert await store.blobs.put("a/b", DATA) == Descriptor("a/b", DIGEST, len(DATA))
        assert await store.blobs.get(DIGEST) == DATA


async def test_b10_a_canonical_digest_means_its_own_bytes_and_no_others(store: Store) -> None:
    """What is known under two names has them of two algorithms, never of one."""
    other = digest_of(b"other bytes")
    with pytest.raises(DigestMismatchError):
        await store.blobs.put("", DATA, other)
    await store.blobs.put("", b"other bytes")
    assert store.blobs.stat(other) == Descriptor(OCTETS, other, len(b"other bytes"))
    stream = await store.streams.open(KEY, len(DATA))
    await stream.write(0, DATA)
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST, other], name="x")
    assert store.blobs.stat(DIGEST) is None


async def test_b10_an_alias_goes_with_the_blob_and_is_nobody_elses(store: Store) -> None:
    await store.blobs.put("", DATA, SHA512)
    await store.blobs.put("", b"other bytes", digest_of(b"other bytes", "sha512"))
    await store.blobs.delete(DIGEST)
    assert store.blobs.stat(SHA512) is None
    found = store.blobs.stat(digest_of(b"other bytes", "sha512"))
    assert found is not None
    assert found.digest == digest_of(b"other bytes")
