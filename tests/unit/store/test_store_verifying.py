"""Verifying a store: every flip in a blob or a stream is found, and nothing else is."""

import errno
import os
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from cafs.errors import NotFoundError
from cafs.model.digest import EMPTY, Digest
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.item import Item
from cafs.model.span import Span, SpanSet
from cafs.store.db.btree import BrokenRecord
from cafs.store.health.checking import Found, Look
from cafs.store.health.leafing import CHUNK, Leafer
from cafs.store.health.verifying import Adopted, Progress, Scope
from cafs.store.store import Store, open_store
from cafs.store.tables.counters import charge
from cafs.store.tables.presence import blob_owner
from cafs.store.tables.sums import GROUP, PIECE, pieces_of

pytestmark = pytest.mark.expects_log(
    "store.(stream|blob).(damaged|quarantined|missing)|store.record.(broken|removed)"
)

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)
SIZE = 2 * CHUNK + 3 * PIECE + 77


def flip(path: Path, offset: int, bit: int) -> None:
    path.chmod(0o600)
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def blob_path(store: Store, digest: Digest) -> Path:
    return store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


async def verified(store: Store, scope: Scope | None = None) -> tuple[list[Found], Progress]:
    found: list[Found] = []
    progress = await store.verifier.verify(
        scope or Scope(), found=found.append, report=lambda _: None
    )
    return found, progress


async def blob(store: Store, data: bytes, key: StreamKey = KEY) -> Digest:
    stream = await store.streams.open(key, len(data))
    await stream.write(0, data)
    return (await store.blobs.admit(key, media_type="a/b", name="x")).digest


async def test_what_is_right_is_counted_and_left_alone(store: Store) -> None:
    data = os.urandom(SIZE)
    digest = await blob(store, data)
    stream = await store.streams.open(OTHER, SIZE)
    await stream.write(5, data[5:100_000])
    found, progress = await verified(store)
    assert found == []
    assert progress.checked == progress.total == SIZE + 99_995
    assert await store.blobs.read(digest, 0, SIZE) == data
    assert await stream.read(5, 99_995) == data[5:100_000]
    assert list((store.path / "quarantine").iterdir()) == []


@pytest.mark.parametrize("offset", [0, SIZE - 1, PIECE - 1, PIECE, CHUNK, 2 * CHUNK + PIECE + 9])
async def test_a_flip_in_a_blob_is_found_and_costs_its_piece(store: Store, offset: int) -> None:
    data = os.urandom(SIZE)
    digest = await blob(store, data)
    flip(blob_path(store, digest), offset, offset % 8)
    [each], _ = await verified(store)
    start = offset - offset % PIECE
    assert each.item == Item.blob(digest)
    assert each.lost == SpanSet([Span(start, min(start + PIECE, SIZE))])
    assert (each.key, each.whole, each.size) == (KEY, True, SIZE)
    assert store.blobs.stat(digest) is None
    stream = store.streams.find(KEY)
    assert stream is not None
    assert stream.present().missing(Span(0, SIZE)) == each.lost
    assert digest.hex in (store.path / "quarantine" / f"{digest.hex}.json").read_text()
    assert (await verified(store))[0] == []
    await stream.write(0, data)
    await store.blobs.admit(KEY, media_type="", name="x", claims=[digest])
    assert (await verified(store))[0] == []


async def test_flips_at_random_places_are_all_found(store: Store) -> None:
    chance = random.Random(3)
    for number in range(40):
        data = chance.randbytes(chance.choice([1, 100, PIECE, PIECE + 1, 300_000]))
        key = StreamKey(chance.randbytes(32).hex())
        stream = await store.streams.open(key, len(data))
        await stream.write(0, data)
        path = next(store.path.glob(f"streams/*/{key}.*"))
        if number % 2:
            digest = (await store.blobs.admit(key, media_type="", name="x")).digest
            path = blob_path(store, digest)
        if number % 3 == 0:
            await store.checkpoint()
        at = chance.randrange(len(data))
        flip(path, at, chance.randrange(8))
        [each], _ = await verified(store)
        assert each.lost.covers(Span(at, at + 1))
        assert each.lost.total <= PIECE
        await stream.write(0, data)
        assert await stream.read(0, len(data)) == data
        await stream.discard()


