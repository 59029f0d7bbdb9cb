"""Makes the decoder of a first pass, which tells restart points (``codec/points.py``)."""

from typing import Final

from typing_extensions import override

from cafs.codec.decoding import Read, decoder
from cafs.codec.gzip_points import GzipPoints
from cafs.codec.points import Point, PointedDecoder
from cafs.codec.sniffing import Compression
from cafs.model.limits import Limits

__all__ = ["SPACING", "Point", "PointedDecoder", "pointed"]

SPACING: Final = 2 << 20
"""Decoded bytes between two points, at least where the format has them: a reader of one byte
fetches and decodes so much."""


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

    Raises:
        UnsupportedError: what decodes it is missing on this machine.
    """
    if compression is Compression.GZIP:
        return GzipPoints(read, name, limits or Limits(), spacing)
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
