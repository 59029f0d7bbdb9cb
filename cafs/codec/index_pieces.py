"""The pieces of an index file: framing, unpacking, and hashing of what is read."""

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec
import zstandard

from cafs.codec.index_file import (
    DIGEST,
    ENTRIES,
    HEADER,
    LENGTH,
    PIECE,
    UNPACKED,
    Header,
    unpack_header,
)
from cafs.errors import MalformedError
from cafs.model.digest import Digest, Hasher
from cafs.model.limits import Limits

_READ: Final = 256 << 10
_FRAME: Final = 1 << 10
"""Bytes that a page's columns may have beyond those that they unpack to: what a frame of zstd takes
for itself, and 1/256 of them."""


class Piece(msgspec.Struct, frozen=True):
    """A page as it lies in the file, its columns unpacked: ``digests`` are end to end."""

    count: int
    columns: bytes
    digests: bytes


class Pieces:
    """Takes an index apart, forward, and hashes what goes by.

    Args:
        read: the file: at most so many bytes, none only at its end.
        size: its bytes.
        name: what errors call it.
        limits: how much may come of how little.

    Memory: one piece, 8 MiB with its packed form at most.

    Concurrency: one thread.
    """

    def __init__(self, read: Callable[[int], bytes], size: int, name: str, limits: Limits) -> None:
        self._read = read
        self._size = size
        self.name = name
        self._limits = limits
        self._hasher = Hasher()
        self._unpacker = zstandard.ZstdDecompressor()
        self._unpacked = 0
        self._data = b""
        self._at = 0
        self.place = 0

    def header(self) -> Header:
        """The header, to be taken first.

        Raises:
            MalformedError: it is none, or promises more than the file can hold.
            UnsupportedError: another version.
        """
        raw = self._take(min(HEADER, self._size), "the header")
        header = unpack_header(raw, self.name)
        pages = -(-header.entries // ENTRIES)
        if header.segments * DIGEST + pages * PIECE.size > self._size - HEADER:
            raise self.malformed("it promises more than so small a file can hold")
        return header

    def piece(self, limit: int) -> Piece:
        """The next page, of at most ``limit`` entries or segments.

        Raises:
            MalformedError: it is damaged, or promises too much.
        """
        count, hashed, packed, unpacked = PIECE.unpack(self._take(PIECE.size, "a page"))
        if not 0 < count <= limit or hashed > count:
            raise self.malformed(f"a page of {count} with {hashed} digests")
        self._unpacked += unpacked
        if unpacked > UNPACKED or self._limits.inflated(decoded=self._unpacked, given=self._size):
            raise self.malformed(f"{packed} bytes that would be {unpacked}")
        if packed > unpacked + (unpacked >> 8) + _FRAME:
            raise self.malformed(f"{packed} bytes that would be no more than {unpacked}")
        raw = self._take(packed, "a page's columns")
        try:
            # What the frame says of itself is what libzstd would allocate.
            if zstandard.get_frame_parameters(raw).content_size != unpacked:
                raise self.malformed("a page's columns are not as long as it says")
            columns = self._unpacker.decompress(raw, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise self.malformed(f"a page's columns are damaged: {error}") from error
        if len(columns) != unpacked:
            raise self.malformed("a page's columns are not as long as it says")
        return Piece(count, columns, self._take(hashed * DIGEST, "digests"))

    def window(self) -> bytes:
        """The next window, packed."""
        (length,) = LENGTH.unpack(self._take(LENGTH.size, "a window"))
        return self._take(length, "a window")

    def finish(self) -> Digest:
        """Say that nothing may follow; gives the digest of all that was read.

        Raises:
            MalformedError: something follows.
        """
        if self.place != self._size or self._at != len(self._data) or self._read(1):
            raise self.malformed("something lies behind its end")
        return self._hasher.digest()

    def malformed(self, what: str) -> MalformedError:
        """An error that names the index and the place."""
        return MalformedError(f"{self.name}: {what} (at byte {self.place})")

    def _take(self, size: int, what: str) -> bytes:
        """Exactly so many bytes."""
        if size > self._size - self.place:
            raise self.malformed(f"it ends in {what}")
        parts: list[bytes] = []
        left = size
        while left:
            if self._at == len(self._data):
                self._data, self._at = self._read(_READ), 0
                if not self._data:
                    raise self.malformed(f"it ends in {what}")
                self._hasher.update(self._data)
            part = self._data[self._at : self._at + left]
            self._at += len(part)
            left -= len(part)
            parts.append(part)
        self.place += size
        return parts[0] if len(parts) == 1 else b"".join(parts)


def what_it_says(
    read: Callable[[int], bytes],
    size: int,
    *,
    name: str,
    unpack: Callable[[bytes], bytes],
    limits: Limits | None = None,
) -> Digest:
    """A digest of what an index says, however zstd has packed it.

    Two indexes of one blob, made by two versions of zstd, differ in their bytes and agree in this.
    What is said is hashed, not judged: to read the index is another matter.

    Args:
        read: the file, forward.
        size: its bytes.
        name: what errors call it.
        unpack: unpacks a window.
        limits: as for ``Pieces``.

    Raises:
        MalformedError: it is no index, or damaged.
        UnsupportedError: another version.
    """
    pieces = Pieces(read, size, name, limits or Limits())
    header = pieces.header()
    said = hashlib.sha256(header.pack())
    for total, windows in ((header.entries, False), (header.segments, True)):
        left = total
        while left:
            piece = pieces.piece(left)
            left -= piece.count
            lengths = (piece.count, len(piece.digests) // DIGEST)
            said.update(PIECE.pack(*lengths, 0, len(piece.columns)))
            said.update(piece.columns)
            said.update(piece.digests)
            for _ in range(piece.count if windows else 0):
                packed = pieces.window()
                window = unpack(packed) if packed else b""
                said.update(LENGTH.pack(len(window)) + window)
    pieces.finish()
    return Digest("sha256", said.digest())
