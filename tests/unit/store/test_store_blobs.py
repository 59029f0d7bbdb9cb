"""Blobs: the gate, aliases, and what becomes of bytes that are not what was promised."""

import errno
import json
import os
import stat
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from cafs.errors import DigestMismatchError, NotFoundError, SizeMismatchError, StorageError
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import EMPTY, Digest, Hasher, digest_of
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.span import Span, SpanSet
from cafs.store.blobs.admission import NotWholeError
from cafs.store.disk.files import erase
from cafs.store.store import Store, open_store
from cafs.store.streams.stream import Stream
from cafs.store.streams.witness import Seen

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)
DATA = bytes(range(256)) * 40
DIGEST = digest_of(DATA)
SHA512 = digest_of(DATA, "sha512")
MD5 = digest_of(DATA, "md5")
WRONG = digest_of(b"other bytes")


async def filled(store: Store, key: StreamKey = KEY, data: bytes = DATA) -> Stream:
    stream = await store.streams.open(key, len(data))
    await stream.write(0, data)
    return stream


def blob_path(store: Store, digest: Digest = DIGEST) -> Path:
    return store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


async def test_b5_admission_answers_the_canonical_descriptor(store: Store) -> None:
    await filled(store)
    descriptor = await store.blobs.admit(
        KEY, media_type="text/plain", claims=[SHA512, DIGEST], size=len(DATA), name="x"
    )
    assert descriptor == Descriptor("text/plain", DIGEST, len(DATA))
    assert store.blobs.stat(DIGEST) == descriptor
    assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


async def test_b10_other_digests_of_the_same_bytes_resolve(store: Store) -> None:
    await filled(store)
    await store.blobs.admit(KEY, media_type="", claims=[SHA512], name="x")
    assert store.blobs.stat(SHA512) == Descriptor(OCTETS, DIGEST, len(DATA))
    assert await store.blobs.read(SHA512, 5, 10) == DATA[5:15]


async def test_weak_digests_are_checked_and_become_no_alias(store: Store) -> None:
    await filled(store)
    await store.blobs.admit(KEY, media_type="", claims=[MD5], name="x")
    assert store.blobs.stat(MD5) is None
    await filled(store, OTHER, b"other bytes")
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(OTHER, media_type="", claims=[MD5], name="x")


async def test_an_admitted_stream_reads_from_the_blob(store: Store) -> None:
    stream = await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    assert list(store.path.glob("streams/*/*")) == []
    assert stream.digest() == DIGEST
    assert stream.present() == SpanSet([Span(0, len(DATA))])
    assert await stream.read(100, 50) == DATA[100:150]
    await stream.write(0, b"ignored")
    assert await stream.read(0, 7) == DATA[:7]


async def test_a_blob_is_read_only_and_in_its_place(store: Store) -> None:
    await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    assert blob_path(store).stat().st_mode & 0o777 == 0o444
    assert blob_path(store).read_bytes() == DATA


async def test_streams_named_by_a_verified_digest_are_the_blob(store: Store) -> None:
    """What came by one name need not come by another."""
    partial = await store.streams.open(raw_stream(SHA512), len(DATA))
    await partial.write(0, DATA[:10])
    await filled(store)
    await store.blobs.admit(KEY, media_type="", claims=[SHA512, MD5], name="x")
    assert await partial.read(5, 20) == DATA[5:25]
    by_digest = await store.streams.open(raw_stream(DIGEST), len(DATA))
    assert by_digest.digest() == DIGEST
    assert store.streams.find(raw_stream(MD5)) is None
    assert list(store.path.glob("streams/*/*")) == []


@pytest.mark.parametrize("write", [0, 10, len(DATA) - 1])
async def test_a_stream_that_is_not_whole_is_a_mistake(store: Store, write: int) -> None:
    stream = await store.streams.open(KEY, len(DATA))
    await stream.write(0, DATA[:write])
    with pytest.raises(NotWholeError, match="not whole"):
        await store.blobs.admit(KEY, media_type="", name="x")
    await stream.write(write, DATA[write:])
    await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")


async def test_a_stream_of_unknown_size_is_not_whole(store: Store) -> None:
    stream = await store.streams.open(KEY, None)
    await stream.write(0, DATA)
    with pytest.raises(NotWholeError, match="not whole"):
        await store.blobs.admit(KEY, media_type="", name="x")


