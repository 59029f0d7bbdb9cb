"""Content that is a member of an archive, by its own digest."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from typing_extensions import override

from cafs.errors import (
    MENDABLE,
    BudgetError,
    CafsError,
    NotFoundError,
    OfflineError,
    SourceChangedError,
)
from cafs.fetch.content.extracting import Lying, extract
from cafs.fetch.interfaces import Content, Patience
from cafs.metrics import Metrics
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.model.trust import Need
from cafs.store.store import Store
from cafs.store.trees.members import MemberPlace

Reopen = Callable[[MemberPlace, Patience], Awaitable[Content]]
"""Opens the content that a member lies in, to be made present where it is not."""
_PIECE: Final = 1 << 20
_MENDABLE: Final = (*MENDABLE, OfflineError, BudgetError, SourceChangedError)
"""Failures that another archive may not have, whose bytes may be here."""


class _Local(Content):
    """What the store has of the content that a member lies in, if that is what it was hashed as.

    Concurrency: as ``Content``.
    """

    def __init__(self, store: Store, place: MemberPlace, name: str) -> None:
        stream = place.tree.streams[place.stream]
        self._store = store
        self._name = name
        self._key = stream.key
        self._size = stream.size
        self._need = Need(source=place.tree.digest)

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def size(self) -> int:
        return self._size

    @property
    @override
    def key(self) -> StreamKey:
        return self._key

    @override
    def present(self) -> int:
        return 0

    @override
    def digest(self) -> Digest | None:
        return None

    def has(self, span: Span) -> bool:
        """Whether a span is there, with behind it what must be."""
        stream = self._store.streams.find(self._key)
        if stream is None or not self._need.met(stream.behind()):
            return False
        return stream.present(span).covers(span)

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self.has(span):
            raise NotFoundError(f"{self._name}: not in the store")

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        stream = self._store.streams.find(self._key)
        data = None if stream is None else await stream.read(offset, length, self._need)
        if data is None:
            raise NotFoundError(f"{self._name}: not in the store")
        return data


class MemberContent(Content):
    """Reads a member from the stream of an archive that has it, whichever has it now.

    What was evicted is looked for again: another archive may have it too, and what it was decoded
    from may still be here, or be fetched.

    Concurrency: as ``Content``.
    """

    def __init__(
        self, store: Store, digest: Digest, first: MemberPlace, reopen: Reopen, metrics: Metrics
    ) -> None:
        self._store = store
        self._digest = digest
        self._first = first
        self._reopen = reopen
        self._metrics = metrics

    @property
    @override
    def name(self) -> str:
        return str(self._digest)

    @property
    @override
    def size(self) -> int:
        return self._first.size

    @property
    @override
    def key(self) -> StreamKey:
        return self._first.tree.streams[self._first.stream].key

    @override
    def present(self) -> int:
        return self.size if any(map(self._here, self._places())) else 0

    @override
    def digest(self) -> Digest | None:
        return self._digest

    @override
    def checked(self) -> bool:
        return True

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        wanted = span.clamp(self.size)
        for start in range(wanted.start, wanted.stop, _PIECE):
            await self.read(start, min(_PIECE, wanted.stop - start), patience)

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        for place in self._places():
            try:
                local = _Local(self._store, place, self.name)
                data = await extract(local, _lying(place), offset, length, patience)
            except NotFoundError:
                continue
            self._metrics.add("fetch.hits")
            return data
        self._metrics.add("fetch.misses")
        return await self._again(offset, length, patience)

    async def _again(self, offset: int, length: int, patience: Patience) -> bytes:
        """Read it from the first archive that can be had again.

        Raises:
            NotFoundError: nobody knows where any of them could be had.
            CafsError: as the first that somebody knows failed.
        """
        gone: CafsError | None = None
        failed: CafsError | None = None
        for place in self._places():
            try:
                content = await self._reopen(place, patience)
                return await extract(content, _lying(place), offset, length, patience)
            except NotFoundError as error:
                gone = gone or error
            except _MENDABLE as error:
                failed = failed or error
        if failed is not None:
            raise failed
        raise NotFoundError(
            f"{self.name}: the archives that had it have left the store",
            hint="read it by the ref that it came from",
        ) from gone

    def _places(self) -> list[MemberPlace]:
        return self._store.members.find(self._digest)

    def _here(self, place: MemberPlace) -> bool:
        return _Local(self._store, place, self.name).has(span_of(place))


def span_of(place: MemberPlace) -> Span:
    """The bytes of its stream that a member's content is; of a sparse one, its pieces."""
    return _lying(place).span()


def _lying(place: MemberPlace) -> Lying:
    return Lying(place.offset, place.size, place.sparse)
