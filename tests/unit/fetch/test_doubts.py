"""A wrong index: what contradicts it is not thrown away for ever, nor is a wrong copy kept."""

from contextlib import suppress
from itertools import count

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from cafs.errors import ContentError, DigestMismatchError
from cafs.fetch.flights import doubts as doubting
from cafs.fetch.flights.doubts import Doubts
from cafs.fetch.interfaces import Content
from cafs.model.identity import StreamKey
from cafs.testing.faults import Corrupt
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig
from tests.unit.fetch.test_segmented import ARCHIVE, INDEX, PIECE, middle, planted

DOUBTED = pytest.mark.expects_log("fetch.mirror.doubted")
KEY = StreamKey("ab" * 32)


@pytest.fixture(autouse=True)
def errors_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that each read tries again."""
    monkeypatch.setattr("cafs.fetch.sources.failures.CONTENT_MEMORY_S", 0.0)


async def forged(rig: Rig, origin: Origin, *urls: str) -> tuple[Content, Content]:
    """Raw content, and what an index says of it that is wrong about segment 3."""
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), *urls)
    segments = list(ARCHIVE.segments)
    segments[3] = replace(segments[3], sha256=bytes(32))
    return raw, rig.fetcher.decoded(
        planted(rig.store, raw.key, index=INDEX, segments=segments), 0, raw
    )


async def wrong(content: Content, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(ContentError):
            await content.read(3 * PIECE, 10, USUAL)


@DOUBTED
async def test_a_healthy_source_is_not_asked_at_every_read_by_a_wrong_index(
    rig: Rig, origin: Origin
) -> None:
    raw, content = await forged(rig, origin, origin.put("/a.tar.gz", ARCHIVE.data))
    await wrong(content, 2)
    before, present = len(origin.requests), raw.present()
    with pytest.raises(DigestMismatchError, match="the index says"):
        await content.read(3 * PIECE, 10, USUAL)
    await wrong(content, 5)
    assert len(origin.requests) == before
    # What has come stays, for the gate and for others.
    assert raw.present() == present >= ARCHIVE.segments[3].input_length


@DOUBTED
async def test_a_source_that_was_mended_is_believed_after_a_while(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell a copy that is damaged again and again from a wrong index."""
    monkeypatch.setattr(doubting, "FIRST_S", 0.2)
    raw = await rig.pinned(ARCHIVE.digest, len(ARCHIVE.data), origin.put("/a.tar.gz", ARCHIVE.data))
    content = rig.fetcher.decoded(planted(rig.store, raw.key, index=INDEX), 0, raw)
    origin.fault("/a.tar.gz", Corrupt(at=middle(3)))
    await wrong(content, 2)
    origin.heal()
    data = b""
    with trio.fail_after(60):
        while not data:
            await trio.sleep(0.05)
            with suppress(ContentError):
                data = await content.read(3 * PIECE, 10, USUAL)
    assert data == ARCHIVE.content[3 * PIECE :][:10]


async def test_the_pause_grows_while_the_same_bytes_come(autojump_clock: MockClock) -> None:
    doubts, pauses = Doubts(), list[int]()
    assert not doubts.blame(KEY, 0, b"x", first=True)
    assert not doubts.blame(KEY, 0, b"x", first=False)  # another mirror may be asked
    for _ in range(4):
        assert doubts.blame(KEY, 0, b"x", first=True)
        for second in count(1):
            await trio.sleep(1)
            if not doubts.blame(KEY, 0, b"x", first=True):
                pauses.append(second)
                break
    assert pauses == [60, 120, 240, 480]
    assert not doubts.blame(KEY, 0, b"y", first=True)  # other bytes are another matter
    assert not doubts.blame(KEY, 1, b"y", first=True)


async def test_what_is_remembered_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubting, "_MOST", 10)
    doubts = Doubts()
    for start in range(30):
        doubts.blame(KEY, start, b"x", first=True)
    assert doubts.blame(KEY, 29, b"x", first=True)
    assert not doubts.blame(KEY, 19, b"x", first=True)
