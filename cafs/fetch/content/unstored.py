"""Unstored: content that passed its gate in memory, because the store has no room for it.

It is the same gate: all bytes are there, are hashed, and match every claim before any is handed
out. What has passed is kept as a whole, as long as ``overflow`` has room for it. That room is set
aside before anything is put together: all that pass at once, and all that is kept, share one bound.
"""

import trio

from cafs.errors import DigestMismatchError, SourceChangedError
from cafs.fetch.flights.depositing import Deposit
from cafs.fetch.flights.sealing import Seal
from cafs.fetch.flights.work import Work
from cafs.model.digest import Digest, Hasher
from cafs.model.identity import StreamKey


class Unstored:
    """One content, in memory.

    Concurrency: any number of tasks of one trio run; one at a time passes the gate.
    """

    def __init__(self, deposit: Deposit, seal: Seal, key: StreamKey, name: str) -> None:
        self._deposit = deposit
        self._overflow = deposit.overflow
        self._seal = seal
        self._key = key
        self._name = name
        self._seen: Digest | None = None

    def digest(self) -> Digest | None:
        """The canonical digest of what is kept; None when nothing is, that was checked."""
        return self._overflow.whole(self._key)

    def read(self, offset: int, length: int) -> bytes | None:
        """Read; short at the end. None when it is not kept."""
        return self._overflow.read_whole(self._key, offset, length)

    def drop(self) -> None:
        """Keep it no more."""
        if self.digest() is not None:
            self._overflow.drop(self._key)

    async def admit(self, size: int, work: Work[None]) -> None:
        """Let what has come pass the gate, if all has.

        Raises:
            DigestMismatchError: it is not what it must be; all of it is forgotten.
            SourceChangedError: without a pin, it is not what was handed out before.
            StorageFullError: there is no room for all of it.
            StorageError: the disk failed.

        Where others have set room aside, it waits for that, as long as anybody waits for ``work``.

        Cancellation: nothing has passed.
        """
        if size > self._overflow.limit:
            raise self._deposit.shortage.error(self._name, size)
        async with self._overflow.set_aside(self._key, size) as found:
            if not found:
                raise self._deposit.shortage.error(self._name, size)
            await self._pass(size, work)

    async def _pass(self, size: int, work: Work[None]) -> None:
        deposit = self._deposit
        hasher = Hasher(self._seal.algorithms)
        pieces: list[bytes] = []
        while hasher.size < size:
            piece = await deposit.piece(hasher.size, size)
            if piece is None:
                return
            await trio.to_thread.run_sync(hasher.update, piece)
            pieces.append(piece)
            work.beat()
        try:
            self._seal.compare(hasher)
        except DigestMismatchError:
            await deposit.forget()
            raise
        digest = hasher.digest()
        if self._seen not in {None, digest}:
            await deposit.forget()
            raise SourceChangedError(
                f"{self._name}: was {self._seen} when it was read a moment ago, is {digest}"
            )
        if not self._overflow.keep_whole(self._key, digest, pieces):
            raise deposit.shortage.error(self._name, size)
        self._seen = digest
