"""Restart points: where in a compressed stream decoding can begin anew.

A first pass decodes a stream once, from its front, and is told on the way where a reader may begin
later without what comes before. Between two points lies a segment (``codec/segments.py`` decodes
one). A format without points has one, its beginning.

What ``codec`` and ``state`` of a point mean:

=========  =====================================================================================
"store"    the bytes themselves
"gzip"     a gzip member begins there; others may follow it
"deflate"  in the middle of a member, at the first bit of a block: ``state`` is how many low bits of
           the byte at ``input_start`` come before it (0 to 7); ``window`` what was decoded before.
           Behind the member's end others may follow
"zstd"     a frame begins there; others may follow it
"xz"       a block begins there; ``state`` is the id of its check
"bzip2"    the magic of a block begins there, ``state`` bits into the byte at ``input_start``
=========  =====================================================================================
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Final, Protocol

from typing_extensions import override

from cafs.codec.decoding import Decoder, Read, decoder
from cafs.codec.sniffing import Compression
from cafs.model.limits import Limits

SPACING: Final = 2 << 20
"""Decoded bytes between two points, at least where the format has them: a reader of one byte
fetches and decodes so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A place where decoding can begin.

    ``start`` is in the decoded stream, ``input_start`` in the raw one: the byte that has the first
    bit. ``window`` is what was decoded right before, at most 32 KiB, of which what nothing refers
    to may be zeros; empty where the codec needs none.
    """

    start: int
    input_start: int
    codec: str
    state: int = 0
    window: bytes = b""


class PointedDecoder(Decoder, Protocol):
    """A decoder that tells where decoding can begin.

    Concurrency: one caller at a time, in a thread.
    """

    @abstractmethod
    def points(self) -> list[Point]:
        """The points that are new since the last call, ascending; the first is at 0.

        A point is told at the latest with the ``read`` that returns its first byte.
        """

    @abstractmethod
    def consumed(self) -> int:
        """Raw bytes up to the end of what was decoded; to be asked when all was read.

        What follows (padding, garbage that the format's own tool ignores) belongs to no segment.
        """


def pointed(
    compression: Compression,
    read: Read,
    name: str,
    limits: Limits | None = None,
    *,
    spacing: int = SPACING,
) -> PointedDecoder:
    """Make a decoder that tells points.

    Args:
        compression: of the input; ``NONE`` hands it through.
        read: the input. Its errors pass through unchanged.
        name: what errors call the input.
        limits: as for ``decoder``.
        spacing: decoded bytes between two points, as near as the format lets.
    """
    del spacing  # what has no points has none at any distance
    return _Whole(compression, read, name, limits)


class _Whole(PointedDecoder):
    """A stream that can only be decoded from its beginning."""

    def __init__(
        self, compression: Compression, read: Read, name: str, limits: Limits | None
    ) -> None:
        self._inner = decoder(compression, self._taken, name, limits)
        self._read = read
        self._total = 0
        codec = "store" if compression is Compression.NONE else compression.value
        self._first = [Point(start=0, input_start=0, codec=codec)]

    def _taken(self, size: int) -> bytes:
        data = self._read(size)
        self._total += len(data)
        return data

    @override
    def read(self, size: int) -> bytes:
        return self._inner.read(size)

    @override
    def points(self) -> list[Point]:
        told, self._first = self._first, []
        return told

    @override
    def consumed(self) -> int:
        return self._total
