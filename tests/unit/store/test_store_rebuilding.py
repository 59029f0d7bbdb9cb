"""An index that is made anew: whoever dies over it is followed, and the unfinished is not taken."""

import os
from pathlib import Path

import pytest

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.store.store import open_store

pytestmark = pytest.mark.expects_log("store.(index.broken|blob.quarantined)")

DATA = [os.urandom(1000 + number) for number in range(5)]


async def fill(path: Path) -> None:
    async with open_store(path) as store:
        for number, data in enumerate(DATA):
            key = StreamKey(f"{number:064x}")
            await (await store.streams.open(key, len(data))).write(0, data)
            await store.blobs.admit(key, media_type="", name="x")


async def test_who_dies_over_a_rebuilding_is_followed(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "index" / "broken").touch()
    async with open_store(tmp_path) as store:
        # As far as one came who died: an index with some blobs, and the mark.
        for data in DATA[2:]:
            store.verifier._records.delete(digest_of(data))
        (tmp_path / "rebuilding").touch()
    async with open_store(tmp_path) as store:
        assert {each.raw for each in store.blobs.digests()} == {
            digest_of(data).raw for data in DATA
        }
        for data in DATA:
            assert await store.blobs.read(digest_of(data), 0, 2000) == data
    assert not (tmp_path / "rebuilding").exists()


async def test_who_dies_before_there_is_a_new_index_is_followed(tmp_path: Path) -> None:
    await fill(tmp_path)
    (tmp_path / "rebuilding").touch()
    (tmp_path / "index").rename(tmp_path / "quarantine" / "index-1")
    async with open_store(tmp_path) as store:
        assert len(list(store.blobs.digests())) == len(DATA)
    assert not (tmp_path / "rebuilding").exists()


async def test_a_damaged_blob_is_not_taken_into_the_new_index(tmp_path: Path) -> None:
    await fill(tmp_path)
    digest = digest_of(DATA[0])
    path = tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.chmod(0o600)
    path.write_bytes(DATA[0][:-1] + bytes([DATA[0][-1] ^ 1]))
    (tmp_path / "index" / "broken").touch()
    async with open_store(tmp_path) as store:
        assert store.blobs.stat(digest) is None
        assert len(list(store.blobs.digests())) == len(DATA) - 1
    assert (tmp_path / "quarantine" / digest.hex).exists()
