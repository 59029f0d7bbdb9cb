"""Small content that came whole: a blob at once, through the same gate, or nothing at all."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import Digest, digest_of
from cafs.model.identity import StreamKey, raw_stream
from cafs.model.span import Span
from cafs.store.blobs.admission import Claim
from cafs.store.blobs.intake import LARGEST, _Tray
from cafs.store.store import Store, open_store

KEY = StreamKey("ab" * 32)
OTHER = StreamKey("cd" * 32)
DATA = bytes(range(256)) * 40
DIGEST = digest_of(DATA)
SHA512 = digest_of(DATA, "sha512")


async def take(
    store: Store, key: StreamKey = KEY, data: bytes = DATA, claims: tuple[Digest, ...] = ()
) -> Descriptor | None:
    return await store.blobs.take(key, data, media_type="", claims=claims, name="x")


def files(store: Store) -> list[Path]:
    """What lies where nobody would look for it."""
    return [*store.path.glob("streams/*/*"), *store.path.glob("quarantine/*")]


async def test_it_is_a_blob_and_the_stream_is_that_blob(store: Store) -> None:
    assert await take(store, claims=(SHA512,)) == Descriptor(OCTETS, DIGEST, len(DATA))
    stream = store.streams.find(KEY)
    assert stream is not None
    assert stream.digest() == DIGEST
    assert await stream.read(5, 10) == DATA[5:15]
    assert store.blobs.stat(SHA512) == store.blobs.stat(DIGEST)
    assert store.streams.find(raw_stream(SHA512)) is not None
    path = store.path / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert files(store) == []


async def test_what_a_claim_contradicts_is_left_alone(store: Store) -> None:
    assert await take(store, claims=(DIGEST, digest_of(b"other"))) is None
    assert store.blobs.stat(DIGEST) is None
    assert store.streams.find(KEY) is None
    assert files(store) == []


async def test_a_stream_that_somebody_has_begun_is_left_alone(store: Store) -> None:
    stream = await store.streams.open(KEY, len(DATA))
    await stream.write(0, DATA[:100])
    assert await take(store) is None
    assert stream.digest() is None
    assert list(stream.present()) == [Span(0, 100)]
    assert len(files(store)) == 1


async def test_streams_of_the_same_bytes_that_others_began_are_the_blob_too(store: Store) -> None:
    begun = await store.streams.open(raw_stream(DIGEST), len(DATA))
    await begun.write(0, DATA[:100])
    assert await take(store) is not None
    assert begun.digest() == DIGEST
    assert files(store) == []


async def test_many_at_once_are_all_there_and_wrong_ones_fail_alone(store: Store) -> None:
    bodies = [b"%d" % number * 100 for number in range(60)]
    found: dict[int, Descriptor | None] = {}

    async def one(number: int) -> None:
        body = bodies[number]
        claim = digest_of(b"other") if number % 7 == 3 else digest_of(body)
        key = StreamKey(digest_of(b"key %d" % number).hex)
        found[number] = await take(store, key, body, (claim,))

    async with trio.open_nursery() as nursery:
        for number in range(len(bodies)):
            nursery.start_soon(one, number)
    for number, body in enumerate(bodies):
        wrong = number % 7 == 3
        assert (found[number] is None) == wrong
        assert (store.blobs.stat(digest_of(body)) is None) == wrong
        if not wrong:
            assert await store.blobs.read(digest_of(body), 0, 1 << 20) == body
    assert files(store) == []


async def test_the_same_bytes_twice_are_one_blob(store: Store) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, store, KEY)
        nursery.start_soon(take, store, OTHER)
    assert await take(store, StreamKey("ef" * 32)) == store.blobs.stat(DIGEST)
    for key in (KEY, OTHER, StreamKey("ef" * 32)):
        stream = store.streams.find(key)
        assert stream is not None
        assert stream.digest() == DIGEST
    assert files(store) == []


async def test_where_nothing_can_be_written_nothing_happens(store: Store) -> None:
    (store.path / "streams").rmdir()
    (store.path / "streams").write_text("no directory")
    assert await take(store) is None
    assert store.blobs.stat(DIGEST) is None


async def test_once_begun_it_is_carried_through(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    sync = os.fsync

    def slow(descriptor: int) -> None:
        token.run_sync_soon(begun.set)
        assert goes_on.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, store)
        await begun.wait()
        nursery.cancel_scope.cancel()
        goes_on.set()
    assert store.blobs.stat(DIGEST) is not None


async def test_it_outlives_a_power_cut_at_once(
    store: Store, frozen: Callable[[Store], Path]
) -> None:
    largest = os.urandom(LARGEST)
    assert await take(store, data=largest) is not None
    async with open_store(frozen(store), boot_id="second") as after:
        assert await after.blobs.read(digest_of(largest), 0, LARGEST) == largest


async def test_content_without_a_stream_is_locked_by_one_at_a_time(store: Store) -> None:
    held = store.streams.try_lock_new(KEY)
    assert held is not None
    assert store.streams.try_lock_new(KEY) is None
    other = store.streams.try_lock_new(OTHER)
    assert other is not None
    held.release()
    again = store.streams.try_lock_new(KEY)
    assert again is not None
    again.release()
    other.release()


async def test_what_was_here_and_went_before_it_is_recorded_is_no_blob(store: Store) -> None:
    """A record without a file would say that it is present, and nobody would bring it."""
    assert await take(store) is not None
    tray = _Tray(store.blobs._layout, store.blobs._records, store.holds)
    arrival = tray.add(OTHER, DATA, Claim("x", OCTETS, (), len(DATA)))
    await store.blobs.delete(DIGEST)
    tray.keep(lambda _: None)
    tray.clear()
    assert arrival is not None
    assert not arrival.taken
    assert list(store.blobs.digests()) == []
    assert await take(store, OTHER) is not None