async def test_a_flip_in_a_hole_is_none(store: Store) -> None:
    stream = await store.streams.open(KEY, SIZE)
    await stream.write(PIECE, b"x" * 1000)
    await stream.write(CHUNK + 5, b"y" * 1000)
    [path] = store.path.glob(f"streams/*/{KEY}.*")
    for offset in (0, PIECE - 1, PIECE + 1000, CHUNK + 4, CHUNK + 1005, SIZE - 1):
        flip(path, offset, 3)
    assert (await verified(store))[0] == []
    assert await stream.read(PIECE, 1000) == b"x" * 1000


async def test_of_several_wrong_pieces_all_are_taken_out(store: Store) -> None:
    data = os.urandom(SIZE)
    stream = await store.streams.open(KEY, SIZE)
    await stream.write(0, data)
    [path] = store.path.glob(f"streams/*/{KEY}.*")
    for offset in (3, PIECE + 3, 5 * PIECE, SIZE - 1):
        flip(path, offset, 0)
    [each], _ = await verified(store)
    assert each.whole
    assert list(each.lost) == [
        Span(0, 2 * PIECE),
        Span(5 * PIECE, 6 * PIECE),
        Span(2 * CHUNK + 3 * PIECE, SIZE),
    ]
    assert stream.present().missing(Span(0, SIZE)) == each.lost


async def test_a_blob_whose_file_is_gone_or_cut_short_is_no_blob_any_more(store: Store) -> None:
    one, two = await blob(store, b"one" * 1000), await blob(store, b"two" * 1000, OTHER)
    blob_path(store, one).unlink()
    blob_path(store, two).chmod(0o600)
    os.truncate(blob_path(store, two), 10)
    found, _ = await verified(store)
    assert {each.item for each in found} == {Item.blob(one), Item.blob(two)}
    assert [each.key for each in found] == [None, None]
    assert list(store.blobs.digests()) == []
    assert {KEY, raw_stream(one)} <= {key for each in found for key in each.streams}
    assert (store.path / "quarantine" / two.hex).exists()


async def test_what_was_a_blob_a_moment_ago_counts_once_whichever_thread_is_faster(
    store: Store,
) -> None:
    for number in range(10):  # each before the other's damage has been taken out, and after it
        data, keys = os.urandom(PIECE), [StreamKey(f"{number * 2 + each:064x}") for each in (0, 1)]
        gone, flipped = await blob(store, data, keys[0]), await blob(store, data[::-1], keys[1])
        blob_path(store, gone).unlink()
        flip(blob_path(store, flipped), 5, 3)
        found, progress = await verified(store)
        assert {each.item for each in found} == {Item.blob(gone), Item.blob(flipped)}
        assert progress.items == 2
        await (await store.streams.open(keys[1], PIECE)).discard()
    assert await verified(store) == ([], Progress())


async def test_a_blob_of_which_nothing_says_where_it_is_wrong_is_put_aside(store: Store) -> None:
    """What changed before it was summed: the sums are right, and the digest is not."""
    data = os.urandom(3 * PIECE)
    digest = await blob(store, data)
    path = blob_path(store, digest)
    flip(path, 100, 1)
    records = store.verifier._records
    records.describe(digest, pieces_of(0, memoryview(path.read_bytes())))
    [each], _ = await verified(store)
    assert "digest" in each.what
    assert each.key is None
    assert (store.path / "quarantine" / digest.hex).exists()
    with pytest.raises(NotFoundError):
        await store.blobs.read(digest, 0, 10)


async def test_a_stream_whose_file_is_gone_has_nothing(store: Store) -> None:
    stream = await store.streams.open(KEY, SIZE)
    await stream.write(10, b"x" * 100)
    next(store.path.glob(f"streams/*/{KEY}.*")).unlink()
    [each], _ = await verified(store)
    assert each.lost == SpanSet([Span(10, 110)])
    assert not each.whole
    assert store.streams.find(KEY) is None


