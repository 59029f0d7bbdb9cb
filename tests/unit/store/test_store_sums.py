"""Sums: a disk that changes a bit is found out by the next read, and only that piece is lost."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from cafs.errors import NotFoundError
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span, SpanSet
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.store import Store, open_store
from cafs.store.streams.stream import Stream
from cafs.store.tables.sums import GROUP, PIECE, Piece, around, damaged, pieces_of

pytestmark = pytest.mark.expects_log("store.*(damaged|broken)")

KEY = StreamKey("ab" * 32)
SIZE = 5 * PIECE + 123


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """One bit of a file is another."""
    path.chmod(0o600)
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def file_of(store: Store) -> Path:
    [found] = store.path.glob(f"streams/*/{KEY}.*")
    return found


def blob_path(store: Store, digest: Digest) -> Path:
    return store.path / "blobs" / "sha256" / digest.hex[:2] / digest.hex


async def filled(store: Store, data: bytes) -> Stream:
    stream = await store.streams.open(KEY, len(data))
    await stream.write(0, data)
    return stream


def test_pieces_end_at_every_64_kib_and_cover_all() -> None:
    found = pieces_of(PIECE - 10, memoryview(bytes(2 * PIECE)))
    assert [(piece.start, piece.length) for piece in found] == [
        (PIECE - 10, 10),
        (PIECE, PIECE),
        (2 * PIECE, PIECE - 10),
    ]
    assert around(Span(PIECE + 5, PIECE + 6), found[1:2]) == Span(PIECE, 2 * PIECE)
    assert around(Span(3, 7), []) == Span(3, 7)


def test_every_single_bit_of_a_piece_counts() -> None:
    data = os.urandom(300)
    pieces = pieces_of(0, memoryview(data))
    assert damaged(0, data, pieces) is None
    for at in range(len(data) * 8):
        wrong = bytearray(data)
        wrong[at // 8] ^= 1 << at % 8
        assert damaged(0, bytes(wrong), pieces) == pieces[0]


@pytest.mark.parametrize("checkpoints", [False, True])
async def test_writes_in_any_order_and_size_leave_one_piece_each_64_kib(
    store: Store, checkpoints: bool
) -> None:
    data = os.urandom(SIZE)
    stream = await store.streams.open(KEY, SIZE)
    cuts = [0, *sorted(random.Random(4).sample(range(1, SIZE), 60)), SIZE]
    spans = list(itertools.pairwise(cuts))
    random.Random(5).shuffle(spans)
    for number, (start, stop) in enumerate(spans):
        await stream.write(start, data[start:stop])
        if checkpoints and not number % 7:
            await store.checkpoint()
    await store.checkpoint()
    admitted = await store.blobs.admit(KEY, media_type="", name="x")
    for offset in range(0, SIZE, 10_000):
        flip(blob_path(store, admitted.digest), offset)
        with pytest.raises(NotFoundError, match="disk has changed"):
            await store.blobs.read(admitted.digest, offset + 1, 5)
        stream = await store.streams.open(KEY, SIZE)
        [lost] = stream.present().missing(Span(0, SIZE))
        place = offset - offset % PIECE
        assert lost == Span(place, min(place + PIECE, SIZE))
        await stream.write(0, data)
        assert (await store.blobs.admit(KEY, media_type="", name="x")).digest == admitted.digest


@pytest.mark.parametrize("checkpointed", [False, True])
async def test_a_flipped_bit_of_a_stream_is_absent_and_the_rest_stays(
    store: Store, checkpointed: bool
) -> None:
    data = os.urandom(SIZE)
    stream = await filled(store, data)
    if checkpointed:
        await store.checkpoint()
    flip(file_of(store), 2 * PIECE + 7, 6)
    assert await stream.read(0, 100) == data[:100]
    assert await stream.read(3 * PIECE - 1, 10) is None
    assert stream.present() == SpanSet([Span(0, 2 * PIECE), Span(3 * PIECE, SIZE)])
    await stream.write(2 * PIECE, data[2 * PIECE : 3 * PIECE])
    assert await stream.read(0, SIZE) == data


@contextmanager
def before(patch: pytest.MonkeyPatch, name: str, work: Callable[[], object]) -> Iterator[None]:
    """Do something else before the next change of an environment."""
    apply, todo = Environment.apply, [work]

    def patched(
        environment: Environment, change: Callable[[Batch], object], *, urgent: bool = False
    ) -> object:
        if environment.path.name.startswith(name) and todo:
            todo.pop()()
        return apply(environment, change, urgent=urgent)

    with patch.context() as inner:
        inner.setattr(Environment, "apply", patched)
        yield
    assert not todo


async def test_what_is_written_beside_a_checkpoint_takes_no_sum_from_its_neighbours(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(4096)
    stream = await store.streams.open(KEY, 4096)
    await stream.write(0, data[:1000])
    await store.checkpoint()
    await stream.write(1000, data[1000:2000])
    with before(monkeypatch, "index", partial(stream.write_sync, 2000, data[2000:])):
        await store.checkpoint()
    await store.checkpoint()
    assert await stream.read(0, 4096) == data
    assert stream.present() == SpanSet([Span(0, 4096)])
    flip(file_of(store), 10)
    assert await stream.read(0, 10) is None


async def test_what_is_written_again_beside_a_checkpoint_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, frozen: Callable[[Store], Path]
) -> None:
    data = os.urandom(SIZE)
    stream = await filled(store, data)

    def again() -> None:
        assert store.remover.cut(KEY, [Span(0, PIECE)]) == PIECE
        stream.write_sync(0, data[:PIECE])

    with before(monkeypatch, "recent", again):
        await store.checkpoint()
    assert await stream.read(0, SIZE) == data
    async with open_store(frozen(store), boot_id="second") as after:
        found = after.streams.find(KEY)
        assert found is not None
        assert found.present() == SpanSet([Span(PIECE, SIZE)])
    await store.checkpoint()
    async with open_store(frozen(store), boot_id="third") as after:
        found = after.streams.find(KEY)
        assert found is not None
        assert found.present() == SpanSet([Span(0, SIZE)])
    assert store.room.recount() == 0


async def test_a_flipped_bit_of_a_blob_makes_it_the_stream_that_it_was(store: Store) -> None:
    data = os.urandom(SIZE)
    digest = digest_of(data)
    stream = await filled(store, data)
    await store.blobs.admit(KEY, media_type="a/b", claims=[digest_of(data, "sha512")], name="x")
    flip(blob_path(store, digest), SIZE - 1)
    assert await store.blobs.read(digest, 0, 10) == data[:10]
    assert await stream.read(SIZE - 5, 5) is None
    assert store.blobs.stat(digest) is None
    assert store.blobs.stat(digest_of(data, "sha512")) is None
    assert not blob_path(store, digest).exists()
    assert stream.present() == SpanSet([Span(0, 5 * PIECE)])
    await stream.write(5 * PIECE, data[5 * PIECE :])
    admitted = await store.blobs.admit(KEY, media_type="", claims=[digest], name="x")
    assert await store.blobs.read(admitted.digest, 0, SIZE) == data


async def test_small_content_that_came_whole_is_known_too(store: Store) -> None:
    data = os.urandom(PIECE + 5)
    assert await store.blobs.take(KEY, data, media_type="", claims=(), name="x") is not None
    flip(blob_path(store, digest_of(data)), PIECE + 2)
    with pytest.raises(NotFoundError):
        await store.blobs.read(digest_of(data), PIECE, 5)


async def test_blobs_that_were_found_again_are_known_again(tmp_path: Path) -> None:
    data = os.urandom(2 * PIECE)
    async with open_store(tmp_path / "s", boot_id="first") as store:
        await filled(store, data)
        await store.blobs.admit(KEY, media_type="", name="x")
    (tmp_path / "s" / "index" / "broken").touch()
    async with open_store(tmp_path / "s", boot_id="first") as store:
        assert await store.blobs.read(digest_of(data), 0, 100) == data[:100]
        flip(blob_path(store, digest_of(data)), 50)
        with pytest.raises(NotFoundError):
            await store.blobs.read(digest_of(data), 0, 100)


async def test_groups_of_pieces_do_not_touch_each_other(store: Store) -> None:
    data = os.urandom(4096)
    stream = await store.streams.open(KEY, 3 * GROUP)
    for place in (0, GROUP - 2048, 2 * GROUP - 4096, 2 * GROUP):
        await stream.write(place, data)
    flip(file_of(store), GROUP + 5)
    assert await stream.read(GROUP - 2048, 4096) is None
    for place in (0, 2 * GROUP - 4096, 2 * GROUP):
        assert await stream.read(place, 4096) == data
    assert await stream.read(GROUP - 2048, 2048) == data[:2048]


def test_a_piece_holds_its_bytes_and_no_others() -> None:
    [piece] = pieces_of(5, memoryview(b"123456789"))
    assert piece == Piece(5, 9, 0xCBF43926)  # the check value of this CRC
    assert piece.holds(memoryview(b"123456789"))
    assert not piece.holds(memoryview(b"12345678"))


async def test_a_part_that_comes_late_does_not_replace_what_it_was_joined_to(store: Store) -> None:
    data = os.urandom(20_000)
    [joined] = pieces_of(0, memoryview(data))
    [part] = pieces_of(10_000, memoryview(data)[10_000:])
    ledger, owner = store.streams._shelf.ledger, b"o" * 40
    ledger._index.apply(lambda batch: ledger._durable.describe(batch, owner, [joined]))
    ledger._index.apply(lambda batch: ledger._durable.describe(batch, owner, [part]))
    with ledger._index.read() as snapshot:
        assert ledger._durable.pieces(snapshot, owner, Span(0, 20_000)) == [joined]
