"""Writing: blobs that come in from the front, piece by piece, into an upload (B-4, B-16)."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, Protocol

import trio
from typing_extensions import override

from cafs.errors import DigestMismatchError, NotFoundError, SizeMismatchError, StorageError
from cafs.model.descriptor import Descriptor
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey
from cafs.model.span import Span
from cafs.store.blobs.stages import Life
from cafs.store.blobs.uploads import Held
from cafs.store.interfaces import Statter, Writer
from cafs.store.streams.witness import Seen

_CHUNK: Final = 1 << 20
"""Bytes read at once when a partial is hashed again."""


class Gate(Statter, Protocol):
    """What a writer hands its stream to."""

    @abstractmethod
    async def admit(
        self,
        key: StreamKey,
        *,
        media_type: str,
        claims: Sequence[Digest] = (),
        size: int | None = None,
        name: str,
        hashed: Seen | None = None,
        lasting: bool = True,
    ) -> Descriptor:
        """Verify a whole stream and make it a blob."""


class BlobWriter(Writer):
    """Writes one blob into a stream of the store.

    Args:
        upload: is its writer's until the writing ends.
        gate: what the whole is handed to.
    """

    def __init__(self, upload: Held, gate: Gate) -> None:
        self.id = upload.id
        self.started_ns = upload.started_ns
        self._upload = upload
        self._gate = gate
        self._hasher = Hasher()
        self._of = upload.stream.incarnation()
        self._life = Life(f"upload {upload.id}")

    @property
    @override
    def size(self) -> int:
        return self._hasher.size

    async def catch_up(self) -> None:
        """Hash what an earlier writer wrote (B-15): hashes cannot be put down and taken up again.

        Bytes behind a gap, which a power cut may leave, are written anew.

        Cancellation: the writer is useless.
        """
        stream = self._upload.stream
        bounds = stream.present().remove(Span(0, self._front())).bounds
        if bounds:
            await stream.reject(Span(min(bounds), max(bounds)))
        self._of = await stream.settled()
        size = self._front()
        while self.size < size:
            data = await stream.read(self.size, min(_CHUNK, size - self.size))
            if not data:
                raise NotFoundError(f"{self._life.name}: its bytes have vanished")
            await trio.to_thread.run_sync(self._hasher.update, data)

    def _front(self) -> int:
        """How many bytes there are before the first gap."""
        first = next(iter(self._upload.stream.present()), Span(0, 0))
        return first.stop if first.start == 0 else 0

    @override
    async def write(self, data: bytes) -> None:
        self._life.check()
        limit = self._upload.stream.size
        if limit is not None and self.size + len(data) > limit:
            raise trio.ClosedResourceError(f"{self._life.name} is being committed")
        try:
            await trio.to_thread.run_sync(self._write, data)
        except StorageError:
            # A part of it may lie there: other bytes at its place would be hashed, and not kept.
            self._let_go()
            raise

    def _write(self, data: bytes) -> None:
        self._upload.stream.write_sync(self.size, data)
        self._hasher.update(data)

    @override
    async def close(self) -> None:
        self._let_go()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _let_go(self) -> None:
        self._life.close()
        self._upload.release()

    @override
    async def commit(self, digest: Digest | None, size: int | None) -> Descriptor:
        self._life.check()
        if size is not None and size != self.size:
            raise SizeMismatchError(self._life.name, expected=size, actual=self.size)
        try:
            await self._upload.stream.set_size(self.size)
            descriptor = await self._gate.admit(
                self._upload.stream.key,
                media_type=self._upload.media_type,
                claims=() if digest is None else (digest,),
                name=self._life.name,
                hashed=Seen(self._hasher, self._of),
                lasting=False,
            )
        except DigestMismatchError:
            self._life.cancel()
            await self._end()
            raise
        except StorageError:
            self._let_go()
            raise
        self._life.commit()
        await self._end()
        return self._gate.stat(descriptor.digest) or descriptor

    async def _end(self) -> None:
        """Forget the upload, of which something has become."""
        try:
            await self._upload.forget()
        finally:
            self._upload.release()

    @override
    async def cancel(self) -> None:
        if self._life.over:
            return
        if self._life.open:
            await self._upload.remove()
            self._upload.release()
        else:
            await self._upload.remove_unheld()
        self._life.cancel()
