"""What is written of a stream before it counts: read by nobody, recorded whole, or gone."""

import zlib

import pytest
import trio

from cafs.errors import SizeMismatchError
from cafs.model.bounds import Bounds
from cafs.model.digest import digest_of
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.disk.files import punch
from cafs.store.store import Store
from cafs.store.streams.stream import Stream

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


def forged(target: bytes, beginning: bytes) -> bytes:
    """Other bytes of the same length and CRC-32: it is linear, so four bytes at the end will do."""
    body = beginning + bytes(len(target) - len(beginning) - 4)
    base = zlib.crc32(body + bytes(4))
    basis: dict[int, tuple[int, int]] = {}  # highest bit of a change: the change, what makes it
    for number in range(32):
        change, made_by = zlib.crc32(body + (1 << number).to_bytes(4, "little")) ^ base, 1 << number
        while change and change.bit_length() in basis:
            other_change, other = basis[change.bit_length()]
            change, made_by = change ^ other_change, made_by ^ other
        basis[change.bit_length()] = (change, made_by)
    wanted, ending = zlib.crc32(target) ^ base, 0
    while wanted:
        change, made_by = basis[wanted.bit_length()]
        wanted, ending = wanted ^ change, ending ^ made_by
    found = body + ending.to_bytes(4, "little")
    assert zlib.crc32(found) == zlib.crc32(target)
    return found


@pytest.mark.parametrize("sure", [False, True])
async def test_what_another_draft_has_overwritten_is_absent_and_never_wrong(
    store: Store, *, sure: bool
) -> None:
    """Nor where its sums are those of what was overwritten: somebody can make such."""
    stream = await opened(store)
    right = DATA[: 64 * KIB]
    other = forged(right, b"something else") if sure else b"x" * len(right)

    def run() -> tuple[bool, bool]:
        one, two = stream.draft_sync(), stream.draft_sync()
        one.write(0, DATA[: 200 * KIB])
        two.write(0, other)
        first = one.keep()
        two.drop()
        return first, one.keep()

    assert await trio.to_thread.run_sync(run) == (False, True)
    assert await stream.read(0, 64 * KIB) is None
    assert await drafted(stream, 0, 200 * KIB)
    assert await stream.read(0, 200 * KIB) == DATA[: 200 * KIB]


async def test_of_two_drafts_of_the_same_bytes_both_are_kept(store: Store) -> None:
    stream = await opened(store)

    def run() -> list[bool]:
        drafts = [stream.draft_sync() for _ in range(2)]
        for each in drafts:
            each.write(0, DATA)
        return [each.keep() for each in drafts]

    assert await trio.to_thread.run_sync(run) == [True, True]
    assert await stream.read(0, SIZE) == DATA


async def test_a_draft_outlives_what_is_taken_out_elsewhere(store: Store) -> None:
    """As making room does all the time, of what nobody holds."""
    stream = await opened(store)
    await stream.write(900 * KIB, DATA[900 * KIB :])

    def run() -> bool:
        draft = stream.draft_sync()
        draft.write(0, DATA[: 200 * KIB])
        trio.from_thread.run(stream.reject, Span(960 * KIB, 961 * KIB))
        draft.write(200 * KIB, DATA[200 * KIB : 300 * KIB])
        trio.from_thread.run(stream.reject, Span(900 * KIB, SIZE))
        return draft.keep()

    assert await trio.to_thread.run_sync(run)
    assert list(stream.present()) == [Span(0, 300 * KIB)]
    assert await stream.read(0, 300 * KIB) == DATA[: 300 * KIB]


async def test_a_draft_whose_bytes_were_given_back_is_not_kept(store: Store) -> None:
    stream = await opened(store)
    await stream.write(100 * KIB, DATA[100 * KIB : 110 * KIB])
    [file] = store.path.glob("streams/*/*")

    def run() -> bool:
        draft = stream.draft_sync()
        draft.write(0, DATA[: 100 * KIB])
        with file.open("r+b") as opened_:
            punch(opened_.fileno(), Span(0, 64 * KIB))
        return draft.keep()

    assert not await trio.to_thread.run_sync(run)
    assert list(stream.present()) == [Span(100 * KIB, 110 * KIB)]


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


async def test_a_draft_counts_as_soon_as_it_lies_there_and_once_when_it_is_kept(
    store: Store,
) -> None:
    stream = await opened(store)
    await stream.write(0, DATA[: 100 * KIB])

    def run() -> None:
        one, two = stream.draft_sync(), stream.draft_sync()
        one.write(50 * KIB, DATA[50 * KIB : 300 * KIB])
        assert store.room.usage().streams == 300 * KIB
        two.write(200 * KIB, DATA[200 * KIB : 400 * KIB])
        assert store.room.usage().streams == 400 * KIB
        assert store.room.recount() == 0
        assert one.keep()
        assert store.room.usage().streams == 400 * KIB
        two.drop()
        assert store.room.usage().streams == 300 * KIB

    await trio.to_thread.run_sync(run)
    await store.checkpoint()
    assert store.room.usage().streams == stream.present().total == 300 * KIB
    assert store.room.recount() == 0