async def test_a_blob_without_sums_gets_them_from_its_digest(store: Store) -> None:
    """As an older version wrote it."""
    data = os.urandom(SIZE)
    digest = await blob(store, data)
    records = store.verifier._records
    presence = records._presence
    records._index.apply(lambda batch: presence.clear(batch, blob_owner(digest)))
    assert records.pieces(digest, Span(0, SIZE)) == []
    assert (await verified(store))[0] == []
    flip(blob_path(store, digest), SIZE - 1, 7)
    with pytest.raises(NotFoundError, match="disk has changed"):
        await store.blobs.read(digest, SIZE - 5, 5)


async def test_bytes_of_a_stream_without_sums_are_absent(store: Store) -> None:
    data = os.urandom(2 * PIECE)
    stream = await store.streams.open(KEY, len(data))
    await stream.write(0, data)
    await store.checkpoint()
    verifier = store.verifier._streams
    table = verifier._index.table("sums")
    verifier._index.apply(lambda batch: batch.clear(table, b"", b"\xff" * 60, 10))
    assert await stream.read(PIECE, 100) is None
    assert stream.present().missing(Span(0, len(data))) == SpanSet([Span(PIECE, PIECE + 100)])
    [each], _ = await verified(store)
    assert each.lost == SpanSet([Span(0, PIECE), Span(PIECE + 100, len(data))])
    assert not stream.present()


async def test_a_file_that_no_record_names_is_a_blob_if_it_is_what_its_name_says(
    store: Store,
) -> None:
    digest = await blob(store, b"bytes" * 1000)
    store.verifier._records.delete(digest)
    wrong = blob_path(store, digest).with_name("ab" * 32)
    wrong.write_bytes(b"something else")
    assert await store.verifier.adopt() == Adopted(1, 1)
    assert await store.blobs.read(digest, 0, 5) == b"bytes"
    assert not wrong.exists()
    assert await store.verifier.adopt() == Adopted(0, 0)


async def test_a_blob_that_is_recorded_just_after_its_file_was_seen_is_not_told_as_healed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who brings a blob names its file first, and records it then."""
    digest = await blob(store, b"bytes" * 1000)
    records = store.verifier._records
    looks = iter([None])
    right = records.get
    monkeypatch.setattr(records, "get", lambda each: next(looks, right(each)))
    assert await store.verifier.adopt() == Adopted(0, 0)
    assert records.get(digest) is not None


async def test_the_empty_blob_needs_no_file(store: Store) -> None:
    assert await blob(store, b"") == EMPTY
    blob_path(store, EMPTY).unlink(missing_ok=True)
    assert (await verified(store))[0] == []


async def test_only_what_is_asked_for_is_checked(store: Store) -> None:
    one, two = await blob(store, b"one" * 1000), await blob(store, b"two" * 1000, OTHER)
    for each in (one, two):
        flip(blob_path(store, each), 5, 5)
    found, progress = await verified(store, Scope(items=frozenset({Item.blob(one)})))
    assert [each.item for each in found] == [Item.blob(one)]
    assert progress.items == 1
    assert store.blobs.stat(two) is not None


async def test_a_sample_is_about_that_share_and_another_each_time(store: Store) -> None:
    sizes = {StreamKey(f"{number:064x}"): 20_000 for number in range(60)}
    for key, size in sizes.items():
        await blob(store, random.Random(key).randbytes(size), key)
    shares = {}
    for seed in range(12):
        _, progress = await verified(store, Scope(percent=25, seed=seed))
        shares[seed] = progress.checked
    assert len(set(shares.values())) > 3
    assert 0.15 < sum(shares.values()) / (12 * 60 * 20_000) < 0.35
    assert (await verified(store, Scope(percent=25, seed=4)))[1].checked == shares[4]


async def test_samples_find_what_is_wrong_in_a_large_blob_by_its_parts(store: Store) -> None:
    data = random.Random(1).randbytes(3 * GROUP + 5)
    digest = await blob(store, data)
    seen = 0
    flip(blob_path(store, digest), 2 * GROUP + 5, 0)
    for seed in range(200):
        found, progress = await verified(store, Scope(percent=20, seed=seed))
        seen += 1
        if found:
            break
        assert progress.checked < len(data)
    else:
        pytest.fail("never found")
    assert found[0].lost == SpanSet([Span(2 * GROUP, 2 * GROUP + PIECE)])
    assert seen < 100


async def test_a_verification_that_is_cancelled_ends_soon(store: Store) -> None:
    await blob(store, os.urandom(SIZE))
    with trio.move_on_after(5) as scope:

        def stop(_: Progress) -> None:
            scope.cancel()

        while True:
            await store.verifier.verify(Scope(), found=lambda _: None, report=stop)
    assert scope.cancelled_caught


def resident(path: Path) -> int:
    """How many of a file's first bytes of each 64 KiB the page cache has."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        count = 0
        for at in range(0, path.stat().st_size, PIECE):
            with suppress(BlockingIOError):
                count += os.preadv(descriptor, [bytearray(1)], at, os.RWF_NOWAIT)
        return count
    finally:
        os.close(descriptor)


