"""The indexes that a lock names: beside it, in the store, or where ``lock.index-url`` says.

Large ones are blobs of the store, fetched as every blob is: once, resumed, checked. What is wrong
or nowhere stops nobody: it is logged, and the archive is read from its beginning instead.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import trio
from typing_extensions import override

from cafs.distribution.index_source import IndexSource
from cafs.errors import CafsError, DigestMismatchError, StorageError
from cafs.fetch.fetcher import Fetcher
from cafs.fetch.interfaces import Patience, Source
from cafs.model.address import shown
from cafs.model.digest import Digest
from cafs.model.limits import INDEX_LIMIT
from cafs.model.mapping import Route, straight
from cafs.model.resolved import Part
from cafs.model.span import Span
from cafs.store.disk.plain_files import what_is_wrong
from cafs.store.store import Store
from cafs.transport.interfaces import Transport

_LOG = logging.getLogger(__name__)
_WAIT_S: Final = 10.0
"""How long an index may give no byte while a reader waits, who can do without it."""
_SLOWEST: Final = 8192
"""Bytes a second. From slower places all of an index is not waited for: who sends a byte now and
then would keep readers for hours from what they can read without it."""
_MEDIA_TYPE: Final = "application/vnd.cafs.index"


class Subject(msgspec.Struct, frozen=True):
    """What a lock says of an index: of which ref it is, and how many bytes, if it says so."""

    ref: str = ""
    size: int | None = None


_NOBODY: Final = Subject()


class LockIndexes(IndexSource):
    """Gives indexes to a mount.

    Args:
        folder: where small ones are; None without a lock.
        urls: gives the URLs of one.
        subjects: what the lock says of each index.
        store: where large ones go.
        fetcher: fetches them.
        transport: by which they are fetched.
        route: says which URLs to ask instead of a URL.

    Concurrency: any number of tasks.
    """

    def __init__(
        self,
        folder: Path | None,
        urls: Callable[[Digest], Sequence[str]],
        subjects: Mapping[Digest, Subject],
        *,
        store: Store,
        fetcher: Fetcher,
        transport: Transport,
        route: Route = straight,
    ) -> None:
        self._folder = folder
        self._urls = urls
        self._subjects = subjects
        self._store = store
        self._fetcher = fetcher
        self._transport = transport
        self._route = route
        self._wrong: dict[Digest, str] = {}
        self._useless: set[Digest] = set()

    def notes(self) -> tuple[str, ...]:
        """A line for each index that was wrong, or could not be had."""
        return tuple(self._wrong.values())

    def told(self, parts: Iterable[Part]) -> str | None:
        """The line for the first of these parts whose index was wrong, or could not be had."""
        found = (self._wrong.get(part.index) for part in parts if part.index is not None)
        return next(filter(None, found), None)

    def place(self, digest: Digest) -> str:
        """Where an index would be taken from: "cafs.lock.d", "store", "index-url", or nowhere."""
        if self._folder is not None and (self._folder / f"{digest.hex}.idx").is_file():
            return self._folder.name
        if self._stored(digest) is not None:
            return "store"
        return "index-url" if self._urls(digest) else ""

    @override
    async def get(self, digest: Digest, patience: Patience) -> Path | None:
        reasons: list[str] = []
        path = await self._beside(digest, reasons) or self._stored(digest)
        if path is None:
            path = await self._fetched(digest, patience, reasons)
        if reasons:
            self._note(digest, "; ".join(reasons))
        elif digest not in self._useless:
            self._wrong.pop(digest, None)
        return path

    @override
    def wrong(self, digest: Digest, error: CafsError) -> None:
        self._note(digest, error.what.removeprefix(f"index {digest}: "))
        if not isinstance(error, DigestMismatchError | StorageError):
            self._useless.add(digest)  # all files that have the digest are

    def _note(self, digest: Digest, why: str) -> None:
        """Say what is the matter with an index: which, whose, of which lock, and what to do."""
        ref = self._subjects.get(digest, _NOBODY).ref
        verb = f"cafs lock {ref}".rstrip()
        lock = "" if self._folder is None else f" of {self._folder.with_suffix('')}"
        line = f"{ref or 'a lock'}: index {digest}{lock}: {why}: {verb} makes it anew"
        if self._wrong.get(digest) != line:
            _LOG.warning("%s", line)
        self._wrong[digest] = line

    async def _beside(self, digest: Digest, reasons: list[str]) -> Path | None:
        """The file beside the lock, if it is right."""
        if self._folder is None:
            return None
        path = self._folder / f"{digest.hex}.idx"
        check = partial(
            what_is_wrong,
            path,
            digest,
            size=self._subjects.get(digest, _NOBODY).size,
            most=INDEX_LIMIT,
            inside=self._folder.parent,
            beat=trio.from_thread.check_cancelled,
        )
        try:
            wrong = await trio.to_thread.run_sync(check)
        except FileNotFoundError:
            return None
        if wrong:
            reasons.append(wrong)
            return None
        return path

    def _stored(self, digest: Digest) -> Path | None:
        return self._store.blobs.file(digest)

    async def _fetched(self, digest: Digest, patience: Patience, reasons: list[str]) -> Path | None:
        """What one of the URLs has, in the store."""
        urls = tuple(self._urls(digest))
        if not urls:
            reasons.append("neither beside the lock nor in the store, and no lock.index-url is set")
            return None
        size = self._subjects.get(digest, _NOBODY).size
        part = Part(media_type=_MEDIA_TYPE, size=size, digest=digest, urls=urls)
        sources = [Source(self._transport, to) for url in urls for to in self._route(url)]
        name = shown(urls[0])
        try:
            with trio.fail_after(_WAIT_S + (INDEX_LIMIT if size is None else size) / _SLOWEST):
                wrong = await self._brought(part, sources, name, patience)
        except CafsError as error:
            wrong = error.line
        except trio.TooSlowError:
            wrong = f"{name}: comes at less than {_SLOWEST} bytes a second"
        if wrong:
            reasons.append(wrong)
            return None
        return self._stored(digest)

    async def _brought(
        self, part: Part, sources: Sequence[Source], name: str, patience: Patience
    ) -> str:
        """Have it in the store, or say what is wrong with it."""
        short = replace(patience, deadline_s=min(patience.deadline_s or _WAIT_S, _WAIT_S))
        content = await self._fetcher.content(part, sources, name=name, patience=short)
        if content.size > INDEX_LIMIT:
            return f"{content.size} bytes; {INDEX_LIMIT} are allowed"
        await content.ensure(Span(0, content.size), short)
        return ""
