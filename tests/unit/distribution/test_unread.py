"""What an answer said that was lent to content, and that nobody read: it is kept all the same."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cafs.distribution.parts import UrlParts
from cafs.errors import CafsError
from cafs.fetch import contents
from cafs.model.digest import digest_of
from cafs.model.span import Span
from cafs.testing.origin import Origin
from cafs.transport.revalidating import Locator
from tests.unit.fetch.conftest import USUAL, Rig, open_rig, read_all, until

DATA = bytes(range(256)) * 16


@dataclass
class Bench:
    """Parts of URLs that come with the answer where they are small, as in a mount."""

    rig: Rig
    parts: UrlParts

    async def locate(self, url: str) -> None:
        await self.parts.located([url], name="x", pull="update", note=ignore)


def ignore(error: CafsError) -> None:
    raise error


def bench_of(rig: Rig) -> Bench:
    probe = Span(0, 64 << 10)
    parts = UrlParts(
        store=rig.store,
        fetcher=rig.fetcher,
        sources=rig.transport,
        asking=rig.transport,
        locator=Locator(rig.transport, rig.store.documents, rig.metrics, probe=probe),
        probe=probe,
    )
    return Bench(rig, parts)


@pytest.fixture
async def bench(origin: Origin, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_rig(origin, tmp_path / "store") as rig:
        yield bench_of(rig)


async def test_an_answer_that_nobody_reads_in_time_is_kept(
    bench: Bench, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_FIRST_S", 0.05)
    url = origin.put("/small", DATA)
    await bench.locate(url)
    documents = bench.rig.store.documents
    assert documents.load(url) is None
    await until(lambda: documents.load(url) is not None)
    document = documents.load(url)
    assert document is not None
    assert (document.size, document.digest) == (len(DATA), None)


async def test_an_answer_that_nobody_has_read_when_the_mount_ends_is_kept(
    origin: Origin, tmp_path: Path
) -> None:
    url = origin.put("/small", DATA)
    async with open_rig(origin, tmp_path / "store") as rig:
        await bench_of(rig).locate(url)
        assert rig.store.documents.load(url) is None
    async with open_rig(origin, tmp_path / "store") as rig:
        assert rig.store.documents.load(url) is not None


async def test_an_answer_for_content_that_was_there_before_is_kept(
    bench: Bench, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "_FIRST_S", 0.05)
    url, documents = origin.put("/small", DATA), bench.rig.store.documents
    found = await bench.parts.located([url], name="x", pull="update", note=ignore)
    content = await bench.parts.content(found, USUAL, name="x")
    await until(lambda: documents.load(url) is not None)
    await documents.drop(url)
    monkeypatch.undo()
    await bench.locate(url)  # is lent to content that knows nothing of this answer
    assert documents.load(url) is not None
    assert await read_all(content) == DATA
    document = documents.load(url)
    assert document is not None
    assert document.digest == digest_of(DATA)
    assert len(origin.requests) == 2


async def test_what_was_found_out_since_is_not_forgotten(bench: Bench, origin: Origin) -> None:
    url = origin.put("/small", DATA)
    locator = Locator(
        bench.rig.transport, bench.rig.store.documents, bench.rig.metrics, probe=Span(0, 65536)
    )
    found = await locator.locate(url, pull="update")
    assert found.unsaved is not None
    assert found.head_response is not None
    await found.head_response.aclose()
    content = await bench.parts.content(found.part, USUAL, name="x")
    await bench.locate(url)
    assert await read_all(content) == DATA
    await locator.keep(url, found.unsaved)
    document = bench.rig.store.documents.load(url)
    assert document is not None
    assert document.digest == digest_of(DATA)