def cool(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def test_what_was_not_in_memory_is_not_there_afterwards_and_what_was_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(4 * CHUNK + 5)
    path.write_bytes(data)
    cool(path)
    if resident(path):
        pytest.skip("this file system lets go of nothing")
    with path.open("rb") as file, Leafer() as leafer:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), CHUNK, CHUNK)
        warm = resident(path)
        got = b"".join(
            bytes(piece) for _, piece in leafer.read(file.fileno(), [Span(0, len(data))])
        )
    assert got == data
    assert 0 < warm == resident(path)


def test_leafing_reads_what_there_is_of_each_span(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = os.urandom(3 * CHUNK)
    path.write_bytes(data)
    spans = [
        Span(5, 5),
        Span(7, CHUNK + 9),
        Span(2 * CHUNK, 2 * CHUNK + 1),
        Span(3 * CHUNK - 3, 4 * CHUNK),
    ]
    with path.open("rb") as file, Leafer() as leafer:
        got = [(at, bytes(piece)) for at, piece in leafer.read(file.fileno(), spans)]
    assert got == [
        (7, data[7:CHUNK]),
        (CHUNK, data[CHUNK : CHUNK + 9]),
        (2 * CHUNK, data[2 * CHUNK : 2 * CHUNK + 1]),
        (3 * CHUNK - 3, data[-3:]),
        (3 * CHUNK, b""),
    ]


async def test_others_may_remove_what_is_being_checked(tmp_path: Path) -> None:
    """Nothing that was removed meanwhile is told to be damaged."""
    async with open_store(tmp_path / "s") as store:
        keys = [StreamKey(f"{number:064x}") for number in range(40)]
        for key in keys:
            stream = await store.streams.open(key, 100_000)
            await stream.write(0, os.urandom(100_000))
        found: list[Found] = []
        done = trio.Event()

        async def look() -> None:
            for _ in range(5):
                found.extend((await verified(store))[0])
            done.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for key in keys:
                one = store.streams.find(key)
                assert one is not None
                await one.discard()
                again = await store.streams.open(key, 100_000)
                await again.write(0, os.urandom(100_000))
        assert found == []


async def test_records_that_were_broken_are_counted_no_more_once_they_are_redressed(
    store: Store,
) -> None:
    """A blob whose record is gone would count for ever, and twice when it comes again."""
    data = os.urandom(SIZE)
    digest = await blob(store, data)
    index = store.room._index
    table = index.table("blobs")
    index.apply(lambda batch: batch._transaction.put(digest.raw, b"broken", db=table.handle))
    broken = BrokenRecord("blobs", b"", digest.raw, None)
    assert len(await store.verifier.redress(index.path, [broken])) == 1
    assert store.room.usage().blobs == 0
    assert await store.verifier.adopt() == Adopted(1, 0)
    assert store.room.usage().blobs == charge(SIZE)
    assert store.room.recount() == 0


async def test_a_verification_that_finds_something_counts_all_anew(store: Store) -> None:
    digest = await blob(store, os.urandom(SIZE))
    room = store.room
    room._index.apply(lambda batch: room._records.counter.add(batch, 12_345))
    await verified(store)
    assert room.usage().blobs == charge(SIZE) + 12_345  # nothing was wrong that could be found
    flip(blob_path(store, digest), 5, 5)
    await verified(store)
    assert room.usage().blobs == 0
    assert room.recount() == 0


async def test_what_is_being_checked_is_not_let_go_of(store: Store) -> None:
    stream = await store.streams.open(KEY, SIZE)
    await stream.write(0, os.urandom(SIZE))
    freed: list[int] = []

    def seen(_: int) -> None:
        freed.append(store.remover.cut(KEY, [Span(0, PIECE)]))
        freed.append(store.remover.remove([Item.stream(KEY)]))

    with Leafer() as leafer:
        look = Look(leafer, seen, None, lambda _digest, _streams: None)
        assert store.verifier._streams.check(KEY, look) is None
    assert set(freed) == {0}
    assert store.remover.remove([Item.stream(KEY)]) == SIZE


class BadSector:
    """A disk that cannot read a byte of a file."""

    def __init__(self, path: Path, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._inode, self._offset = path.stat().st_ino, offset
        self._preadv, self._pread = os.preadv, os.pread
        monkeypatch.setattr(os, "preadv", self.preadv)
        monkeypatch.setattr(os, "pread", self.pread)

    def _check(self, descriptor: int, offset: int, length: int) -> None:
        hit = offset <= self._offset < offset + length
        if hit and os.fstat(descriptor).st_ino == self._inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def preadv(
        self, descriptor: int, buffers: Sequence[bytearray], offset: int, flags: int = 0
    ) -> int:
        self._check(descriptor, offset, sum(map(len, buffers)))
        return self._preadv(descriptor, buffers, offset, flags)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        self._check(descriptor, offset, length)
        return self._pread(descriptor, length, offset)


@pytest.mark.parametrize("percent", [100.0, 99.0])
async def test_a_blob_that_the_disk_cannot_read_is_damaged_and_the_others_are_checked(
    store: Store, monkeypatch: pytest.MonkeyPatch, percent: float
) -> None:
    bad = await blob(store, os.urandom(20 * CHUNK))
    good = [await blob(store, os.urandom(SIZE), StreamKey(f"{n:064x}")) for n in range(4)]
    BadSector(blob_path(store, bad), CHUNK + 5, monkeypatch)
    found, progress = await verified(store, Scope(percent=percent))
    assert [(each.item, each.what) for each in found] == [
        (Item.blob(bad), "it cannot be read: Input/output error")
    ]
    assert progress.items == 5
    assert store.blobs.stat(bad) is None
    assert (store.path / "quarantine" / bad.hex).exists()
    assert all(store.blobs.stat(each) is not None for each in good)


async def test_what_the_disk_cannot_read_of_a_stream_is_absent_and_the_rest_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(SIZE)
    for key in (KEY, OTHER):
        stream = await store.streams.open(key, SIZE)
        await stream.write(0, data)
    [path] = store.path.glob(f"streams/{KEY[:2]}/{KEY}*")
    with monkeypatch.context() as patch:
        BadSector(path, CHUNK + 5, patch)
        found, progress = await verified(store)
    [one] = found
    assert one.item == Item.stream(KEY)
    assert one.lost.covers(Span(CHUNK + 5, CHUNK + 6))
    assert one.lost.total <= GROUP
    assert progress.items == 2
    stream = await store.streams.open(KEY, SIZE)
    assert await stream.read(CHUNK + 5, 1) is None
    assert await stream.read(0, CHUNK) == data[:CHUNK]
