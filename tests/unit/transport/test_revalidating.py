"""Cache documents: when a source is asked, with what, and what is remembered."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import override

from cafs.errors import (
    CafsError,
    CredentialsError,
    NotFoundError,
    OfflineError,
    RefusedError,
    UnreachableError,
    UnsupportedError,
)
from cafs.metrics import Metrics
from cafs.model.descriptor import OCTETS, Descriptor
from cafs.model.digest import digest_of
from cafs.model.document import CacheDocument
from cafs.model.identity import located_stream
from cafs.model.spec import Pull
from cafs.model.validator import Validator
from cafs.testing.faults import (
    ChangedEtag,
    Drop,
    Fault,
    IgnoreRange,
    NoLength,
    NoValidators,
    Redirect,
    Status,
)
from cafs.testing.origin import Origin
from cafs.transport.choosing import Choosing
from cafs.transport.file import FileTransport
from cafs.transport.http import HttpTransport
from cafs.transport.kept_documents import DocumentStore
from cafs.transport.redirecting import Redirecting, RedirectPolicy
from cafs.transport.retrying import Retrying, RetryPolicy
from cafs.transport.revalidating import Located, Locator
from tests.unit.transport.scripted import Scripted

BODY = b"the content" * 1000
DIGEST = digest_of(BODY)
NOW = 1_800_000_000.0


class Kept(DocumentStore):
    """Documents in memory."""

    def __init__(self) -> None:
        self.documents: dict[str, CacheDocument] = {}
        self.saves = 0

    @override
    def load(self, url: str) -> CacheDocument | None:
        return self.documents.get(url)

    @override
    async def save(self, url: str, document: CacheDocument) -> None:
        self.saves += 1
        self.documents[url] = document

    @override
    async def drop(self, url: str) -> None:
        self.documents.pop(url, None)


class Bench:
    """A locator over a real client, with documents and a clock in hand."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.now = NOW
        self.kept = Kept()
        self.metrics = Metrics()
        http = Redirecting(HttpTransport(), RedirectPolicy())
        policy = RetryPolicy(retries=2, initial_s=0.001, jitter=False)
        self.transport = Choosing(
            {"http": Retrying(http, policy, self.metrics), "file": FileTransport()}
        )
        self.locator = Locator(self.transport, self.kept, self.metrics, lambda: self.now)

    async def locate(self, *urls: str, pull: Pull = "update") -> Located:
        located = await self.locator.locate(*urls, pull=pull)
        if located.head_response is not None:
            await located.head_response.aclose()
        return located

    async def know(self, url: str, age: str = "fresh") -> None:
        """Locate once, see the content whole, and let it become fresh or stale."""
        await self.locate(url)
        await self.locator.learned(url, Descriptor(OCTETS, DIGEST, len(BODY)))
        known = self.kept.documents[url]
        self.kept.documents[url] = replace(known, max_age_s=100, fetched_s=NOW)
        self.now = NOW + (50 if age == "fresh" else 100)
        self.origin.forget()


@pytest.fixture
async def bench(origin: Origin) -> AsyncIterator[Bench]:
    one = Bench(origin)
    yield one
    await one.transport.aclose()


async def test_r2_a_new_url_is_asked_for_its_first_byte(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY, cache_control="max-age=60", content_type="text/plain")
    located = await bench.locate(url)
    part = located.part
    assert located.head_response is None
    assert (part.size, part.digest, part.urls) == (len(BODY), None, (url,))
    assert part.validator.strong
    assert part.ranges
    assert part.media_type == "text/plain"
    (request,) = origin.requests
    assert (request.method, request.header("range")) == ("GET", "bytes=0-0")
    assert request.header("if-none-match") is None
    document = bench.kept.documents[url]
    assert (document.fetched_s, document.max_age_s) == (NOW, 60)
    await bench.transport.aclose()


async def test_r12_a_fresh_document_is_used_and_one_of_just_its_age_is_not(
    origin: Origin, bench: Bench
) -> None:
    url = origin.put("/a", BODY)
    await bench.know(url)
    for age, asked in ((0, 0), (99.9, 0), (100, 1)):
        bench.now = NOW + age
        located = await bench.locate(url)
        assert located.part.digest == DIGEST
        assert len(origin.requests) == asked
    assert bench.metrics["transport.fresh"] == 2
    assert bench.metrics["transport.revalidated"] == 1
    await bench.transport.aclose()


async def test_r12_a_document_from_the_future_is_stale(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY)
    await bench.know(url)
    bench.now = NOW - 1
    await bench.locate(url)
    assert len(origin.requests) == 1
    await bench.transport.aclose()


