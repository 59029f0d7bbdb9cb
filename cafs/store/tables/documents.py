"""Transport cache documents on disk: one JSON document per URL, versioned (R-8, R-9, R-10).

A document that cannot be read, or is of another version, is none: it costs a request. One whose
blob has gone keeps what it knows of the URL, without the digest (R-2b).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

import msgspec

from cafs.errors import InvalidReferenceError
from cafs.model.descriptor import OCTETS
from cafs.model.digest import Digest
from cafs.model.document import CacheDocument
from cafs.model.validator import Validator
from cafs.store.db.environment import Environment
from cafs.store.db.transactions import Batch
from cafs.store.tables.records import hashed

VERSION: Final = 1


class _Http(msgspec.Struct, kw_only=True):
    """What an HTTP answer, or a plugin's, said; names as R-9 spells them."""

    v: int
    digest: str | None
    fetch_time: float = msgspec.field(name="fetchTime")
    etag: str = msgspec.field(name="ETag")
    last_modified: str = msgspec.field(name="lastModified")
    dated: bool
    maxage: int
    size: int | None
    ranges: bool
    media_type: str = msgspec.field(name="mediaType")
    plugin: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """What a plugin wants to be told again, as it said it (R-3); only it knows what it means."""
    at: str | msgspec.UnsetType = msgspec.UNSET
    """The URL that was asked, where it is another than the document's."""


class _File(msgspec.Struct, kw_only=True):
    """A file as it was; ``mtime`` is ns since the epoch."""

    v: int
    digest: str | None
    size: int
    mtime: int
    at: str | msgspec.UnsetType = msgspec.UNSET


class _Mapped(msgspec.Struct, kw_only=True):
    """What says of which kind a document is: the URL that was asked."""

    at: str = ""


class _Any(msgspec.Struct):
    """What a document of either kind has."""

    digest: str | None
    fetch_time: float = msgspec.field(name="fetchTime", default=0.0)


class Remembered(msgspec.Struct, frozen=True):
    """Of which content a document is, None where that is not known; and since when, in seconds.

    Of a file, and of what cannot be read, the time is 0.
    """

    digest: Digest | None
    fetched_s: float


def encode(url: str, document: CacheDocument) -> bytes:
    """The document as it is stored: what a file was like, or what another answer said."""
    digest = None if document.digest is None else str(document.digest)
    validator = document.validator
    at = document.at or msgspec.UNSET
    if _is_file(document.at or url):
        return msgspec.json.encode(
            _File(
                v=VERSION,
                digest=digest,
                size=validator.size or 0,
                mtime=validator.mtime_ns or 0,
                at=at,
            )
        )
    return msgspec.json.encode(
        _Http(
            v=VERSION,
            digest=digest,
            fetch_time=document.fetched_s,
            etag=validator.etag,
            last_modified=validator.last_modified,
            dated=validator.dated,
            maxage=document.max_age_s,
            size=document.size,
            ranges=document.ranges,
            media_type=document.media_type,
            plugin=msgspec.Raw(document.plugin.encode()) if document.plugin else msgspec.UNSET,
            at=at,
        )
    )


def decode(url: str, raw: bytes) -> CacheDocument | None:
    """The document in stored bytes, None when they are none of this version."""
    try:
        at = msgspec.json.decode(raw, type=_Mapped).at
        return _decode_file(raw, at) if _is_file(at or url) else _decode_http(raw, at)
    except (msgspec.MsgspecError, InvalidReferenceError):
        return None


def _decode_http(raw: bytes, at: str) -> CacheDocument | None:
    stored = msgspec.json.decode(raw, type=_Http)
    if stored.v != VERSION:
        return None
    return CacheDocument(
        digest=_digest(stored.digest),
        validator=Validator(
            etag=stored.etag, last_modified=stored.last_modified, dated=stored.dated
        ),
        fetched_s=stored.fetch_time,
        max_age_s=stored.maxage,
        size=stored.size,
        ranges=stored.ranges,
        media_type=stored.media_type,
        plugin="" if stored.plugin is msgspec.UNSET else bytes(stored.plugin).decode(),
        at=at,
    )


def _decode_file(raw: bytes, at: str) -> CacheDocument | None:
    stored = msgspec.json.decode(raw, type=_File)
    if stored.v != VERSION:
        return None
    return CacheDocument(
        digest=_digest(stored.digest),
        validator=Validator(size=stored.size, mtime_ns=stored.mtime),
        fetched_s=0.0,
        max_age_s=0,
        size=stored.size,
        ranges=True,
        media_type=OCTETS,
        at=at,
    )


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)


def _is_file(url: str) -> bool:
    return url.startswith("file:")


class Documents:
    """The documents of a store, by the URL before redirects.

    Concurrency: any number of tasks and processes; the last to save wins.
    """

    def __init__(self, index: Environment, has: Callable[[Digest], bool]) -> None:
        self._index = index
        self._table = index.table("documents")
        self._has = has

    def load(self, url: str) -> CacheDocument | None:
        """The document of a URL, None when there is none that can be used."""
        raw = self._index.get(self._table, hashed(url))
        document = None if raw is None else decode(url, raw)
        if document is None or document.digest is None or self._has(document.digest):
            return document
        return replace(document, digest=None)

    async def save(self, url: str, document: CacheDocument) -> None:
        """Keep a document.

        Cancellation: all or nothing.
        """
        value = encode(url, document)
        await self._index.commit(lambda batch: batch.put(self._table, hashed(url), value))

    async def drop(self, url: str) -> None:
        """Forget the document of a URL, if there is one.

        Cancellation: all or nothing.
        """
        await self._index.commit(lambda batch: batch.delete(self._table, hashed(url)), urgent=True)

    def all(self) -> Iterator[tuple[bytes, Remembered]]:
        """Every document by its place, which ``place_of`` tells of a URL; also what is none."""
        for page in self._index.pages(self._table):
            for place, raw in page:
                yield place, _remembered(raw)

    def forget(self, places: Iterable[bytes], before_s: float) -> set[bytes]:
        """Forget documents by their places, but those that were saved again later. Blocks.

        Returns:
            The places of those that stay.
        """
        gone = tuple(places)

        def change(batch: Batch) -> set[bytes]:
            kept: set[bytes] = set()
            for place in gone:
                raw = batch.get(self._table, place)
                if raw is None or _remembered(raw).fetched_s <= before_s:
                    batch.delete(self._table, place)
                else:
                    kept.add(place)
            return kept

        return self._index.apply(change, urgent=True)


def place_of(url: str) -> bytes:
    """Where the document of a URL lies."""
    return hashed(url)


def _remembered(raw: bytes) -> Remembered:
    try:
        stored = msgspec.json.decode(raw, type=_Any)
        return Remembered(_digest(stored.digest), stored.fetch_time)
    except (msgspec.MsgspecError, InvalidReferenceError):
        return Remembered(None, 0.0)
