"""Watching: hashes each file of an archive as its bytes stream by, for who wants it by digest."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from cafs.labour import worked
from cafs.model.digest import EMPTY
from cafs.model.member import Kind, Member, Piece

HOLES: Final = 1 << 30
"""Bytes of holes that are hashed for one archive: a few hundred bytes of archive can promise
exabytes of them. The digests of sparse files beyond are not known."""
_ZEROS: Final = bytes(1 << 20)


class Watch:
    """Reads on, and hashes what is the content of the member that was told last.

    Concurrency: one worker thread.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._hash = hashlib.sha256()
        self._left = 0
        self._size = 0
        self._watching = False
        self._pieces: Sequence[Piece] = ()
        self._at = 0
        self._number = 0
        self._within = 0
        self._holes = HOLES

    def begin(self, member: Member) -> None:
        """A member's content begins with the next byte that is read."""
        stored, holes = member.size, 0
        if member.sparse is not None:
            stored = sum(piece.length for piece in member.sparse)
            holes = member.size - stored
        self._watching = member.kind is Kind.FILE and holes <= self._holes
        if not self._watching:
            self._left = 0
            return
        self._holes -= holes
        self._left, self._size = stored, member.size
        self._pieces = member.sparse or ()
        self._at = self._number = self._within = 0
        if member.size:
            self._hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes: at most ``size``, none only at the end."""
        data = self._read(size)
        if self._left and data:
            content = memoryview(data)[: self._left]
            self._left -= len(content)
            if self._pieces:
                self._spread(content)
            else:
                self._hash.update(content)
                self._at += len(content)
        return data

    def digest(self) -> bytes:
        """The raw sha256 of the member's content, now that it was read; empty if nobody knows."""
        if not self._watching or self._left:
            return b""
        if not self._size:
            return EMPTY.raw
        self._fill(self._size)
        return self._hash.digest()

    def _spread(self, content: memoryview) -> None:
        """Hash data of a sparse file where its pieces are, with the holes between."""
        while content:
            piece = self._pieces[self._number]
            self._fill(piece.offset + self._within)
            part = content[: piece.length - self._within]
            self._hash.update(part)
            self._at += len(part)
            self._within += len(part)
            if self._within == piece.length:
                self._number, self._within = self._number + 1, 0
            content = content[len(part) :]

    def _fill(self, stop: int) -> None:
        """Hash the hole up to a byte of the file."""
        while self._at < stop:
            step = min(len(_ZEROS), stop - self._at)
            self._hash.update(memoryview(_ZEROS)[:step])
            self._at += step
            worked()
