"""Content that is a verified blob of the store."""

from typing_extensions import override

from cafs.errors import OfflineError
from cafs.fetch.content.feeding import Reading
from cafs.fetch.content.raw_ranges import CheckedRanges
from cafs.fetch.interfaces import Feed, Feeder, Patience, Ranges
from cafs.metrics import Metrics
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.blobs.blobs import Blobs
from cafs.store.streams.witness import Seen


class BlobContent(Feed):
    """A blob that the store has. Nothing is fetched; once it was deleted, reads fail.

    Concurrency: as ``Content``.
    """

    def __init__(
        self, blobs: Blobs, descriptor: Descriptor, key: StreamKey, name: str, metrics: Metrics
    ) -> None:
        self._blobs = blobs
        self._key = key
        self._descriptor = descriptor
        self._name = name
        self._metrics = metrics

    @property
    @override
    def name(self) -> str:
        return self._name

    @property
    @override
    def size(self) -> int:
        return self._descriptor.size

    @property
    @override
    def key(self) -> StreamKey:
        return self._key

    @override
    def present(self) -> int:
        return 0 if self.digest() is None else self.size

    @override
    def digest(self) -> Digest | None:
        found = self._blobs.stat(self._descriptor.digest)
        return None if found is None else found.digest

    @override
    def checked(self) -> bool:
        return True

    @override
    async def ensure(self, span: Span, patience: Patience) -> None:
        if self.digest() is None:
            raise OfflineError(
                f"{self._name}: {self._descriptor.digest} is no longer in the store",
                hint="read it by the ref that it came from",
            )

    @override
    async def read(self, offset: int, length: int, patience: Patience) -> bytes:
        await self.ensure(Span(offset, offset + length), patience)
        self._metrics.add("fetch.hits")
        return await self._blobs.read(self._descriptor.digest, offset, length, self._key)

    @override
    def ranges(self) -> Ranges:
        return CheckedRanges(self)

    @override
    def lazy(self) -> bool:
        return True

    @override
    def algorithms(self) -> tuple[str, ...]:
        return ()

    @override
    def feed(self) -> Feeder:
        return Reading(self)

    @override
    async def seal(self, seen: Seen | None, patience: Patience) -> Digest | None:
        return self.digest()