async def test_an_unknown_stream_is_a_mistake(store: Store) -> None:
    with pytest.raises(NotWholeError, match="not there"):
        await store.blobs.admit(KEY, media_type="", name="x")


async def test_rule_3_a_wrong_digest_is_quarantined_with_a_note(store: Store) -> None:
    stream = await filled(store)
    with pytest.raises(DigestMismatchError, match="the thing") as caught:
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST, WRONG], name="the thing")
    assert (caught.value.expected, caught.value.actual) == (WRONG, DIGEST)
    assert store.blobs.stat(DIGEST) is None
    assert store.blobs.stat(WRONG) is None
    assert not stream.present()
    assert await stream.read(0, 1) is None
    note, kept = sorted(store.path.glob("quarantine/*"), key=lambda path: path.suffix != ".json")
    assert kept.read_bytes() == DATA
    said = json.loads(note.read_bytes())
    assert said["v"] == 1
    assert said["name"] == "the thing"
    assert str(WRONG) in said["error"]


async def test_wrong_bytes_are_told_and_put_aside_where_the_disk_has_no_room_for_a_note(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(store)

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(DigestMismatchError):
            await store.blobs.admit(KEY, media_type="", claims=[WRONG], name="x")
    assert store.streams.find(KEY) is None
    [aside] = (store.path / "quarantine").iterdir()
    assert aside.read_bytes() == DATA


async def test_a_source_that_stays_wrong_fills_no_disk(store: Store) -> None:
    for data in (b"a" * 100, b"b" * 100, b"c" * 100):
        await filled(store, data=data)
        with pytest.raises(DigestMismatchError):
            await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    kept = [path for path in store.path.glob("quarantine/*") if path.suffix != ".json"]
    assert [path.read_bytes() for path in kept] == [b"c" * 100]
    assert len(list(store.path.glob("quarantine/*.json"))) == 1


async def test_what_the_disk_could_not_write_is_not_admitted_by_a_second_try(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await filled(store)

    def failing(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(StorageError):
            await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    assert not stream.present()
    assert store.blobs.stat(DIGEST) is None
    await stream.write(0, DATA)
    await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    assert await store.blobs.read(DIGEST, 0, 5) == DATA[:5]


async def test_a_wrong_size_is_quarantined(store: Store) -> None:
    stream = await filled(store)
    with pytest.raises(SizeMismatchError):
        await store.blobs.admit(KEY, media_type="", size=len(DATA) + 1, name="x")
    assert not stream.present()


async def test_a_quarantined_stream_can_be_filled_again(store: Store) -> None:
    stream = await filled(store, data=b"x" * len(DATA))
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    await stream.write(0, DATA)
    await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    assert await stream.read(0, 5) == DATA[:5]


async def test_claims_on_an_admitted_stream_are_checked(store: Store) -> None:
    stream = await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[WRONG], name="x")
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[digest_of(b"", "sha512")], name="x")
    with pytest.raises(SizeMismatchError):
        await store.blobs.admit(KEY, media_type="", size=1, name="x")
    assert await stream.read(0, 5) == DATA[:5]
    again = await store.blobs.admit(KEY, media_type="", claims=[SHA512], name="x")
    assert again.digest == DIGEST
    assert store.blobs.stat(SHA512) is not None


async def test_the_same_bytes_are_kept_once(store: Store) -> None:
    await filled(store)
    await filled(store, OTHER)
    await store.blobs.admit(KEY, media_type="", name="x")
    inode = blob_path(store).stat().st_ino
    await store.blobs.admit(OTHER, media_type="", name="x")
    assert blob_path(store).stat().st_ino == inode
    assert list(store.path.glob("streams/*/*")) == []
    assert list(store.blobs.digests()) == [DIGEST]


async def test_b_s9_a_damaged_blob_is_replaced_by_admission(store: Store) -> None:
    await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    blob_path(store).unlink()
    blob_path(store).write_bytes(DATA[:-1])
    assert store.blobs.stat(DIGEST) is None
    await filled(store, OTHER)
    await store.blobs.admit(OTHER, media_type="", name="x")
    assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b""])
