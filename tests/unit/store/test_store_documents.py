"""Transport cache documents: their form on disk, and what is made of what is not of that form."""

from dataclasses import replace
from pathlib import Path

import pytest

from cafs.model.descriptor import OCTETS
from cafs.model.digest import digest_of
from cafs.model.document import CacheDocument
from cafs.model.identity import StreamKey
from cafs.model.validator import Validator
from cafs.store.store import Store
from cafs.store.tables.documents import decode, encode

GOLDEN = Path(__file__).parents[2] / "golden" / "store"
URL = "https://example.com/app.tar.gz"
FILE_URL = "file:///srv/app.tar.gz"
HTTP = CacheDocument(
    digest=digest_of(b"hello"),
    validator=Validator(etag='W/"é-1"', last_modified="Sun, 06 Nov 1994 08:49:37 GMT", dated=True),
    fetched_s=1700000000.25,
    max_age_s=60,
    size=5,
    ranges=True,
    media_type="application/gzip",
)
EMPTY_HTTP = CacheDocument(
    digest=None,
    validator=Validator(),
    fetched_s=0.0,
    max_age_s=0,
    size=None,
    ranges=False,
    media_type="",
)
FILE = CacheDocument(
    digest=digest_of(b"hello", "sha512"),
    validator=Validator(size=5, mtime_ns=1700000000123456789),
    fetched_s=0.0,
    max_age_s=0,
    size=5,
    ranges=True,
    media_type=OCTETS,
)
PLUGIN_URL = "torrent:0123abcd/app.tar.gz"
PLUGIN = CacheDocument(
    digest=digest_of(b"hello"),
    validator=Validator(etag="0123abcd"),
    fetched_s=1700000000.25,
    max_age_s=60,
    size=5,
    ranges=True,
    media_type="",
    plugin='{"v":3,"peers":["127.0.0.1:1"]}',
)
FORMS = [
    ("http.json", URL, HTTP),
    ("http-empty.json", URL, EMPTY_HTTP),
    ("file.json", FILE_URL, FILE),
    ("plugin.json", PLUGIN_URL, PLUGIN),
]


@pytest.mark.parametrize(("name", "url", "document"), FORMS)
def test_documents_have_their_golden_form(name: str, url: str, document: CacheDocument) -> None:
    golden = (GOLDEN / name).read_bytes().rstrip(b"\n")
    assert encode(url, document) == golden
    assert decode(url, golden) == document


@pytest.mark.parametrize("url", [URL, FILE_URL])
@pytest.mark.parametrize(
    "garbage",
    [b"", b"{}", b"[]", b"null", b'{"v":1}', b"\xff", b'{"v":"1"}', b"{" * 10_000],
)
def test_r8_garbage_is_no_document(url: str, garbage: bytes) -> None:
    assert decode(url, garbage) is None


@pytest.mark.parametrize(("name", "url", "document"), FORMS)
def test_r8_another_version_is_no_document(name: str, url: str, document: CacheDocument) -> None:
    newer = (GOLDEN / name).read_bytes().replace(b'"v":1', b'"v":2')
    assert decode(url, newer) is None


def test_a_document_with_a_bad_digest_is_none() -> None:
    raw = (GOLDEN / "http.json").read_bytes().replace(b"sha256:", b"sha257:")
    assert decode(URL, raw) is None


def test_fields_that_a_later_version_adds_do_no_harm() -> None:
    raw = (GOLDEN / "http.json").read_bytes().replace(b'"v":1', b'"v":1,"new":[1]')
    assert decode(URL, raw) == HTTP


async def test_documents_are_kept_by_url(store: Store) -> None:
    await store.documents.save(URL, EMPTY_HTTP)
    assert store.documents.load(URL) == EMPTY_HTTP
    assert store.documents.load(URL + "?") is None
    await store.documents.drop(URL)
    await store.documents.drop(URL)
    assert store.documents.load(URL) is None


async def test_a_very_long_url_has_a_document(store: Store) -> None:
    url = URL + "?" + "x" * 100_000
    await store.documents.save(url, EMPTY_HTTP)
    assert store.documents.load(url) == EMPTY_HTTP


async def test_r2b_a_document_whose_blob_is_gone_has_no_digest(store: Store) -> None:
    key = StreamKey("ab" * 32)
    stream = await store.streams.open(key, 5)
    await stream.write(0, b"hello")
    await store.blobs.admit(key, media_type="", name="x")
    await store.documents.save(URL, HTTP)
    assert store.documents.load(URL) == HTTP
    assert HTTP.digest is not None
    await store.blobs.delete(HTTP.digest)
    assert store.documents.load(URL) == replace(HTTP, digest=None)
