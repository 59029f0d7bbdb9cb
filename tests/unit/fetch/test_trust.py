"""No read takes bytes with less behind them than it needs: decoded streams say what they come from.

What is decoded is written while the raw content comes, before that has passed its gate; and where
no digest pins the raw content, a source may send other bytes the next time.
"""

import io
import lzma
import random
import tarfile
import zipfile
from pathlib import Path

import pytest
import trio

from cafs.errors import CafsError, DigestMismatchError, SourceChangedError
from cafs.model.digest import digest_of
from cafs.model.identity import archive_tree, decoded_stream
from cafs.model.record import TreeRecord
from cafs.model.span import Span
from cafs.model.trust import VERIFIED, Need
from cafs.store.store import Store
from cafs.testing.faults import Stall
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, until

MIB = 1 << 20


def tar_xz(seed: int, size: int = 3 * MIB) -> bytes:
    """An archive of one file; of whatever seed, all are of one size, and of one shape.

    It is one block, so that it can be decoded from its beginning only.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("file")
        member.size = size
        archive.addfile(member, io.BytesIO(random.Random(seed).randbytes(size)))
    return lzma.compress(out.getvalue(), preset=0)


def zipped(seed: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number in range(3):
            archive.writestr(f"file{number}", random.Random(seed + number).randbytes(200_000))
    return out.getvalue()


async def forget_all(store: Store, record: TreeRecord, data: bytes) -> None:
    """What an eviction may leave: the tree alone."""
    await store.blobs.delete(digest_of(data))
    for stream in record.streams:
        found = store.streams.find(stream.key)
        if found is not None:
            await found.discard()


async def test_a_decoded_stream_says_which_blob_it_was_decoded_from(
    rig: Rig, origin: Origin
) -> None:
    data = tar_xz(1)
    raw = await rig.pinned(digest_of(data), len(data), origin.put("/a.tar.xz", data))
    record = await rig.plant(raw)
    stream = rig.store.streams.find(record.streams[0].key)
    assert stream is not None
    assert stream.behind() == record.digest == digest_of(data)
    assert await stream.read(0, 512, VERIFIED) is not None
    assert await stream.read(0, 512, Need(source=digest_of(b"other"))) is None


async def test_what_is_decoded_of_wrong_bytes_is_read_by_nobody_though_the_tree_is_there(
    rig: Rig, origin: Origin
) -> None:
    right, wrong = tar_xz(1), tar_xz(2)
    url = origin.put("/a.tar.xz", right)
    raw = await rig.pinned(digest_of(right), len(right), url)
    record = await rig.plant(raw)
    await forget_all(rig.store, record, right)
    origin.put("/a.tar.xz", wrong)
    origin.fault("/a.tar.xz", Stall(after_bytes=MIB))
    content = rig.fetcher.decoded(record, 0, raw)
    stream = await rig.store.streams.open(content.key, None)
    got: list[bytes] = []

    async def read() -> None:
        try:
            got.append(await content.read(0, 4096, USUAL))
        except CafsError:
            got.append(b"refused")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await until(lambda: stream.present().covers(Span(0, 4096)))  # decoded, and not checked
        nursery.start_soon(read)
        with trio.move_on_after(0.3):
            await trio.sleep_forever()
        assert got == []
        origin.heal()
        origin.release()
    assert got == [b"refused", b"refused"]
    with pytest.raises(DigestMismatchError):
        await content.read(0, 4096, USUAL)


async def test_an_unpinned_archive_that_became_another_is_never_read_by_the_old_tree(
    origin: Origin, tmp_path: Path
) -> None:
    old, new = tar_xz(1), tar_xz(2)
    url = origin.put("/a.tar.xz", old, etag='"same"')
    async with open_rig(origin, tmp_path / "store") as rig:
        raw = await rig.located(url)
        record = await rig.plant(raw)
        content = rig.fetcher.decoded(record, 0, raw)
        assert await content.read(512, 4096, USUAL) == lzma.decompress(old)[512:][:4096]
        await forget_all(rig.store, record, old)
        origin.put("/a.tar.xz", new, etag='"same"')  # it lies: another version by the same name
        with pytest.raises(SourceChangedError):
            await content.read(512, 4096, USUAL)
    async with open_rig(origin, tmp_path / "store") as rig:
        raw = await rig.located(url)
        record = await rig.plant(raw)
        assert record.digest == digest_of(new)
        content = rig.fetcher.decoded(record, 0, raw)
        assert await content.read(512, 4096, USUAL) == lzma.decompress(new)[512:][:4096]


async def test_members_of_a_zip_are_verified_as_far_as_the_zip_is(
    origin: Origin, tmp_path: Path
) -> None:
    data = zipped(1)
    url = origin.put("/a.zip", data)
    async with open_rig(origin, tmp_path / "store") as rig:
        raw = await rig.located(url)
        record = await rig.plant(raw)
        content = rig.fetcher.decoded(record, 0, raw)
        await content.read(0, 100, USUAL)
        stream = rig.store.streams.find(content.key)
        assert stream is not None
        assert stream.behind() is None  # not all of the zip is here
        assert await stream.read(0, 100) is not None
        assert await stream.read(0, 100, VERIFIED) is None
        await raw.ensure(Span(0, raw.size), USUAL)
        await content.read(200_000, 100, USUAL)  # decoded from the blob that it is now
        stream = rig.store.streams.find(content.key)
        assert stream is not None
        assert stream.behind() == digest_of(data)
        pinned = await rig.pinned(digest_of(data), len(data), url)
        again = rig.fetcher.decoded(await rig.plant(pinned), 0, pinned)
        await again.read(0, 100, USUAL)
        stream = rig.store.streams.find(again.key)
        assert stream is not None
        assert stream.behind() == digest_of(data)


async def test_a_zip_whose_blob_is_evicted_under_its_decoding_is_fetched_again(
    rig: Rig, origin: Origin
) -> None:
    data = zipped(7)
    raw = await rig.pinned(digest_of(data), len(data), origin.put("/a.zip", data))
    record = await rig.plant(raw)
    content = rig.fetcher.decoded(record, 0, raw)
    for number in range(3):
        await forget_all(rig.store, record, data)
        want = random.Random(7 + number).randbytes(200_000)
        assert await content.read(200_000 * number, 200_000, USUAL) == want
        stream = rig.store.streams.find(content.key)
        assert stream is not None
        assert stream.behind() == digest_of(data)


async def test_other_rules_for_the_same_bytes_change_nothing_for_anybody_else(
    rig: Rig, origin: Origin
) -> None:
    """A forged index: the same raw bytes, decoded to something else."""
    data = tar_xz(1)
    raw = await rig.pinned(digest_of(data), len(data), origin.put("/a.tar.xz", data))
    forged = await rig.store.streams.open(
        decoded_stream(raw.key, "xz, from a window that somebody made up"), None
    )
    await forged.write(0, b"forged" * 1000)
    record = await rig.plant(raw)
    content = rig.fetcher.decoded(record, 0, raw)
    assert await content.read(0, 6000, USUAL) == lzma.decompress(data)[:6000]
    assert record.identity == archive_tree(raw.key)
    assert forged.behind() is None
    assert not forged.confirm_sync(digest_of(data))  # it has no size, and is not whole