async def test_a_blob_that_was_cut_or_has_grown_is_filled_anew(store: Store, data: bytes) -> None:
    stream = await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    blob_path(store).unlink()
    blob_path(store).write_bytes(data)
    assert not stream.present()
    assert store.streams.find(KEY) is None
    await stream.write(0, DATA)
    assert stream.digest() is None
    assert await stream.read(0, len(DATA)) == DATA
    await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


async def test_an_unrecorded_file_in_place_of_a_blob_is_not_trusted(store: Store) -> None:
    blob_path(store).parent.mkdir()
    blob_path(store).write_bytes(b"\0" * len(DATA))
    assert store.blobs.stat(DIGEST) is None
    await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


async def test_a_vanished_blob_is_absent_everywhere(store: Store) -> None:
    stream = await filled(store)
    await store.blobs.admit(KEY, media_type="", claims=[SHA512], name="x")
    blob_path(store).unlink()
    assert store.blobs.stat(DIGEST) is None
    assert store.blobs.stat(SHA512) is None
    assert not stream.present()
    assert await stream.read(0, 5) is None
    with pytest.raises(NotFoundError):
        await store.blobs.read(DIGEST, 0, 5)
    again = await store.streams.open(KEY, len(DATA))
    await again.write(0, DATA)
    await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    assert await store.blobs.read(DIGEST, 0, 5) == DATA[:5]
    assert await stream.read(0, 5) == DATA[:5]


@pytest.mark.parametrize("damaged", [False, True])
async def test_what_others_have_removed_and_brought_anew_is_read_though_the_former_was_open(
    store: Store, damaged: bool
) -> None:
    """Another process made room, or found that a disk had changed a byte, and fetched it again."""
    data = DATA * 10
    digest = digest_of(data)
    stream = await filled(store, KEY, data)
    await store.blobs.admit(KEY, media_type="", name="x")
    path = blob_path(store, digest)
    reads: list[Callable[[int, int], Awaitable[bytes | None]]]
    reads = [partial(store.blobs.read, digest), stream.read]
    for read in reads:
        assert await read(5, 10) == data[5:15]  # its file is open from now on
        if damaged:
            path.chmod(0o600)
            path.write_bytes(bytes(len(data)))
            path.rename(store.path / "quarantine" / path.name)
        else:
            erase(path)
        path.write_bytes(data)
        assert await read(5, 10) == data[5:15]
        assert stream.digest() == digest
    assert store.blobs.stat(digest) is not None


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (len(DATA), 5), (len(DATA) + 9, 5)])
async def test_reading_behind_the_end_is_empty(store: Store, offset: int, length: int) -> None:
    await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    assert await store.blobs.read(DIGEST, offset, length) == b""


async def test_reading_what_is_not_here_says_so(store: Store) -> None:
    with pytest.raises(NotFoundError, match=str(WRONG)):
        await store.blobs.read(WRONG, 0, 1)


async def test_b17_the_empty_blob_is_always_here(store: Store) -> None:
    assert store.blobs.stat(EMPTY) == Descriptor(OCTETS, EMPTY, 0)
    assert await store.blobs.read(EMPTY, 0, 10) == b""
    await store.streams.open(KEY, 0)
    assert (await store.blobs.admit(KEY, media_type="", name="x")).digest == EMPTY
    stream = store.streams.find(KEY)
    assert stream is not None
    assert await stream.read(0, 10) == b""
    blob_path(store, EMPTY).unlink()
    assert store.blobs.stat(EMPTY) == Descriptor(OCTETS, EMPTY, 0)


async def test_delete_forgets_all_names(store: Store) -> None:
    stream = await filled(store)
    await store.blobs.admit(KEY, media_type="", claims=[SHA512], name="x")
    await store.blobs.delete(SHA512)
    assert store.blobs.stat(DIGEST) is None
    assert store.blobs.stat(SHA512) is None
    assert not blob_path(store).exists()
    assert not stream.present()
    assert store.streams.find(raw_stream(DIGEST)) is None
    assert list(store.blobs.digests()) == []
    await store.blobs.delete(DIGEST)
    await filled(store)
    assert (await store.blobs.admit(KEY, media_type="", name="x")).digest == DIGEST


async def test_discarding_an_admitted_stream_leaves_the_blob(store: Store) -> None:
    stream = await filled(store)
    await store.blobs.admit(KEY, media_type="", name="x")
    await stream.discard()
    assert store.streams.find(KEY) is None
    assert await store.blobs.read(DIGEST, 0, 5) == DATA[:5]


