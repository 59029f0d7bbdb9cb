"""What is written of a stream before it counts: read by nobody, recorded whole, or gone."""

import pytest
import trio

from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.store import Store
from cafs.store.streams import Stream

KEY = StreamKey("d" * 64)
KIB = 1 << 10
SIZE = 1000 * KIB
DATA = bytes(range(256)) * (SIZE // 256)


async def opened(store: Store) -> Stream:
    return await store.streams.open(KEY, SIZE)


async def drafted(stream: Stream, start: int, stop: int, data: bytes = DATA) -> bool:
    """Write a span as a draft, and keep it."""

    def run() -> bool:
        draft = stream.draft_sync()
        for at in range(start, stop, 100_001):
            draft.write(at, data[at : min(at + 100_001, stop)])
        assert not stream.present().intersection(Span(start, stop)).total
        return draft.keep()

    return await trio.to_thread.run_sync(run)


async def test_a_draft_is_read_by_nobody_before_it_is_kept(store: Store) -> None:
    stream = await opened(store)
    assert await drafted(stream, 5, 700_000)
    assert list(stream.present()) == [Span(5, 700_000)]
    assert await stream.read(5, 699_995) == DATA[5:700_000]
    assert await stream.read(0, 10) is None


async def test_a_draft_that_is_dropped_leaves_nothing(store: Store) -> None:
    stream = await opened(store)
    await stream.write(0, DATA[:1000])

    def run() -> None:
        draft = stream.draft_sync()
        draft.write(0, b"x" * SIZE)
        draft.drop()
        assert draft.keep()  # there is nothing of it

    await trio.to_thread.run_sync(run)
    assert list(stream.present()) == [Span(0, 1000)]
    assert await stream.read(0, 1000) == DATA[:1000]
    await stream.write(1000, DATA[1000:])
    assert await stream.read(0, SIZE) == DATA


async def test_what_is_present_stays_what_it_is_under_a_draft(store: Store) -> None:
    stream = await opened(store)
    await stream.write(300 * KIB, DATA[300 * KIB : 400 * KIB])

    def run() -> None:
        draft = stream.draft_sync()
        draft.write(0, b"x" * 350 * KIB)
        stream.write_sync(0, DATA[: 100 * KIB])  # somebody else is faster
        draft.drop()

    await trio.to_thread.run_sync(run)
    assert await stream.read(300 * KIB, 100 * KIB) == DATA[300 * KIB : 400 * KIB]
    assert await stream.read(0, 100 * KIB) == DATA[: 100 * KIB]
    assert await stream.read(150 * KIB, 10) is None


@pytest.mark.expects_log("store.stream.damaged")
async def test_what_another_draft_has_overwritten_is_absent_and_never_wrong(store: Store) -> None:
    stream = await opened(store)

    def run() -> bool:
        right, wrong = stream.draft_sync(), stream.draft_sync()
        right.write(0, DATA[: 200 * KIB])
        wrong.write(0, b"x" * 200 * KIB)
        return right.keep()

    assert await trio.to_thread.run_sync(run)
    found = await stream.read(0, 200 * KIB)
    assert found in {None, DATA[: 200 * KIB]}


async def test_a_draft_of_a_stream_that_was_removed_is_not_kept(store: Store) -> None:
    stream = await opened(store)
    draft = await trio.to_thread.run_sync(stream.draft_sync)
    await trio.to_thread.run_sync(draft.write, 0, DATA[: 10 * KIB])
    await stream.discard()
    assert not await trio.to_thread.run_sync(draft.keep)
    again = await opened(store)
    assert not again.present()
    assert await drafted(again, 0, SIZE)
    assert await again.read(0, SIZE) == DATA


async def test_a_draft_of_what_comes_from_elsewhere_is_not_kept(store: Store) -> None:
    one = await store.streams.open(KEY, SIZE, digest_of(b"one"))
    await one.write(0, DATA[:1000])
    other = await opened(store)
    draft = await trio.to_thread.run_sync(other.draft_sync)
    await trio.to_thread.run_sync(draft.write, 1000, DATA[1000:2000])
    assert not await trio.to_thread.run_sync(draft.keep)
    assert one.behind() == digest_of(b"one")
    assert list(one.present()) == [Span(0, 1000)]