@pytest.mark.parametrize("etag", [None, '"v1"', 'W/"v1"'])
async def test_r13_rule4_an_unchanged_answer_freshens(
    origin: Origin, bench: Bench, etag: str | None
) -> None:
    url = origin.put("/a", BODY, etag=etag, cache_control="max-age=7")
    await bench.know(url, "stale")
    located = await bench.locate(url)
    assert located.part.digest == DIGEST
    assert located.head_response is None
    (request,) = origin.requests
    assert request.status == 304
    assert request.header("if-none-match") == etag
    # A date beside an ETag could only make a server that looks at it first answer wrongly.
    assert (request.header("if-modified-since") is None) == (etag is not None)
    document = bench.kept.documents[url]
    assert (document.fetched_s, document.max_age_s) == (NOW + 100, 7)
    await bench.locate(url)
    assert len(origin.requests) == 1
    await bench.transport.aclose()


async def test_an_unchanged_answer_without_age_keeps_the_old_one(
    origin: Origin, bench: Bench
) -> None:
    url = origin.put("/a", BODY)
    await bench.know(url, "stale")
    await bench.locate(url)
    assert bench.kept.documents[url].max_age_s == 100
    await bench.transport.aclose()


class Case:
    """What a server does, and what a located part then is: with the digest, whole, or an error."""

    def __init__(
        self,
        *faults: Fault,
        stale: str,
        none: str = "new",
        error: type[CafsError] | None = None,
    ) -> None:
        self.faults = faults
        self.outcomes = {"fresh": "known", "stale": stale, "none": none}
        self.error = error


CASES = {
    "correct": Case(stale="known"),
    "changed": Case(ChangedEtag(), stale="new"),
    "without validators": Case(NoValidators(), stale="new"),
    "without ranges": Case(IgnoreRange(), stale="known", none="open"),
    "changed without ranges": Case(IgnoreRange(), ChangedEtag(), stale="open", none="open"),
    "without ranges and validators": Case(IgnoreRange(), NoValidators(), stale="open", none="open"),
    "without ranges and length": Case(
        IgnoreRange(), NoLength(), NoValidators(), stale="open", none="open"
    ),
    "in chunks": Case(NoLength(), stale="known"),
    "gone": Case(Status(code=404), stale="error", none="error", error=NotFoundError),
    "refusing": Case(Status(code=400), stale="error", none="error", error=RefusedError),
    "private": Case(Status(code=401), stale="error", none="error", error=CredentialsError),
    "down": Case(Status(code=503), stale="error", none="error", error=UnreachableError),
    "down once": Case(Status(code=503, times=1), stale="known"),
    "elsewhere": Case(Redirect("/b"), stale="known"),
    "broken after the head": Case(
        ChangedEtag(), Drop(after_bytes=0), stale="error", none="error", error=UnreachableError
    ),
}


@pytest.mark.parametrize("age", ["fresh", "stale", "none"])
@pytest.mark.parametrize("name", list(CASES))
async def test_what_servers_do_and_what_is_known_before(
    origin: Origin, bench: Bench, name: str, age: str
) -> None:
    case = CASES[name]
    url = origin.put("/a", BODY)
    origin.put("/b", BODY)
    if age != "none":
        await bench.know(url, age)
    origin.fault("/a", *case.faults)
    outcome = case.outcomes[age]
    before = bench.kept.load(url)
    if outcome == "error":
        assert case.error is not None
        with pytest.raises(case.error):
            await bench.locate(url)
        if name != "broken after the head":
            assert bench.kept.load(url) == before
        await bench.transport.aclose()
        return
    located = await bench.locate(url)
    part = located.part
    assert (part.digest is not None) == (outcome == "known")
    assert (located.head_response is not None) == (outcome == "open")
    assert part.size == (None if NoLength() in case.faults and outcome == "open" else len(BODY))
    assert bool(origin.requests) == (age != "fresh")
    await bench.transport.aclose()


