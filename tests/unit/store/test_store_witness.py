"""What somebody has seen of a stream is believed of these bytes alone, not of what came later."""

import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from cafs.errors import DigestMismatchError
from cafs.model.digest import Hasher, digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.model.trust import VERIFIED
from cafs.store.blobs import admission
from cafs.store.disk import locking
from cafs.store.store import Store
from cafs.store.streams.stream import Stream
from cafs.store.streams.witness import Seen
from cafs.store.tables.sums import PIECE

KEY = StreamKey("d" * 64)
SIZE = 8 * PIECE
RIGHT = random.Random(1).randbytes(SIZE)
WRONG = b"wrong" + RIGHT[5:]
DIGEST = digest_of(RIGHT)
ALL = Span(0, SIZE)


async def opened(store: Store) -> Stream:
    return await store.streams.open(KEY, SIZE)


def file_of(store: Store) -> Path:
    [file] = store.path.glob("streams/*/*")
    return file


async def seen(stream: Stream, size: int = SIZE) -> Seen:
    """What a reader sees who reads what has come, from the front."""
    of, hasher = await stream.settled(), Hasher()
    hasher.update(await stream.read(0, size) or b"")
    return Seen(hasher, of)


async def rejected(store: Store, stream: Stream) -> None:
    assert await stream.reject(ALL)


async def evicted(store: Store, _: Stream) -> None:
    spans = [Span(start, start + PIECE) for start in range(0, SIZE, PIECE)]
    assert await trio.to_thread.run_sync(store.remover.cut, KEY, spans)


async def damaged(store: Store, stream: Stream) -> None:
    file_of(store).write_bytes(bytes(SIZE))
    for start in range(0, SIZE, PIECE):
        assert await stream.read(start, PIECE) is None


async def discarded(store: Store, stream: Stream) -> None:
    await stream.discard()


async def dropped(store: Store, stream: Stream) -> None:
    """As a checkpoint does when the disk could not write what it had taken."""
    record = stream._shelf.ledger.record(KEY)
    assert record is not None
    await trio.to_thread.run_sync(stream._shelf.checkpointer.pending.drop, KEY, record)


Way = Callable[[Store, Stream], Awaitable[None]]
WAYS = pytest.mark.parametrize("taken", [rejected, evicted, damaged, discarded, dropped])


@WAYS
@pytest.mark.expects_log("store.stream.damaged")
async def test_hashes_of_bytes_that_were_taken_out_are_not_believed(
    store: Store, taken: Way
) -> None:
    stream = await opened(store)
    await stream.write(0, RIGHT)
    early = await seen(stream)
    assert early.hasher.digest() == DIGEST
    await taken(store, stream)
    assert not stream.present()
    await stream.write(0, WRONG)
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x", hashed=early)
    assert store.blobs.stat(DIGEST) is None


@WAYS
@pytest.mark.expects_log("store.stream.damaged")
async def test_hashes_of_bytes_some_of_which_came_before_a_loss_are_not_believed(
    store: Store, taken: Way
) -> None:
    """All that is there is thrown away, comes again as another, and then the rest: one count."""
    stream = await opened(store)
    await stream.write(0, RIGHT[:PIECE])
    early = await seen(stream, PIECE)
    await taken(store, stream)
    stream = await opened(store)
    await stream.write(0, WRONG[:PIECE])
    await stream.write(PIECE, RIGHT[PIECE:])
    early.hasher.update(RIGHT[PIECE:])
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x", hashed=early)
    assert store.blobs.stat(DIGEST) is None


async def test_hashes_of_bytes_that_were_not_in_the_store_are_not_believed(store: Store) -> None:
    stream = await opened(store)
    await stream.write(0, WRONG)
    hasher = Hasher()
    hasher.update(RIGHT)
    with pytest.raises(DigestMismatchError):
        await store.blobs.admit(
            KEY, media_type="", claims=[DIGEST], name="x", hashed=Seen(hasher, None)
        )


async def test_what_was_taken_out_once_is_nobodys_alone_again(store: Store) -> None:
    stream = await opened(store)
    await stream.write(0, RIGHT)
    await stream.reject(ALL)
    await stream.write(0, RIGHT)
    record = stream._shelf.ledger.record(KEY)
    assert record is not None
    assert not stream._shelf.filled_alone(record)
    assert not await trio.to_thread.run_sync(stream.confirm_sync, DIGEST)
    # Who has seen it from then on may say what it is; it is looked at all the same.
    admitted = await store.blobs.admit(
        KEY, media_type="", claims=[DIGEST], name="x", hashed=await seen(stream)
    )
    assert admitted.digest == DIGEST


async def test_nobody_confirms_what_somebody_else_in_the_same_process_wrote(store: Store) -> None:
    stream, other = await opened(store), await opened(store)
    await other.write(PIECE, WRONG[:PIECE])
    await stream.write(0, RIGHT)
    for each in (stream, other):
        assert not await trio.to_thread.run_sync(each.confirm_sync, DIGEST)
    assert stream.behind() is None
    assert await stream.read(0, SIZE, VERIFIED) is None


async def test_what_is_seen_begins_when_nothing_is_being_taken_out(store: Store) -> None:
    """In between, the stream has its next generation, and what goes can still be read."""
    stream = await opened(store)
    await stream.write(0, RIGHT)
    descriptor = os.open(file_of(store), os.O_RDWR)
    found: list[object] = []

    async def look() -> None:
        found.append(await stream.settled())

    async with trio.open_nursery() as nursery:
        await trio.to_thread.run_sync(locking.hold_gate, descriptor)
        nursery.start_soon(look)
        await trio.sleep(0.05)
        assert not found
        os.close(descriptor)
    assert found == [stream.incarnation()]


async def test_a_stream_that_loses_bytes_while_it_is_hashed_is_not_whole_and_not_wrong(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await opened(store)
    await stream.write(0, RIGHT)
    hash_file = admission.hash_file

    def beside(path: Path, *args: object) -> Hasher:
        trio.from_thread.run(stream.reject, Span(0, PIECE))
        hash_file(path)
        wrong = Hasher()
        wrong.update(WRONG)
        return wrong

    monkeypatch.setattr(admission, "hash_file", beside)
    with pytest.raises(admission.NotWholeError, match="not whole"):
        await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
    assert not list((store.path / "quarantine").iterdir())
    monkeypatch.undo()
    await stream.write(0, RIGHT)
    await store.blobs.admit(KEY, media_type="", claims=[DIGEST], name="x")
