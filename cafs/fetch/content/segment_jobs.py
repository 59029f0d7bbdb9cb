"""Segment jobs: decodes one segment in a thread, checks it, and keeps it.

No byte of it can be read before all of it was checked. Small segments wait for that in memory, long
ones where they will be, as a draft: each is decoded once.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cafs.errors import StorageError
from cafs.fetch.content.bridging import PIECE, Pull
from cafs.fetch.flights.work import Work
from cafs.labour import worked
from cafs.model.digest import Digest
from cafs.model.record import Segment
from cafs.model.span import Span
from cafs.store.streams.stream import Stream

IN_MEMORY: Final = 8 << 20
"""Segments up to this are held until they were checked, and then written."""
_TRIES: Final = 3
"""How often a segment is decoded whose stream is removed meanwhile."""


@dataclass(frozen=True, slots=True)
class Job:
    """One segment to decode.

    ``source`` is where in the raw content its input lies; ``pull`` brings that, on the trio thread.
    ``blob`` is the verified blob that stands behind what it decodes to, None where nothing does.
    ``window`` is what its codec must have before it, packed. ``group``, where there is any, are
    segments that come by when it is decoded, this one among them; ``pieces`` gives them all then.
    ``whole`` is whether all of its input is here. ``run``, where there is any, are segments around
    it that are decoded at once, each from an input of its own, this one among them. ``held`` are
    raw bytes around its input that were brought already, and where they begin.
    """

    segment: Segment
    source: Span
    pull: Pull
    blob: Digest | None
    work: Work[None]
    window: bytes = b""
    group: tuple[Segment, ...] = ()
    whole: bool = True
    run: tuple[Segment, ...] = ()
    held: tuple[int, bytes] | None = None


class Checks:
    """The checksums of a segment, as it is decoded.

    Concurrency: one worker thread.
    """

    def __init__(self, segment: Segment) -> None:
        self._crc = None if segment.crc32 is None else 0
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """These bytes come next."""
        if self._crc is not None:
            self._crc = zlib.crc32(piece, self._crc)
        self._hash.update(piece)
        worked()

    @property
    def crc32(self) -> int | None:
        """Of all of them; None where there is none to compare it with."""
        return self._crc

    @property
    def sha256(self) -> bytes:
        """The raw digest of all of them."""
        return self._hash.digest()


Pieces = Callable[[Job], Iterator[bytes]]
"""Decodes a segment; as many bytes as announced, or an error."""
Check = Callable[[Job, Checks], None]
"""Holds checksums against what they must be; raises ContentError."""


def read_window(job: Job, window: Span, pieces: Pieces, check: Check) -> bytes:
    """Some of a segment's bytes, after all of it was checked. Runs in a worker thread.

    Raises:
        CafsError: as ``pieces`` and ``check``.
    """
    checks, position = Checks(job.segment), job.segment.start
    kept: list[bytes] = []
    for piece in pieces(job):
        checks.add(piece)
        first, last = max(0, window.start - position), max(0, window.stop - position)
        kept.append(piece[first:last])
        position += len(piece)
    check(job, checks)
    return b"".join(kept)


def keep(job: Job, stream: Stream, pieces: Pieces, check: Check, *, name: str) -> bytes:
    """Decode a segment, check it, write it; the raw sha256 of it. Runs in a worker thread.

    Raises:
        NotFoundError: the blob that it is decoded from is not there any more.
        StorageFullError: there is no room for it.
        CafsError: as ``pieces`` and ``check``.
    """
    if job.segment.length <= IN_MEMORY:
        checks = Checks(job.segment)
        data = bytearray()
        for piece in pieces(job):
            checks.add(piece)
            data += piece
        check(job, checks)
        stream.write_sync(job.segment.start, data)
        return checks.sha256
    for _ in range(_TRIES):
        digest = _drafted(job, stream, pieces, check)
        if digest:
            return digest
    raise StorageError(
        f"{name}: what it decodes to was removed from the store meanwhile", hint="read it again"
    )


def _drafted(job: Job, stream: Stream, pieces: Pieces, check: Check) -> bytes:
    """Write a segment while it is decoded; nothing where the stream became another meanwhile."""
    checks, draft = Checks(job.segment), stream.draft_sync()
    position, batch = job.segment.start, bytearray()
    try:
        for piece in pieces(job):
            checks.add(piece)
            batch += piece
            if len(batch) >= PIECE:
                draft.write(position, batch)
                position += len(batch)
                batch = bytearray()
        draft.write(position, batch)
        check(job, checks)
        return checks.sha256 if draft.keep() else b""
    except BaseException:
        with suppress(StorageError):  # then it takes space until it is written again
            draft.drop()
        raise