async def test_a_whole_answer_is_handed_on_to_be_used(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", IgnoreRange())
    located = await bench.locator.locate(url, pull="update")
    assert located.head_response is not None
    assert not located.part.ranges
    received = b""
    async with located.head_response as response:
        while piece := await response.receive():
            received += piece
    assert received == BODY
    assert len(origin.requests) == 1
    await bench.transport.aclose()


async def test_an_empty_resource_is_located(origin: Origin, bench: Bench) -> None:
    url = origin.put("/empty", b"")
    located = await bench.locate(url)
    assert located.part.size == 0
    await bench.transport.aclose()


async def test_a_probe_leaves_the_connection_for_the_next(origin: Origin, bench: Bench) -> None:
    for path in ("/a", "/b", "/c"):
        await bench.locate(origin.put(path, BODY))
    assert origin.connections == 1
    await bench.transport.aclose()


async def test_r14_the_document_belongs_to_the_url_before_redirects(
    origin: Origin, bench: Bench
) -> None:
    url, there = origin.put("/a", b""), origin.put("/b", BODY)
    origin.fault("/a", Redirect("/b?secret"))
    located = await bench.locate(url)
    assert located.part.urls == (url,)
    assert located.part.size == len(BODY)
    assert list(bench.kept.documents) == [url]
    assert there not in bench.kept.documents
    await bench.transport.aclose()


async def test_another_size_under_the_same_version_is_another_content(
    origin: Origin, bench: Bench
) -> None:
    url = origin.put("/a", BODY, etag='"v"', last_modified=None)
    await bench.know(url, "stale")
    known = bench.kept.documents[url]
    bench.kept.documents[url] = replace(known, size=1)
    origin.fault("/a", Status(code=503, times=0), IgnoreRange())
    located = await bench.locate(url)
    # The origin says 304: the version decides, and a document is believed about its size.
    assert located.part.size == 1
    bench.now += 1000
    origin.put("/a", BODY + b"x", etag='"v2"')
    assert (await bench.locate(url)).part.digest is None
    await bench.transport.aclose()


@pytest.mark.parametrize("pull", ["new", "never"])
async def test_r24_what_the_store_has_is_not_asked_for(
    origin: Origin, bench: Bench, pull: Pull
) -> None:
    url = origin.put("/a", BODY)
    await bench.know(url, "stale")
    assert (await bench.locate(url, pull=pull)).part.digest == DIGEST
    assert not origin.requests
    await bench.transport.aclose()


async def test_r24_never_asks_nobody(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY)
    with pytest.raises(OfflineError, match="/a"):
        await bench.locate(url, pull="never")
    assert not origin.requests
    await bench.locate(url)
    origin.forget()
    assert (await bench.locate(url, pull="never")).part.size == len(BODY)
    assert not origin.requests
    await bench.transport.aclose()


async def test_r24_new_asks_for_what_was_never_seen_whole(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY)
    await bench.locate(url)
    origin.put("/a", BODY + b"more")
    assert (await bench.locate(url, pull="new")).part.size == len(BODY) + 4
    origin.fault("/a", Status(code=503))
    assert (await bench.locate(url, pull="new")).part.size == len(BODY) + 4
    with pytest.raises(UnreachableError):
        await bench.locate(url, pull="update")
    await bench.transport.aclose()


@pytest.mark.parametrize("pull", ["update", "lock"])
async def test_r24_update_and_lock_ask_when_stale(origin: Origin, bench: Bench, pull: Pull) -> None:
    url = origin.put("/a", BODY)
    await bench.know(url, "stale")
    await bench.locate(url, pull=pull)
    assert len(origin.requests) == 1
    await bench.transport.aclose()


@pytest.mark.parametrize("code", [404, 400, 503])
async def test_a_mirror_is_asked_when_the_first_fails(
    origin: Origin, bench: Bench, code: int
) -> None:
    first, second = origin.put("/a", BODY), origin.put("/b", BODY)
    origin.fault("/a", Status(code=code))
    part = (await bench.locate(first, second)).part
    assert part.urls == (second, first)
    assert [each.path for each in origin.requests] == ["/a", "/b"]
    assert list(bench.kept.documents) == [second]
    await bench.transport.aclose()


async def test_the_last_mirror_is_asked_with_patience(origin: Origin, bench: Bench) -> None:
    first, second = origin.put("/a", BODY), origin.put("/b", BODY)
    origin.fault("/a", Status(code=503))
    origin.fault("/b", Status(code=503, times=2))
    assert (await bench.locate(first, second)).part.urls[0] == second
    assert [each.path for each in origin.requests] == ["/a", "/b", "/b", "/b"]
    await bench.transport.aclose()


async def test_the_first_failure_is_raised_and_tells_of_the_others(
    origin: Origin, bench: Bench
) -> None:
    first, second = origin.url("/a"), origin.put("/b", BODY)
    origin.fault("/b", Status(code=503))
    with pytest.raises(NotFoundError) as caught:
        await bench.locate(first, second)
    assert "/a: 404" in caught.value.line
    assert "/b: 503" in caught.value.line
    assert caught.value.line == str(caught.value)
    await bench.transport.aclose()


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("at", ["/a", "/b"])
async def test_a_source_that_wants_credentials_does_not_end_the_search(
    origin: Origin, bench: Bench, code: int, at: str
) -> None:
    urls = [origin.put(path, BODY) for path in ("/a", "/b", "/c")]
    origin.fault("/a", Status(code=503))
    origin.fault(at, Status(code=code))
    origin.fault("/b", Status(code=404))
    assert (await bench.locate(*urls)).part.urls[0] == urls[2]
    await bench.transport.aclose()


async def test_when_nobody_else_answers_it_is_told_that_credentials_are_wanted(
    origin: Origin, bench: Bench
) -> None:
    first, second = origin.put("/a", BODY), origin.url("/b")
    origin.fault("/a", Status(code=401))
    with pytest.raises(CredentialsError, match=r"401.*404"):
        await bench.locate(first, second)
    await bench.transport.aclose()


async def test_what_was_learned_is_about_its_own_version(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY)
    descriptor = Descriptor(OCTETS, DIGEST, len(BODY))
    await bench.locator.learned(url, descriptor)
    assert not bench.kept.documents
    part = (await bench.locate(url)).part
    saves = bench.kept.saves
    await bench.locator.learned(url, replace(descriptor, size=5))
    await bench.locator.learned(url, descriptor, validator=Validator(etag='"other"'))
    assert bench.kept.saves == saves
    await bench.locator.learned(url, descriptor, validator=part.validator)
    await bench.locator.learned(url, descriptor)
    assert bench.kept.saves == saves + 1
    assert bench.kept.documents[url].digest == DIGEST
    await bench.transport.aclose()


async def test_a_size_that_nobody_told_is_learned(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY)
    origin.fault("/a", IgnoreRange(), NoLength())
    assert (await bench.locate(url)).part.size is None
    await bench.locator.learned(url, Descriptor(OCTETS, DIGEST, len(BODY)))
    assert bench.kept.documents[url].size == len(BODY)
    await bench.transport.aclose()


async def test_r10_a_file_is_always_asked_and_known_while_it_is_the_same(
    tmp_path: Path, bench: Bench
) -> None:
    path = tmp_path / "a"
    path.write_bytes(BODY)
    url = path.as_uri()
    await bench.locate(url)
    await bench.locator.learned(url, Descriptor(OCTETS, DIGEST, len(BODY)))
    assert (await bench.locate(url)).part.digest == DIGEST
    assert bench.metrics["transport.revalidated"] == 1
    path.write_bytes(BODY + b"x")
    part = (await bench.locate(url)).part
    assert (part.digest, part.size) == (None, len(BODY) + 1)


async def test_without_validators_every_answer_is_a_version_of_its_own(
    origin: Origin, bench: Bench
) -> None:
    url = origin.put("/a", BODY, cache_control="max-age=10")
    origin.fault("/a", NoValidators())
    first = (await bench.locate(url)).part
    bench.now += 5
    assert located_stream((await bench.locate(url)).part) == located_stream(first)
    bench.now += 5
    assert located_stream((await bench.locate(url)).part) != located_stream(first)
    await bench.transport.aclose()


async def test_the_media_type_that_is_wanted_wins(origin: Origin, bench: Bench) -> None:
    url = origin.put("/a", BODY, content_type="text/html")
    located = await bench.locator.locate(url, pull="update", media_type="application/x-tar")
    assert located.part.media_type == "application/x-tar"
    await bench.transport.aclose()


async def test_a_response_is_closed_when_the_document_cannot_be_kept() -> None:
    class Full(Kept):
        @override
        async def save(self, url: str, document: CacheDocument) -> None:
            raise UnreachableError("full")

    script = Scripted([None])
    kept: Sequence[Full] = (Full(),)
    with pytest.raises(UnreachableError, match="full"):
        await Locator(script, kept[0], Metrics()).locate("http://a/", pull="update")
    assert script.responses[0].closed


async def test_a_url_that_nothing_here_can_ask_leaves_it_to_the_next_one(bench: Bench) -> None:
    url = bench.origin.put("/a", BODY)
    located = await bench.locate("s3://bucket/key", url)
    assert (located.part.urls[0], located.part.size) == (url, len(BODY))
    with pytest.raises(UnsupportedError, match="s3"):
        await bench.locate("s3://bucket/key", bench.origin.url("/nothing"))
