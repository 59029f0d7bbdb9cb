"""Sealing: hands a stream that is whole to the store's gate, once."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cafs.errors import CafsError, DigestMismatchError, StorageError
from cafs.labour import Turn
from cafs.metrics import Metrics
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.blobs.blobs import Blobs
from cafs.store.streams.streams import Streams
from cafs.store.streams.witness import Seen

CHECKING: Final = "checking all that has come"
_LOG = logging.getLogger(__name__)
Learned = Callable[[Descriptor], Awaitable[None]]
"""Told once which content it was, when that was not known before."""


class Seal:
    """What one stream must be, and what happens when it has been found to be that.

    ``claims`` are all that its digest must match; none for content without a pin.

    Concurrency: any number of tasks; one at a time passes the gate.
    """

    def __init__(
        self,
        blobs: Blobs,
        streams: Streams,
        key: StreamKey,
        *,
        name: str,
        media_type: str,
        claims: Sequence[Digest],
        metrics: Metrics,
        learned: Learned | None,
    ) -> None:
        self._blobs = blobs
        self._streams = streams
        self._key = key
        self._name = name
        self.media_type = media_type
        self.claims = tuple(claims)
        self._metrics = metrics
        self._learned = learned
        self._turn = Turn()
        self._rejected: DigestMismatchError | None = None

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Of the claims."""
        return tuple(claim.algorithm for claim in self.claims)

    def digest(self) -> Digest | None:
        """The canonical digest, when the content is in the store and was checked."""
        for claim in self.claims:
            found = self._blobs.stat(claim)
            if found is not None:
                return found.digest
        stream = self._streams.find(self._key)
        return None if stream is None else stream.digest()

    def compare(self, hasher: Hasher) -> None:
        """Hold hashes of all bytes that somebody saw against the claims.

        Raises:
            DigestMismatchError: what was seen is not what it must be. Nothing happens to the store.
        """
        for claim in self.claims:
            actual = hasher.digest(claim.algorithm)
            if actual != claim:
                raise DigestMismatchError(self._name, expected=claim, actual=actual)

    async def close(self, seen: Seen | None, size: int) -> Digest:
        """Pass the gate; a second call returns what the first found.

        Args:
            seen: hashes of every byte of the stream in order; None to have them read again.
            size: bytes in the stream.

        Raises:
            DigestMismatchError, SizeMismatchError: it is not what it must be.
            NotWholeError: something of it was taken out meanwhile.
            StorageError: the store failed.

        Cancellation: nothing is visible, or all.
        """
        async with self._turn.hold():
            known = self.digest()
            if known is not None:
                return known
            if not size:
                # Nothing was fetched, so nothing is there yet.
                await self._streams.open(self._key, 0)
            elif self._rejected is not None and not self._whole(size):
                # Whoever had the lock before has put it aside.
                raise self._rejected.with_traceback(None)
            try:
                descriptor = await self._blobs.admit(
                    self._key,
                    media_type=self.media_type,
                    claims=self.claims,
                    size=size,
                    name=self._name,
                    hashed=seen,
                )
            except DigestMismatchError as error:
                self._rejected = error
                raise
            except StorageError:
                # Another process may have been faster: then the file has moved, and all is well.
                known = self.digest()
                if known is None:
                    raise
                return known
            await self._finish(descriptor)
            return descriptor.digest

    async def take(self, data: bytes) -> bool:
        """Pass the gate with small content that came whole, and is nowhere yet.

        Returns:
            Whether it has passed; if not, nothing has happened, and ``close`` says why.

        Cancellation: as ``Blobs.take``.
        """
        async with self._turn.hold():
            descriptor = await self._blobs.take(
                self._key,
                data,
                media_type=self.media_type,
                claims=self.claims,
                name=self._name,
            )
            if descriptor is None:
                return False
            await self._finish(descriptor)
            return True

    def _whole(self, size: int) -> bool:
        stream = self._streams.find(self._key)
        return stream is not None and stream.present().covers(Span(0, size))

    async def _finish(self, descriptor: Descriptor) -> None:
        self._metrics.add("fetch.verified", descriptor.size)
        await self._tell(descriptor)

    async def _tell(self, descriptor: Descriptor) -> None:
        if self._learned is None:
            return
        try:
            await self._learned(descriptor)
        except CafsError as error:
            # It is asked again next time; the content is here all the same (rule 5).
            _LOG.info("fetch.learned.failed: %s", error.line)