async def test_digests_are_listed_sorted_and_in_pages(store: Store) -> None:
    contents = [b"%d" % number for number in range(40)]
    for number, data in enumerate(contents):
        key = StreamKey(f"{number:064x}")
        await filled(store, key, data)
        await store.blobs.admit(key, media_type="", name="x")
    expected = sorted((digest_of(data) for data in contents), key=lambda digest: digest.raw)
    assert list(store.blobs.digests()) == expected


async def test_media_type_of_the_first_who_knew_is_kept(store: Store) -> None:
    for media_type, expected in [("", OCTETS), ("a/b", "a/b"), ("c/d", "a/b")]:
        await filled(store, OTHER)
        await store.blobs.admit(OTHER, media_type=media_type, name="x")
        found = store.blobs.stat(DIGEST)
        assert found is not None
        assert found.media_type == expected


def hashing(data: bytes, *algorithms: str) -> Hasher:
    hasher = Hasher(algorithms)
    hasher.update(data)
    return hasher


async def test_the_callers_hashes_save_a_reading(store: Store) -> None:
    stream = await filled(store)
    seen = Seen(hashing(DATA, "sha512"), await stream.settled())
    written = next(store.path.glob("streams/*/*"))
    written.write_bytes(b"x" * len(DATA))  # what is not read is not missed
    descriptor = await store.blobs.admit(KEY, media_type="", claims=[SHA512], name="x", hashed=seen)
    assert descriptor.digest == DIGEST


async def test_the_callers_hashes_are_not_believed_of_bytes_that_were_there_before(
    store: Store,
) -> None:
    """First one writer, with damaged bytes; then one who hashed good bytes that were not kept."""
    stream = await store.streams.open(KEY, len(DATA))
    await stream.write(100, b"damaged")
    store.streams._shelf._written.clear()  # as if another process had written them
    seen = Seen(hashing(DATA), await stream.settled())
    await stream.write(0, DATA)
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x", hashed=seen)


async def test_hashes_of_fewer_bytes_or_other_algorithms_are_not_used(store: Store) -> None:
    stream = await filled(store)
    fewer = Seen(hashing(DATA[:-1]), await stream.settled())
    descriptor = await store.blobs.admit(
        KEY, media_type="", claims=[DIGEST], name="x", hashed=fewer
    )
    assert descriptor.digest == DIGEST
    stream = await filled(store, OTHER, DATA + b"x")
    other = Seen(hashing(DATA + b"x"), await stream.settled())
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(OTHER, media_type="", claims=[SHA512], name="x", hashed=other)


async def test_admitted_blobs_are_there_on_the_next_boot_without_a_checkpoint(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path, boot_id="one") as store:
        await filled(store)
        await store.blobs.admit(KEY, media_type="", name="x")
    async with open_store(tmp_path, boot_id="two") as store:
        assert await store.blobs.read(DIGEST, 0, 1 << 20) == DATA


async def test_nobody_writes_into_what_is_being_hashed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await filled(store)
    path = next(store.path.glob("streams/*/*"))
    original = os.fsync

    def write_late(descriptor: int) -> None:
        stream.write_sync(0, b"late")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", write_late)
    await store.blobs.admit(KEY, media_type="", name="x")
    assert not path.exists()
    assert blob_path(store).read_bytes() == DATA


async def test_a_cancelled_admission_can_be_made_again(store: Store) -> None:
    await filled(store)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.blobs.admit(KEY, media_type="", name="x")
    assert scope.cancelled_caught
    assert store.blobs.stat(DIGEST) is None
    await store.blobs.admit(KEY, media_type="", name="x")
    assert await store.blobs.read(DIGEST, 0, 5) == DATA[:5]


async def test_hashing_stops_when_nobody_waits(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(store, data=b"x" * (4 << 20))
    update = Hasher.update
    hashed: list[int] = []
    with trio.CancelScope() as scope:

        def cancelling(hasher: Hasher, data: bytes) -> None:
            hashed.append(len(data))
            trio.from_thread.run_sync(scope.cancel)
            update(hasher, data)

        monkeypatch.setattr(Hasher, "update", cancelling)
        await store.blobs.admit(KEY, media_type="", name="x")
    assert scope.cancelled_caught
    assert len(hashed) == 1