async def test_what_somebody_else_has_written_over_a_draft_counts_once(store: Store) -> None:
    stream = await opened(store)

    def run() -> None:
        draft = stream.draft_sync()
        draft.write(0, DATA[: 300 * KIB])
        stream.write_sync(100 * KIB, DATA[100 * KIB : 200 * KIB])
        assert store.room.usage().streams == 300 * KIB
        assert draft.keep()

    await trio.to_thread.run_sync(run)
    assert list(stream.present()) == [Span(0, 300 * KIB)]
    assert await stream.read(0, 300 * KIB) == DATA[: 300 * KIB]
    assert store.room.usage().streams == 300 * KIB
    assert store.room.recount() == 0


async def test_what_lies_around_what_somebody_else_has_written_is_kept_only_if_it_is_right(
    store: Store,
) -> None:
    stream = await opened(store)

    def run() -> bool:
        one, two = stream.draft_sync(), stream.draft_sync()
        one.write(0, DATA[: 300 * KIB])
        two.write(0, b"x" * 10)
        stream.write_sync(100 * KIB + 1, DATA[100 * KIB + 1 : 200 * KIB])
        return one.keep()

    assert not await trio.to_thread.run_sync(run)
    assert list(stream.present()) == [Span(100 * KIB + 1, 200 * KIB)]
    assert await drafted(stream, 0, 50 * KIB)
    assert await stream.read(0, 50 * KIB) == DATA[: 50 * KIB]


async def test_a_draft_that_is_too_much_makes_what_was_used_longest_ago_go(store: Store) -> None:
    old = await store.streams.open(StreamKey("e" * 64), SIZE)
    await old.write(0, DATA)
    stream = await opened(store)
    await store.checkpoint()
    store.evictor.keep_within(Bounds(quota=SIZE + 10 * KIB))
    assert not store.room.crowded()
    draft = await trio.to_thread.run_sync(stream.draft_sync)
    await trio.to_thread.run_sync(draft.write, 0, DATA[: 100 * KIB])
    assert store.room.crowded()
    with trio.fail_after(60):
        while store.room.usage().excess > 0:  # noqa: ASYNC110 - a thread removes it
            await trio.sleep(0.02)
    assert old.present().total < SIZE


async def test_with_a_stream_its_drafts_go_and_count_no_more(store: Store) -> None:
    """Also those of who was killed between what he struck out and what he settled."""
    stream = await opened(store)
    draft = await trio.to_thread.run_sync(stream.draft_sync)
    await trio.to_thread.run_sync(draft.write, 0, DATA)
    await stream.discard()
    assert store.room.usage().streams == 0
    again = await opened(store)
    draft = await trio.to_thread.run_sync(again.draft_sync)
    await trio.to_thread.run_sync(draft.write, 0, DATA)
    ledger = store.room._ledger
    record = ledger.record(KEY)
    assert record is not None
    assert store.room._index.apply(lambda batch: ledger.strike(batch, KEY, record))
    assert store.room.usage().streams == SIZE
    await store.checkpoint()
    assert store.room.usage().streams == 0
    assert store.room.recount() == 0


async def test_nobody_drafts_beyond_a_size_that_becomes_known_meanwhile(store: Store) -> None:
    stream = await store.streams.open(KEY, None)

    def run() -> None:
        draft = stream.draft_sync()
        draft.write(0, DATA[:10])
        stream.set_size_sync(12)
        with pytest.raises(SizeMismatchError):
            draft.write(10, b"abc")
        draft.write(10, DATA[10:12])
        assert draft.keep()

    await trio.to_thread.run_sync(run)
    [file] = store.path.glob("streams/*/*")
    assert file.stat().st_size == 12
    assert list(stream.present()) == [Span(0, 12)]


async def test_what_was_drafted_beyond_a_size_that_became_known_is_not_kept(store: Store) -> None:
    """Also where its bytes lie there again, as of one who drafted before that was looked at."""
    stream = await store.streams.open(KEY, None)

    def run() -> None:
        draft = stream.draft_sync()
        draft.write(0, DATA[:10])
        draft.write(10, b"abc")
        stream.set_size_sync(12)
        [file] = store.path.glob("streams/*/*")
        file.write_bytes(DATA[:10] + b"abc")
        with pytest.raises(SizeMismatchError):
            draft.keep()
        draft.drop()

    await trio.to_thread.run_sync(run)
    assert not stream.present()
    await stream.write(0, DATA[:12])
    assert await stream.read(0, 12) == DATA[:12]
