"""A fetch lasts as long as somebody wants it: a killed reader's request ends at the origin too.

Each test stalls the origin, lets readers wait, cancels one as a killed process is, and looks at
what the origin sees of it.
"""

import zipfile
from collections.abc import Awaitable, Callable

import pytest
import trio

from cafs.fetch.flights import lane
from cafs.fetch.flights.lane import IDLE_S
from cafs.fetch.interfaces import Content, Priority, Source
from cafs.model.digest import Digest
from cafs.model.identity import archive_tree
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.model.validator import UNKNOWN_VERSION
from cafs.testing.bodies import Generated
from cafs.testing.faults import (
    Fault,
    HangBeforeHead,
    IgnoreRange,
    NoLength,
    NoValidators,
    Stall,
)
from cafs.testing.origin import Origin
from tests.unit.fetch.conftest import USUAL, Rig, until
from tests.unit.fetch.test_first_pass import files, tree_files, zip_of

MIB = 1 << 20
SOON_S = 30.0
"""Usually a few milliseconds; the machine may be busy. A reader's patience lasts longer."""
Read = Callable[[], Awaitable[object]]


class Readers:
    """Readers that are killed one by one."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.results: list[object] = []

    def start(self, read: Read) -> trio.CancelScope:
        scope = trio.CancelScope()
        self._nursery.start_soon(self._run, read, scope)
        return scope

    async def _run(self, read: Read, scope: trio.CancelScope) -> None:
        with scope:
            self.results.append(await read())


async def asked(origin: Origin, path: str, count: int = 1) -> None:
    """Wait until so many requests of the path wait at the origin."""
    await until(lambda: len([one for one in origin.requests_for(path) if not one.ended]) >= count)
    await trio.to_thread.run_sync(origin.settle)


async def deserted(origin: Origin, path: str) -> None:
    """Wait until every request of the path has been broken off by us, which must be soon."""
    await until(lambda: all(one.ended for one in origin.requests_for(path)), SOON_S)


def broken_off(origin: Origin, path: str) -> int:
    return sum(one.aborted for one in origin.requests_for(path))


async def ranged(rig: Rig, origin: Origin) -> Content:
    return await rig.located(origin.put("/x", Generated(16 * MIB, seed=1)))


async def gated(rig: Rig, origin: Origin) -> Content:
    url = origin.put("/x", Generated(16 * MIB, seed=1))
    digest = Digest.parse("sha256:" + Generated(16 * MIB, seed=1).sha256())
    return await rig.pinned(digest, 16 * MIB, url)


async def single(rig: Rig, origin: Origin) -> Content:
    url = origin.put("/x", Generated(16 * MIB, seed=1))
    origin.fault("/x", NoValidators())
    part = Part(
        media_type="application/x-test",
        size=16 * MIB,
        digest=None,
        urls=(url,),
        validator=UNKNOWN_VERSION,
        ranges=False,
    )
    return await rig.fetcher.content(part, [Source(rig.transport, url)], name=url)


Make = Callable[[Rig, Origin], Awaitable[Content]]
KINDS = pytest.mark.parametrize(("make", "requests"), [(ranged, 1), (gated, 2), (single, 1)])
STALLS = pytest.mark.parametrize("stall", [HangBeforeHead(), Stall(after_bytes=1000)])


@KINDS
@STALLS
async def test_the_last_reader_of_content_takes_its_requests_with_him(
    rig: Rig, origin: Origin, make: Make, requests: int, stall: Fault
) -> None:
    content = await make(rig, origin)
    origin.forget()
    origin.fault("/x", stall)
    async with trio.open_nursery() as nursery:
        reader = Readers(nursery).start(lambda: content.read(MIB, 4096, USUAL))
        # Until the first head has come, nobody knows whether ranges work, and one request is made.
        await asked(origin, "/x", 1 if isinstance(stall, HangBeforeHead) else requests)
        reader.cancel()
        await deserted(origin, "/x")
    assert broken_off(origin, "/x") == len(origin.requests_for("/x"))
    await until(lambda: not rig.fetcher.inflight())
    origin.heal()
    # And nobody is told of a failure that was none.
    expected = origin.expected("/x", Span(MIB, MIB + 4096))
    assert await content.read(MIB, 4096, USUAL) == expected


@KINDS
async def test_one_of_two_readers_goes_and_the_other_gets_his_bytes(
    rig: Rig, origin: Origin, make: Make, requests: int
) -> None:
    content = await make(rig, origin)
    origin.forget()
    origin.fault("/x", Stall(after_bytes=1000))
    async with trio.open_nursery() as nursery:
        readers = Readers(nursery)
        killed = readers.start(lambda: content.read(MIB, 4096, USUAL))
        readers.start(lambda: content.read(MIB, 4096, USUAL))
        await asked(origin, "/x", requests)
        killed.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not broken_off(origin, "/x")
        origin.heal()
        origin.release()
    assert readers.results == [origin.expected("/x", Span(MIB, MIB + 4096))]
    assert not broken_off(origin, "/x")


async def test_a_size_that_is_found_out_by_fetching_is_given_up_with_its_reader(
    rig: Rig, origin: Origin
) -> None:
    url = origin.put("/x", Generated(4 * MIB, seed=2))
    origin.fault("/x", NoLength(), IgnoreRange(), NoValidators(), Stall(after_bytes=MIB))
    async with trio.open_nursery() as nursery:
        reader = Readers(nursery).start(lambda: rig.located(url))
        await asked(origin, "/x")
        reader.cancel()
        await deserted(origin, "/x")
    assert broken_off(origin, "/x") == 1
    origin.heal()
    assert (await rig.located(url)).size == 4 * MIB


async def zip_member(rig: Rig, origin: Origin, path: str) -> Read:
    """A reader of a member of a zip whose directory is known."""
    contents = {"small": b"s" * 1000, "large": bytes(3 * MIB)}
    url = origin.put(path, zip_of(contents, zipfile.ZIP_STORED))
    raw = await rig.located(url)
    record = await rig.plant(raw)
    decoded = rig.fetcher.decoded(record, 0, raw)
    return lambda: decoded.read(MIB, 100, USUAL)


async def test_the_decoding_of_a_member_ends_with_its_last_reader(rig: Rig, origin: Origin) -> None:
    read = await zip_member(rig, origin, "/a.zip")
    origin.forget()
    origin.fault("/a.zip", Stall(after_bytes=1000))
    async with trio.open_nursery() as nursery:
        readers = Readers(nursery)
        first, second = readers.start(read), readers.start(read)
        await asked(origin, "/a.zip")
        first.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not broken_off(origin, "/a.zip")
        second.cancel()
        await deserted(origin, "/a.zip")
    assert broken_off(origin, "/a.zip")
    origin.heal()
    assert await read() == bytes(100)


async def test_a_first_pass_goes_on_without_its_reader(rig: Rig, origin: Origin) -> None:
    contents = files(20, 200_000)
    url = origin.put("/a.zip", zip_of(contents))
    raw = await rig.located(url)
    origin.forget()
    origin.fault("/a.zip", Stall(after_bytes=100))
    async with trio.open_nursery() as nursery:
        reader = Readers(nursery).start(lambda: rig.plant(raw))
        await asked(origin, "/a.zip")
        reader.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert rig.fetcher.inflight()
    assert not broken_off(origin, "/a.zip")
    origin.heal()
    origin.release()
    await until(lambda: rig.store.trees.find(archive_tree(raw.key)) is not None)
    assert await tree_files(rig, await rig.plant(raw), raw) == contents


async def test_a_question_about_a_url_ends_with_who_asked(rig: Rig, origin: Origin) -> None:
    url = origin.put("/x", b"x")
    origin.fault("/x", HangBeforeHead())
    async with trio.open_nursery() as nursery:
        reader = Readers(nursery).start(lambda: rig.locator.locate(url, pull="update"))
        await asked(origin, "/x")
        reader.cancel()
        await deserted(origin, "/x")
    assert broken_off(origin, "/x") == 1


# -- read-ahead


async def ahead_of_a_reader(rig: Rig, origin: Origin) -> Content:
    """Content of which a stalled request is under way that only read-ahead wants."""
    content = await ranged(rig, origin)
    await content.read(0, MIB, USUAL)
    await content.read(MIB, MIB, USUAL)
    await until(lambda: not rig.fetcher.inflight())
    origin.forget()
    origin.fault("/x", Stall(after_bytes=1000))
    await content.read(2 * MIB, 4096, USUAL)
    await asked(origin, "/x")
    assert [one.priority for one in rig.fetcher.inflight()] == [Priority.READAHEAD]
    return content


async def test_what_is_fetched_ahead_ends_with_the_reader_that_waits(
    rig: Rig, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "IDLE_S", 3600.0)  # not because nobody has read for a while
    content = await ahead_of_a_reader(rig, origin)
    async with trio.open_nursery() as nursery:
        reader = Readers(nursery).start(lambda: content.read(12 * MIB, 4096, USUAL))
        await asked(origin, "/x", 2)
        reader.cancel()
        await deserted(origin, "/x")
    assert broken_off(origin, "/x") == 2


async def test_what_is_fetched_ahead_of_nobody_ends_by_itself(rig: Rig, origin: Origin) -> None:
    await ahead_of_a_reader(rig, origin)
    await until(lambda: all(one.ended for one in origin.requests_for("/x")), IDLE_S + SOON_S)
    assert broken_off(origin, "/x") == 1
    await until(lambda: not rig.fetcher.inflight())
