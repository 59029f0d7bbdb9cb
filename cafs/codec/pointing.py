"""Makes the decoder of a first pass, which tells restart points (``codec/points.py``)."""

from typing import Final

from cafs.codec.bzip2_points import Bzip2Blocks
from cafs.codec.decoding import Counted, Read
from cafs.codec.frame_points import FramePoints, Slices, Walk
from cafs.codec.gzip_points import GzipPoints
from cafs.codec.points import Point, PointedDecoder
from cafs.codec.sniffing import Compression
from cafs.codec.xz_points import XzBlocks
from cafs.codec.zstd import ZstdFrames
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
    limits = limits or Limits()
    if compression is Compression.GZIP:
        return GzipPoints(read, name, limits, spacing)
    source = Counted(read)
    codec, walk = _walk(compression, source.read, name, spacing)
    return FramePoints(codec, walk, source, name=name, limits=limits, spacing=spacing)


def _walk(compression: Compression, read: Read, name: str, spacing: int) -> tuple[str, Walk]:
    if compression is Compression.ZSTD:
        return "zstd", ZstdFrames(read, name)
    if compression is Compression.XZ:
        return "xz", XzBlocks(read, name)
    if compression is Compression.BZIP2:
        return "bzip2", Bzip2Blocks(read, name)
    return "store", Slices(read, spacing)
